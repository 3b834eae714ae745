from collections.abc import Sequence
from pathlib import Path

import pytest

from s2v_cli.errors import OptionError, OutputError
from s2v_cli.outputs import literal, plan_outputs


def plan(
    target: str | None,
    sounds: Sequence[str] = ("rain.wav",),
    seeds: Sequence[int] = (0,),
    grid: bool = False,
    overwrite: bool = False,
) -> list[str]:
    rows = plan_outputs(
        target,
        sounds,
        seeds,
        preset="mini",
        window="loudest",
        grid=grid,
        overwrite=overwrite,
    )
    return [str(path) for row in rows for path in row]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("target", "sounds", "seeds", "names"),
    [
        (None, ["far/rain.wav"], [0], ["rain.png"]),
        (None, ["-"], [0], ["stdin.png"]),
        (None, ["a.wav", "b.mp3"], [0], ["a.png", "b.png"]),
        (None, ["a.wav"], [4, 5], ["a-4.png", "a-5.png"]),
        ("x.png", ["a.wav"], [0], ["x.png"]),
        ("x.JPG", ["a.wav"], [0], ["x.JPG"]),
        ("x.webp", ["a.wav"], [4, 5], ["x-4.webp", "x-5.webp"]),
        ("new/", ["a.wav"], [0], ["new/a.png"]),
        ("new/x.png", ["a.wav"], [0], ["new/x.png"]),
        ("here", ["a.wav", "b.wav"], [0], ["here/a.png", "here/b.png"]),
        ("{odd}", ["a.wav"], [0], ["{odd}/a.png"]),
        ("{stem}-{seed}.png", ["a.wav"], [3], ["a-3.png"]),
        ("{stem}/{seed:03}.png", ["a.wav", "b.wav"], [3], ["a/003.png", "b/003.png"]),
        ("{index}.png", ["a.wav", "b/a.wav"], [7, 8], ["1.png", "2.png", "3.png", "4.png"]),
        ("{preset}-{window}.png", ["a.wav"], [0], ["mini-loudest.png"]),
        ("{{a}}.png", ["a.wav"], [0], ["{a}.png"]),
    ],
)
def test_names(target: str | None, sounds: list[str], seeds: list[int], names: list[str]) -> None:
    Path("here").mkdir()
    Path("{odd}").mkdir()
    assert plan(target, sounds, seeds) == names


@pytest.mark.usefixtures("folder")
def test_a_contact_sheet_is_one_file() -> None:
    assert plan(None, ["a.wav"], [0, 1], grid=True) == ["a-grid.png"]
    assert plan(None, ["a.wav", "b.wav"], [0, 1], grid=True) == ["sounds.png"]
    assert plan("x.png", ["a.wav", "b.wav"], [0, 1], grid=True) == ["x.png"]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("target", "sounds", "seeds", "part"),
    [
        ("x.png", ["a.wav", "b.wav"], [0], "'a.wav' and 'b.wav'"),
        (None, ["a/rain.wav", "b/rain.mp3"], [0], "{index}"),
        (None, ["rain.wav", "rain.wav"], [0], "rain.png"),
        ("{stem}.png", ["a.wav"], [0, 1], "{seed}"),
        ("./{stem}.png", ["a.wav", "x/../a.wav"], [0], "a.png"),
        ("{name}.png", ["a.wav"], [0], "allowed: {stem}, {seed}, {index}, {preset}, {window}"),
        ("{}.png", ["a.wav"], [0], "Unknown field '{}'"),
        ("{stem.x}.png", ["a.wav"], [0], "Unknown field '{stem.x}'"),
        ("{stem.png", ["a.wav"], [0], "Malformed output"),
        ("{seed:q}.png", ["a.wav"], [0], "Malformed output"),
        ("x.bmp", ["a.wav"], [0], "allowed: .png, .jpg, .jpeg, .webp"),
        ("x", ["a.wav"], [0], "suffix"),
        ("", ["a.wav"], [0], "output is ''"),
    ],
)
def test_refused(target: str | None, sounds: list[str], seeds: list[int], part: str) -> None:
    with pytest.raises(OptionError) as caught:
        plan(target, sounds, seeds)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("folder")
def test_what_exists_is_kept() -> None:
    Path("a.png").touch()
    with pytest.raises(OutputError, match=r"^a\.png exists; use --force to replace\.$"):
        plan(None, ["a.wav"])
    with pytest.raises(OutputError, match=r"^a\.png \(and 1 more\) exists"):
        Path("b.png").symlink_to("nowhere")
        plan(None, ["a.wav", "b.wav"])
    assert plan(None, ["a.wav"], overwrite=True) == ["a.png"]


@pytest.mark.usefixtures("folder")
def test_a_folder_below_a_file_is_refused() -> None:
    Path("file").touch()
    with pytest.raises(OutputError, match="is not a folder"):
        plan("file/deep/er/x.png")
    assert plan("not/yet/x.png") == ["not/yet/x.png"]


@pytest.mark.usefixtures("folder")
def test_literal_stands_for_itself() -> None:
    assert plan(literal("{stem}.png")) == ["{stem}.png"]
