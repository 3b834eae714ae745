"""The public names: sorted, documented, and not loaded before they are used."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import pytest

import s2v_cli
from s2v_cli import errors

PUBLIC = {
    "EmbeddingSpace",
    "GenerateOptions",
    "Sound",
    "Sound2Vision",
    "SoundOptions",
    "__version__",
    "apply_gain",
    "read_sound",
}


def test_all_is_sorted_and_complete() -> None:
    assert list(s2v_cli.__all__) == sorted(set(s2v_cli.__all__))
    assert set(s2v_cli.__all__) >= PUBLIC
    assert set(s2v_cli.__all__) <= set(dir(s2v_cli))


@pytest.mark.parametrize("name", [name for name in s2v_cli.__all__ if name != "__version__"])
def test_public_names_are_documented(name: str) -> None:
    thing = getattr(s2v_cli, name)
    # a dataclass without a docstring gets its signature as one
    assert inspect.getdoc(thing)
    assert not str(thing.__doc__).startswith(f"{name}(")


@pytest.mark.parametrize("name", [name for name in s2v_cli.__all__ if name != "__version__"])
def test_public_methods_are_documented(name: str) -> None:
    thing = getattr(s2v_cli, name)
    if inspect.isclass(thing) and not issubclass(thing, BaseException):
        bare = [
            member
            for member, value in vars(thing).items()
            if not member.startswith("_")
            and (inspect.isroutine(value) or isinstance(value, property | classmethod))
            and not inspect.getdoc(value)
        ]
        assert bare == []


def test_every_error_is_an_s2v_error() -> None:
    found = [thing for _, thing in inspect.getmembers(errors, inspect.isclass)]
    assert len(found) > 5
    for thing in found:
        assert issubclass(thing, errors.S2VError)
        assert thing.exit_code in (1, 2)
        assert thing.__name__ in str(errors.__doc__), "the tree in the docstring lacks it"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="imagine"):
        _ = s2v_cli.imagine


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import json, sys; before = set(sys.modules); import s2v_cli; s2v_cli.__version__; "
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = json.loads(result.stdout)
    assert "s2v_cli" in loaded
    heavy = {"PIL", "diffusers", "numpy", "rich", "soundfile", "torch", "torchaudio", "typer"}
    assert heavy & {module.split(".")[0] for module in loaded} == set()
