"""The page of a study: one file that loads nothing, and that fits its own policy."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

from s2v_cli.training.evaluation.study_page import PagePart, PageQuestion, render_page, study_id

NOTE = 'Send it to "a&b" </script><script>alert(1)</script> <!-- {{style}} \u2028'
PARTS = [
    PagePart(True, (PageQuestion("0a", b"sound", (("0b", b"one"), ("0c", b"two"))),)),
    PagePart(False, (PageQuestion("0d", b"other", (("0e", b"three"), ("0f", b"four"))),)),
]
VOID = {"meta", "link", "img", "br", "hr", "input", "source"}


class Parsed(HTMLParser):
    """Elements with their attributes and text; unclosed ones are an error."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.text.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.text[self.open[-1]][-1] += data


def test_the_page_is_whole_and_holds_what_it_asks() -> None:
    parsed = Parsed(render_page(PARTS, "Sounds & <b>pictures</b>", NOTE))
    assert parsed.text["title"] == ["Sounds & <b>pictures</b>"]
    assert not any(tag == "b" for tag, _ in parsed.elements)
    data, _ = parsed.text["script"]
    study = json.loads(data)
    assert study["note"] == NOTE
    assert study["study"] == study_id(PARTS)
    assert [part["several"] for part in study["parts"]] == [True, False]
    (question,) = study["parts"][0]["questions"]
    assert question["id"] == "0a"
    assert question["sound"] == f"data:audio/flac;base64,{base64.b64encode(b'sound').decode()}"
    assert [picture["id"] for picture in question["pictures"]] == ["0b", "0c"]
    assert question["pictures"][1]["source"].endswith(base64.b64encode(b"two").decode())


def test_it_refers_to_nothing_outside() -> None:
    page = render_page(PARTS, "Title")
    parsed = Parsed(page)
    assert {tag for tag, _ in parsed.elements}.isdisjoint(
        {"link", "iframe", "object", "embed", "base", "form", "img", "audio", "a"}
    )
    attributes = {name for _, found in parsed.elements for name in found}
    assert attributes.isdisjoint({"src", "href", "action", "srcset", "data", "style"})
    assert not any(name.startswith("on") for name in attributes)
    assert re.findall(r"\w+://", page) == []
    assert "url(" not in page and "@import" not in page
    reaching = r"\b(fetch|XMLHttpRequest|WebSocket|EventSource|sendBeacon|import|eval)\b"
    assert re.findall(reaching, page) == []


def test_its_policy_forbids_all_else_and_fits_its_script_and_style() -> None:
    parsed = Parsed(render_page(PARTS, "Title", NOTE))
    (policy,) = (
        found["content"]
        for tag, found in parsed.elements
        if tag == "meta" and found.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == rules["media-src"] == "data:"
    for rule, text in (
        ("style-src", parsed.text["style"][0]),
        ("script-src", parsed.text["script"][1]),
    ):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"


def test_a_study_has_a_number_of_its_own() -> None:
    assert render_page(PARTS, "Title") == render_page(PARTS, "Title")
    assert study_id(PARTS) == study_id(list(PARTS))
    changed = [PARTS[0], PagePart(False, (PageQuestion("0d", b"other", (("0e", b"5"),)),))]
    assert len({study_id(PARTS), study_id(changed), study_id(PARTS[:1])}) == 3
