"""The page of a user study: one HTML file with its sounds and pictures in it.

It loads nothing from elsewhere, and its content security policy forbids that it could; it works
from a file. It does not know which picture is whose: that is in the key alone.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FILES = Path(__file__).parent / "page"


@dataclass(frozen=True)
class PageQuestion:
    """A question as the page shows it.

    Attributes:
        token: what the answers call it.
        sound: a FLAC file.
        pictures: token and JPEG file of each, in any order.
    """

    token: str
    sound: bytes
    pictures: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True)
class PagePart:
    """A part of a study: whether several pictures may be chosen, and its questions."""

    several: bool
    questions: tuple[PageQuestion, ...]


def study_id(parts: Sequence[PagePart]) -> str:
    """What tells a study from all others: 16 hexadecimal digits of all that it asks."""
    digest = hashlib.sha256()
    for part in parts:
        for question in part.questions:
            digest.update(f"{part.several} {question.token}".encode())
            digest.update(question.sound)
            for token, picture in question.pictures:
                digest.update(token.encode())
                digest.update(picture)
    return digest.hexdigest()[:16]


def render_page(parts: Sequence[PagePart], title: str, note: str = "") -> str:
    """The page as HTML. Equal input gives an equal page."""
    style, script = (
        (_FILES / name).read_text(encoding="utf-8") for name in ("study.css", "study.js")
    )
    study = {
        "study": study_id(parts),
        "note": note,
        "parts": [
            {
                "several": part.several,
                "questions": [_question(question) for question in part.questions],
            }
            for part in parts
        ],
    }
    page = (_FILES / "study.html").read_text(encoding="utf-8")
    content = {
        "policy": f"default-src 'none'; img-src data:; media-src data:; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri 'none'; "
        "form-action 'none'",
        "title": html.escape(title.strip()),
        "style": style,
        "script": script,
        # "</script>" in a note must not end the block that it is in.
        "study": json.dumps(study, sort_keys=True).replace("<", "\\u003c"),
    }
    pieces = page.split("{{")
    filled = [pieces[0]]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        filled += [content[name], rest]
    return "".join(filled)


def _question(question: PageQuestion) -> dict[str, Any]:
    return {
        "id": question.token,
        "sound": _data("audio/flac", question.sound),
        "pictures": [
            {"id": token, "source": _data("image/jpeg", picture)}
            for token, picture in question.pictures
        ],
    }


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _hash(text: str) -> str:
    """Of a script or a style, as content security policies write it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
