"""Imports point one way; what `s2v --help` imports is light."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from s2v_cli.app import COMMANDS

ROOT = Path(__file__).parents[1]
MAPPED = {"s2v_cli.presets": "presets", "s2v_cli.training": "training"}

# Bottom to top: a file imports from the rows before its own. A new file in s2v_cli/ needs a place.
LAYERS = [
    {"errors"},
    {"_torchaudio", "duration", "options", "outputs", "space"},
    {"presets", "results"},
    {"abilities", "video"},
    {"audio", "device", "latent", "picture", "strip", "weights"},
    {"candidates", "encoders", "installation"},
    {"generators"},
    {"networks"},
    {"inversion", "photo"},
    {"pipeline"},
    {"job"},
    {"frames", "gradcam", "heatmap", "motion", "photo_index"},
    {"editor", "inversion_file", "speech"},
    {"animation", "batch", "blend", "diagnosis", "editing", "explanation", "interpolation"}
    | {"mixing", "replay", "retrieval", "volume"},
    {"training"},
    {"__main__", "app", "commands", "console"},
]
COMMAND_SIDE = LAYERS[-1]
CLIP = {"s2v_cli.encoders.clip_image", "s2v_cli.encoders.clip_text"}
HEAVY = {
    "PIL", "av", "diffusers", "filelock", "gdown", "huggingface_hub", "numpy", "onnxruntime",
    "pydub", "requests", "rich", "safetensors", "scipy", "soundfile", "tensorboard", "torch",
    "torchaudio", "transformers",
}  # fmt: skip


@dataclass(frozen=True)
class Import:
    module: str  # dotted name of what is imported, as far as the statement tells
    line: int
    at_start: bool  # runs when the file is imported: not in a function, not under TYPE_CHECKING
    typing_only: bool


def sources() -> dict[str, Path]:
    """Module name -> file, with the mapped packages under their installed names."""
    found = {}
    for package, folder in {"s2v_cli": "s2v_cli", **MAPPED}.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = [package, *path.relative_to(ROOT / folder).with_suffix("").parts]
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


SOURCES = sources()


def imported(node: ast.ImportFrom, name: str) -> str:
    """The module behind `from node.module import name`."""
    inner = f"{node.module}.{name}"
    if inner in SOURCES:
        return inner
    if node.module == "s2v_cli" and name != "__version__":
        return "s2v_cli.pipeline"  # the lazy public names lead at most that far up
    return str(node.module)


def imports(path: Path) -> Iterator[Import]:
    def visit(node: ast.AST, at_start: bool, typing_only: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, at_start, typing_only)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            for alias in node.names:
                yield Import(imported(node, alias.name), node.lineno, at_start, typing_only)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                yield from visit(child, False, True)
            for child in node.orelse:
                yield from visit(child, at_start, typing_only)
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from visit(child, at_start and not inside, typing_only)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), True, False)


IMPORTS = {module: tuple(imports(path)) for module, path in SOURCES.items()}


def part(module: str) -> str:
    """The name that LAYERS knows: s2v_cli.audio.read -> audio; s2v_cli itself -> ''."""
    return module.split(".")[1] if "." in module else ""


def layer(module: str) -> int:
    return next(level for level, parts in enumerate(LAYERS) if part(module) in parts)


def own(entry: Import) -> bool:
    return entry.module.split(".")[0] == "s2v_cli" and entry.module != "s2v_cli"


def complaint(module: str, entry: Import) -> str:
    return f"{SOURCES[module].relative_to(ROOT)}:{entry.line} imports {entry.module}"


def test_every_module_has_a_layer() -> None:
    known = set().union(*LAYERS)
    assert {part(module) for module in SOURCES} - {""} <= known


def test_no_module_has_the_name_of_a_mapped_package() -> None:
    for package in MAPPED:
        name = package.removeprefix("s2v_cli.")
        assert not (ROOT / "s2v_cli" / name).exists()
        assert not (ROOT / "s2v_cli" / f"{name}.py").exists()


def points_down(module: str, target: str) -> bool:
    """To a lower row, within one part, or between parts of the command side."""
    if part(target) == part(module) or {part(target), part(module)} <= COMMAND_SIDE:
        return True
    return layer(target) < layer(module)


def test_imports_point_down() -> None:
    wrong = [
        complaint(module, entry)
        for module, entries in IMPORTS.items()
        for entry in entries
        if module != "s2v_cli" and own(entry) and not entry.typing_only
        if not points_down(module, entry.module)
    ]
    assert wrong == []


def test_only_commands_reach_training() -> None:
    wrong = [
        complaint(module, entry)
        for module, entries in IMPORTS.items()
        for entry in entries
        if own(entry)
        and part(entry.module) == "training"
        and part(module) not in ("training", "commands")
    ]
    assert wrong == []


def test_training_does_not_know_the_command_side() -> None:
    wrong = [
        complaint(module, entry)
        for module, entries in IMPORTS.items()
        for entry in entries
        if part(module) == "training"
        and (
            (own(entry) and part(entry.module) in COMMAND_SIDE)
            or entry.module.split(".")[0] in ("typer", "rich")
        )
    ]
    assert wrong == []


def loaded_with(start: str) -> set[str]:
    """Own modules that importing `start` imports, `start` and parent packages included."""
    loaded: set[str] = set()
    waiting = [start]
    while waiting:
        module = waiting.pop()
        if module in loaded or module not in SOURCES:
            continue
        loaded.add(module)
        if "." in module:
            waiting.append(module.rpartition(".")[0])
        waiting += [entry.module for entry in IMPORTS[module] if entry.at_start]
    return loaded


def test_help_and_the_package_import_nothing_heavy() -> None:
    homes = {f"s2v_cli.commands.{home.split(':')[0]}" for home in COMMANDS.values()}
    loaded = loaded_with("s2v_cli.__main__") | loaded_with("s2v_cli.app")
    loaded |= set().union(*(loaded_with(home) for home in homes))
    assert {"s2v_cli", *homes} <= loaded
    wrong = [
        complaint(module, entry)
        for module in sorted(loaded)
        for entry in IMPORTS[module]
        if entry.at_start and entry.module.split(".")[0] in HEAVY
    ]
    assert wrong == []


@pytest.mark.parametrize("name", ["errors", "options", "presets", "space", "weights"])
def test_the_bottom_is_light(name: str) -> None:
    modules = [module for module in SOURCES if part(module) == name]
    assert modules
    wrong = [
        complaint(module, entry)
        for module in modules
        for entry in IMPORTS[module]
        if entry.at_start and entry.module.split(".")[0] in HEAVY
    ]
    assert wrong == []


def test_diffusers_and_transformers_stay_in_the_generators_and_clip_and_in_functions() -> None:
    wrong = [
        complaint(module, entry)
        for module, entries in IMPORTS.items()
        for entry in entries
        if entry.module.split(".")[0] in ("diffusers", "transformers")
        and (entry.at_start or (part(module) != "generators" and module not in CLIP))
    ]
    assert wrong == []


def test_nobody_imports_click() -> None:
    """Typer has its own copy since 0.26; the two do not mix."""
    wrong = [
        complaint(module, entry)
        for module, entries in IMPORTS.items()
        for entry in entries
        if entry.module.split(".")[0] == "click"
    ]
    assert wrong == []


def test_the_library_neither_prints_nor_exits() -> None:
    wrong = []
    for module, path in SOURCES.items():
        if part(module) in COMMAND_SIDE or module.endswith(".__main__"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "print", "input", "exit", "sys.exit", "os._exit",
            ):  # fmt: skip
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} calls {ast.unparse(node)}")
    assert wrong == []
