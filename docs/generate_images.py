"""Draw the README's pictures: run the commands printed above them (`make images`).

A picture `docs/images/NAME.jpg` of the README is made by the last command before it that writes
`NAME.png` (a .gif is copied as it is), in an empty folder with the examples. Only the gallery at
the top is put together here.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir
from itertools import pairwise
from pathlib import Path

from PIL import Image

from s2v_cli import Sound2Vision
from s2v_cli.__main__ import main as s2v
from s2v_cli.strip import film_strip

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs/images"
GALLERY = ("rain.wav", "sea.ogg", "fire.flac", "thunder.mp3", "airplane.ogg", "church_bells.ogg")
_STEP = re.compile(
    r"^```sh\n(?P<commands>.*?)^```|!\[[^\]]*\]\(docs/images/(?P<image>[\w-]+\.\w+)\)",
    re.MULTILINE | re.DOTALL,
)


def steps(readme: str) -> Iterator[tuple[list[list[str]], str]]:
    """Commands and pictures of a README in their order: commands, or the name of a picture."""
    for match in _STEP.finditer(readme):
        commands = (match["commands"] or "").replace("\\\n", " ").splitlines()
        words = [shlex.split(line, comments=True) for line in commands if "|" not in line]
        yield [line[1:] for line in words if line[:1] == ["s2v"]], match["image"] or ""


def writes(command: list[str], stem: str) -> bool:
    """Whether a command line writes a file with this stem."""
    for before, word in pairwise(command):
        if before in ("-o", "--output") and Path(word).stem == stem:
            return True
    return False


def draw_tour(readme: str) -> None:
    """Run each command that a picture belongs to and keep its file in docs/images."""
    ran: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        Path("examples").symlink_to(ROOT / "examples")
        for commands, image in steps(readme):
            ran += commands
            if not image or image == "gallery.jpg":
                continue
            stem = Path(image).stem
            command = next((line for line in reversed(ran) if writes(line, stem)), None)
            if command is None:
                raise SystemExit(f"No command of the README writes {stem}.")
            if s2v(command):
                raise SystemExit(f"Failed: s2v {shlex.join(command)}")
            keep(stem, IMAGES / image)


def keep(stem: str, target: Path) -> None:
    """Copy a drawn file to its place, a PNG as a JPEG."""
    (made,) = Path().glob(f"{stem}.*")
    if made.suffix == ".png":
        with Image.open(made) as picture:
            picture.convert("RGB").save(target, quality=90, optimize=True)
    else:
        shutil.copy(made, target)


def draw_gallery() -> None:
    """Two pictures of each of some sounds, one above the other."""
    model = Sound2Vision.load("mini", device="cpu")
    drawn = [model.generate(ROOT / "examples" / name, count=2) for name in GALLERY]
    rows = [images[row].resize((160, 160)) for row in (0, 1) for images in drawn]
    names = [Path(name).stem.replace("_", " ") for name in GALLERY]
    labels = [*([""] * len(names)), *names]
    film_strip(rows, labels, columns=len(names)).save(IMAGES / "gallery.jpg", quality=92)


if __name__ == "__main__":
    draw_gallery()
    draw_tour((ROOT / "README.md").read_text(encoding="utf-8"))
    print(*sorted(IMAGES.iterdir()), sep="\n", file=sys.stderr)
