"""What is written down in two places says the same in both."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import s2v_cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def code_blocks(text: str, *languages: str) -> list[str]:
    return re.findall(rf"^```(?:{'|'.join(languages)})\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def load_script(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    return load_script("docs/generate_cli.py")


@pytest.fixture(scope="module")
def pages(generator: ModuleType) -> dict[tuple[str, ...], str]:
    return generator.all_help()


def test_changelog_begins_with_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## \[(\d[^\]]*)\] - (\d{4}-\d\d-\d\d)$", changelog, re.MULTILINE)
    assert released[0][0] == s2v_cli.__version__
    assert sorted((date for _, date in released), reverse=True) == [date for _, date in released]


def test_command_reference_is_generated(
    generator: ModuleType, pages: dict[tuple[str, ...], str]
) -> None:
    written = generator.TARGET.read_text(encoding="utf-8")
    assert written == generator.reference(pages), "run `make docs`"


def test_preset_table_is_generated() -> None:
    script = load_script("docs/generate_presets.py")
    assert script.TARGET.read_text(encoding="utf-8") == script.reference(), "run `make docs`"


def readme_commands() -> list[list[str]]:
    lines = "\n".join(code_blocks(README, "sh", "console")).replace("\\\n", " ").splitlines()
    steps = [step for line in lines for step in re.split(r"\s[|>]\s|&&", line)]
    words = [shlex.split(step.removeprefix("$ "), comments=True) for step in steps]
    return [line[1:] for line in words if line[:1] == ["s2v"]]


def test_readme_commands_exist(pages: dict[tuple[str, ...], str]) -> None:
    commands = readme_commands()
    assert len(commands) >= 5
    for words in commands:
        path: tuple[str, ...] = ()
        for word in words:
            if (*path, word) not in pages:
                break
            path = (*path, word)
        assert path or words[0].startswith("-"), f"no such command: s2v {' '.join(words)}"
        known = set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", pages[path]))
        used = {word.split("=")[0] for word in words if re.match(r"--?[A-Za-z]", word)}
        assert used <= known, f"s2v {' '.join(words)}"


def test_readme_names_only_files_that_exist() -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", README)
    used = re.findall(r"\bexamples/[\w.-]+\w", README)
    assert links
    assert used
    assert [name for name in {*links, *used} if not (ROOT / name).exists()] == []


def test_readme_has_no_open_numbers() -> None:
    assert re.findall(r"<!-- NUMBER.*", README) == []


def test_readme_python_uses_public_names() -> None:
    blocks = code_blocks(README, "python")
    assert blocks
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module == "s2v_cli":
                assert {alias.name for alias in node.names} <= set(s2v_cli.__all__)


def test_readme_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks in one namespace, as a reader who follows the tour would type them."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for block in code_blocks(README, "python"):
        exec(compile(block, "README.md", "exec"), namespace)
    assert list(tmp_path.glob("*.png"))


def test_constraints_pin_every_dependency() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    for pin in pins:
        assert re.fullmatch(r"[\w.-]+==[\w.]+(; python_version .*)?", pin), pin
    pinned = {re.split("==", pin)[0].lower().replace("_", "-") for pin in pins}
    project = PROJECT["project"]
    wanted = sum(project["optional-dependencies"].values(), project["dependencies"])
    names = {re.split(r"[<>=!;\s\[]", line)[0].lower().replace("_", "-") for line in wanted}
    assert names - pinned == set()


def test_examples_are_all_attributed() -> None:
    table = (ROOT / "examples/README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE))
    there = {path.name for path in (ROOT / "examples").iterdir()} - {"README.md"}
    assert listed == there
