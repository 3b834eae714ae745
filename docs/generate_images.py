"""Draw the README's pictures with the bundled model: `python docs/generate_images.py`."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from s2v_cli import Sound2Vision

ROOT = Path(__file__).parents[1]
SOUNDS = ("rain.wav", "sea.ogg", "fire.flac", "thunder.mp3", "airplane.ogg", "church_bells.ogg")
SHEET_COUNT = 6  # pictures a sound on the sheet
CELL, GAP, LABEL = 160, 6, 22  # px


def labelled_rows(rows: list[tuple[str, list[Image.Image]]], across: bool) -> Image.Image:
    """Pictures with the names of their sounds: one column a sound if `across`, else one row."""
    if across:
        columns, lines = len(rows), max(len(images) for _, images in rows)
        size = (columns * (CELL + GAP) - GAP, LABEL + lines * (CELL + GAP) - GAP)
    else:
        columns, lines = max(len(images) for _, images in rows), len(rows)
        size = (110 + columns * (CELL + GAP) - GAP, lines * (CELL + GAP) - GAP)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for i, (name, images) in enumerate(rows):
        where = (i * (CELL + GAP) + 2, 2) if across else (4, i * (CELL + GAP) + CELL // 2 - 8)
        draw.text(where, name, "black", font)
        for j, image in enumerate(images):
            x, y = (i, j) if across else (j, i)
            left = x * (CELL + GAP) + (0 if across else 110)
            top = y * (CELL + GAP) + (LABEL if across else 0)
            sheet.paste(image.resize((CELL, CELL), Image.Resampling.LANCZOS), (left, top))
    return sheet


def main() -> None:
    """Write docs/images/gallery.jpg and docs/images/sheet.jpg."""
    model = Sound2Vision.load("mini", device="cpu")
    folder = ROOT / "docs/images"
    folder.mkdir(exist_ok=True)
    rows = []
    for path in sorted((ROOT / "examples").iterdir()):
        if path.suffix in {".wav", ".flac", ".ogg", ".mp3"}:
            rows.append((path.name, model.generate(path, count=SHEET_COUNT)))
    labelled_rows([(name.split(".")[0], images) for name, images in rows], across=False).save(
        folder / "sheet.jpg", quality=92
    )
    gallery = [(name, images[:2]) for name, images in rows if name in SOUNDS]
    labelled_rows(gallery, across=True).save(folder / "gallery.jpg", quality=92)


if __name__ == "__main__":
    main()
