"""`s2v train`: what it prints, and how it ends."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import soundfile
import torch

from tests.training.drawn_pairs import jpeg_of, sound_of, write_classes, write_pairs, write_rows

if TYPE_CHECKING:
    from conftest import RunHere

SHORT = ["--steps", "2", "--batch", "4", "--duration", "0.5", "--set", "samples=0"]
SHORT += ["--set", "workers=0", "--set", "close_gap=false"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datasets that nothing is written to but their caches."""
    root = tmp_path_factory.mktemp("train")
    write_pairs(root / "pairs", train=8, validation=2)
    write_pairs(root / "one", train=1, validation=0, shards=1)
    write_classes(root / "single", ["rain"])
    write_pairs(root / "held-out", train=0, validation=2)
    write_rows(root / "empty", [])
    (root / "nothing").mkdir()
    return root


def test_the_folder_is_the_result_and_a_preset(drawn: Path, s2v: RunHere, folder: Path) -> None:
    ran = s2v("train", drawn / "pairs", "--out", "mine", *SHORT)
    assert (ran.status, ran.out) == (0, "mine\n"), ran.err
    assert all(line.startswith("s2v: note: ") for line in ran.complaints)
    rain = Path(__file__).parents[1] / "examples/rain.wav"
    drew = s2v("gen", rain, "--preset", "./mine", "-o", "rain.png")
    assert drew.status == 0, drew.err
    again = s2v("train", drawn / "pairs", "--out", "mine", *SHORT, "--resume", "--quiet")
    assert (again.status, again.out, again.err) == (0, "mine\n", "")
    other = s2v("train", drawn / "pairs", "--out", "mine", *SHORT, "--seed", "1")
    assert other.status == 1
    assert "seed 0, not 1" in other.err and len(other.complaints) == 1


def test_raw_folders_are_prepared_first(s2v: RunHere, folder: Path) -> None:
    Path("raw").mkdir()
    for number in range(12):
        Path(f"raw/{number}.jpg").write_bytes(jpeg_of(number))
        soundfile.write(f"raw/{number}.wav", sound_of(number), 16_000)
    ran = s2v("train", "raw", "--out", "mine", *SHORT)
    assert ran.status == 0, ran.err
    assert Path("mine/data/manifest.jsonl").is_file()
    assert Path("mine/preset.toml").is_file()


@pytest.mark.parametrize(
    ("data", "words", "status", "told"),
    [
        ("empty", [], 1, "no pictures"),
        ("nothing", [], 1, "nothing"),
        ("nowhere", [], 1, "nowhere"),
        ("held-out", [], 1, "no training pairs"),
        ("one", [], 1, "one training pair only"),
        ("single", [], 1, "are of the class 'rain'"),
        ("pairs", ["--batch", "64"], 1, "batch is 64, but .* has 8 training pairs"),
        ("pairs", ["--batch", "1"], 2, "batch is 1; allowed: 2 or more"),
        ("pairs", ["--duration", "0"], 2, "duration_s is 0.0; allowed: "),
        ("pairs", ["--teacher", "mimi"], 2, "Unknown preset 'mimi'"),
        ("pairs", ["--loss", "raw-infonce"], 2, "is a space of unit vectors"),
        ("pairs", ["--loss", "l3"], 2, "l3"),
        ("pairs", ["--set", "eam=0.9"], 1, "Did you mean 'ema'"),
        ("pairs", ["--set", "ema"], 2, "KEY=VALUE"),
        ("pairs", ["--set", "precision=float16"], 2, "precision is 'float16'; on a CPU"),
        ("pairs", ["--recipe", "aling"], 1, "Unknown recipe 'aling'"),
        ("pairs", ["--resume"], 2, "has no checkpoint"),
        ("pairs", ["--resume", "--fresh"], 2, "one of them"),
        ("pairs", ["--processes", "0"], 2, "processes is 0"),
        ("pairs", ["--processes", "2", "--device", "cuda"], 2, "allowed with --processes: auto"),
        ("pairs", ["--threads", "0"], 2, "threads is 0"),
        ("pairs", ["--recipe", "mini", "--teacher", "mini"], 2, "teacher is 'mini', but is of"),
        ("pairs", ["--recipe", "gan", "--set", "ema=0"], 2, "'gan' holds all of its options"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(
    data: str, words: list[str], status: int, told: str, drawn: Path, s2v: RunHere, folder: Path
) -> None:
    short = [] if "--recipe" in words else SHORT
    ran = s2v("train", drawn / data, "--out", "mine", *short, *words)
    assert ran.status == status, ran.err
    errors = [line for line in ran.complaints if not line.startswith("s2v: note: ")]
    assert len(errors) == 1 and errors[0].startswith("s2v: error: ")
    assert re.search(told, errors[0]), errors[0]
    assert ran.out == ""
    assert not Path("mine/preset.toml").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpus_without_cuda_are_one_line(drawn: Path, s2v: RunHere) -> None:
    ran = s2v("train", drawn / "pairs", "--gpus", "2", *SHORT)
    assert ran.status == 2
    assert ran.complaints == [
        "s2v: error: gpus is 2, but torch finds no CUDA GPU here; leave --gpus out to train on "
        "the CPU, or install a torch with CUDA."
    ]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--processes", "2"), "processes is 2, but {} runs in one process"),
        (("--fresh",), "fresh is given, but {} keeps what it has done"),
    ],
)
@pytest.mark.parametrize(
    ("of", "name"),
    [(("--recipe", "mini"), "a recipe of stages"), (("--ablate", "ablation"), "an ablation")],
)
def test_what_only_alignment_has_is_refused(
    drawn: Path, s2v: RunHere, given: tuple[str, ...], told: str, of: tuple[str, ...], name: str
) -> None:
    ran = s2v("train", drawn / "pairs", *of, *given)
    assert ran.status == 2
    assert ran.complaints[0].startswith(f"s2v: error: {told.format(name)}")


@pytest.mark.slow
def test_two_processes_of_the_command(drawn: Path, s2v: RunHere) -> None:
    ran = s2v("train", drawn / "pairs", "--out", "mine", *SHORT, "--processes", "2")
    assert (ran.status, ran.out) == (0, "mine\n"), ran.err
    refused = s2v("train", drawn / "pairs", "--out", "odd", *SHORT, "--batch", "5",
                  "--processes", "2")  # fmt: skip
    assert refused.status != 0
