"""Pictures: tensor to image to file, contact sheets, and the record that makes one again."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import math
import os
import secrets
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from s2v_cli.errors import OutputError, PictureError
from s2v_cli.outputs import PICTURE_FORMATS

if TYPE_CHECKING:
    from torch import Tensor

GRID_GAP = 4  # pixels between the pictures of a contact sheet
GRID_COLOUR = (255, 255, 255)
RECORD_KEY = "s2v"
_EXIF_DESCRIPTION, _EXIF_IFD, _EXIF_COMMENT = 0x010E, 0x8769, 0x9286
_EXIF_ASCII = b"ASCII\0\0\0"  # character code that starts a UserComment (Exif 2.3, §4.6.5)
_EXIF_LIMIT = 65_000  # bytes; a JPEG segment holds 65,533 with the rest of the Exif block


def to_image(image: Tensor) -> Image.Image:
    """Turn an image tensor [3, H, W] in [-1, 1] into an RGB picture; values outside are clipped.

    Raises:
        PictureError: the tensor has another shape or holds NaN.
    """
    if image.ndim != 3 or image.shape[0] != 3:
        raise PictureError(f"An image tensor has shape {list(image.shape)}; allowed: [3, H, W].")
    pixels = image.detach().float().cpu()
    if pixels.isnan().any():
        raise PictureError("The image holds NaN: try --dtype float32.")
    # [3, H, W] -> [H, W, 3]; -1 is 0 and 1 is 255
    scaled = ((pixels + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous()
    return Image.fromarray(scaled.numpy())


def to_tensor(image: Image.Image) -> Tensor:
    """The centre square of an RGB picture as float32 [3, S, S] in [-1, 1]."""
    import numpy as np
    import torch

    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    pixels = np.asarray(image.crop((left, top, left + side, top + side)), dtype=np.float32)
    return torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1).contiguous()


def stretch_contrast(image: Tensor) -> Tensor:
    """Map an image's [3, H, W] own minimum to -1 and maximum to 1, over all channels at once.

    The published GAN code shows its pictures so. An image of a single value stays as it is.
    """
    low, high = image.amin(), image.amax()
    if not bool(high > low):
        return image
    return (image - low) / (high - low) * 2 - 1


def read_picture(
    path: str | os.PathLike[str], note: Callable[[str], None] | None = None
) -> Image.Image:
    """Read a picture as RGB, turned as its Exif orientation says, transparency on white.

    Of an animated picture the first frame is read. Sixteen bits a channel become eight.

    Args:
        path: the file.
        note: told, in one line, what a person should know, for example of an animated picture.

    Raises:
        PictureError: missing, not a picture, damaged or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own doubts, such as a size that it permits
            image, frames = _read_upright(path)
    except FileNotFoundError:
        raise PictureError(f"No picture at {str(path)!r}.") from None
    except UnidentifiedImageError:
        raise PictureError(f"{str(path)!r} is not a picture that s2v can read.") from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise PictureError(
            f"{str(path)!r} is too large; allowed: up to {limit} million pixels. Scale it down."
        ) from None
    except MemoryError:
        raise PictureError(f"{str(path)!r} is too large for the memory. Scale it down.") from None
    except Exception as error:  # a damaged file can raise anything in a decoder
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise PictureError(f"Cannot read the picture {str(path)!r}: {reason}.") from error
    if frames > 1 and note is not None:
        note(f"{path} holds {frames} pictures; the first is seen.")
    return image


def _read_upright(path: str | os.PathLike[str]) -> tuple[Image.Image, int]:
    """A picture as RGB, and how many the file holds."""
    with Image.open(path) as file:
        # The other pictures in a phone's MPO are views for depth: nothing to tell of.
        frames = 1 if file.format == "MPO" else int(getattr(file, "n_frames", 1))
        file.seek(0)
        image = ImageOps.exif_transpose(file)
        if image.mode[:1] in ("I", "F"):
            return _eight_bits(image).convert("RGB"), frames
        if image.has_transparency_data:
            layer = image.convert("RGBA")
            ground = Image.new("RGBA", layer.size, (255, 255, 255, 255))
            image = Image.alpha_composite(ground, layer)
        return image.convert("RGB"), frames


def _eight_bits(image: Image.Image) -> Image.Image:
    """A grey picture of 16 bits, integers or floats as one of 8 bits, which Pillow would clip.

    White is 65535 for 16 bits; for others the smallest of 1 (floats), 255 and 65535 that no
    pixel exceeds, or the brightest pixel.
    """
    import numpy as np

    pixels = np.nan_to_num(np.asarray(image, dtype=np.float64))
    brightest = float(pixels.max(initial=0))
    first = 2 if "16" in image.mode else 0 if image.mode == "F" else 1
    white = next((white for white in (1, 255, 65535)[first:] if brightest <= white), brightest)
    return Image.fromarray((pixels / white * 255).round().clip(0, 255).astype(np.uint8))


def resize(image: Image.Image, size: int) -> Image.Image:
    """Resample a square picture to `size` x `size` pixels (Lanczos)."""
    if image.size == (size, size):
        return image
    return image.resize((size, size), Image.Resampling.LANCZOS)


def make_grid(
    images: Sequence[Image.Image], columns: int | None = None, gap: int = GRID_GAP
) -> Image.Image:
    """Lay pictures out on one contact sheet, row by row; cells are as large as the largest.

    Args:
        images: at least one.
        columns: pictures a row; None makes the sheet about square.
        gap: pixels between pictures.
    """
    if not images:
        raise PictureError("A contact sheet needs at least one picture.")
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    width, height = max(i.width for i in images), max(i.height for i in images)
    sheet = Image.new(
        "RGB",
        (columns * (width + gap) - gap, rows * (height + gap) - gap),
        GRID_COLOUR,
    )
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        left = column * (width + gap) + (width - image.width) // 2
        top = row * (height + gap) + (height - image.height) // 2
        sheet.paste(image, (left, top))
    return sheet


def encode_picture(image: Image.Image, suffix: str, record: dict[str, Any] | None = None) -> bytes:
    """Encode a picture, with its record where one is given; equal input gives equal bytes.

    Args:
        image: the picture.
        suffix: `.png`, `.jpg`, `.jpeg` or `.webp`.
        record: all that makes the picture again, for JSON. A PNG holds it as the text chunk
            `s2v`, beside `parameters` (one line for people); others in Exif's UserComment,
            beside ImageDescription.

    Raises:
        OutputError: unknown suffix, or a record or picture too large for the format.
    """
    picture_format = PICTURE_FORMATS.get(suffix.lower())
    if picture_format is None:
        raise OutputError(
            f"Cannot write {suffix!r} pictures; allowed: {', '.join(PICTURE_FORMATS)}."
        )
    settings: dict[str, Any] = {"PNG": {}, "JPEG": {"quality": 95, "subsampling": 0}}.get(
        picture_format, {"quality": 95, "method": 4}
    )
    if record is not None:
        text, line = json.dumps(record, sort_keys=True), parameters_line(record)
        if picture_format == "PNG":
            info = PngInfo()
            info.add_text(RECORD_KEY, text)
            info.add_text("parameters", line)
            settings["pnginfo"] = info
        elif len(text) + len(line) > _EXIF_LIMIT:
            raise OutputError(
                f"The record ({len(text)} bytes) does not fit into a {suffix} file; "
                "write a .png, or use --no-metadata."
            )
        else:
            exif = Image.Exif()
            exif[_EXIF_DESCRIPTION] = line.encode("ascii", "replace").decode()
            exif.get_ifd(_EXIF_IFD)[_EXIF_COMMENT] = _EXIF_ASCII + text.encode("ascii")
            settings["exif"] = exif.tobytes()
    buffer = io.BytesIO()
    try:
        image.save(buffer, picture_format, **settings)
    except (OSError, ValueError) as error:
        raise OutputError(f"Cannot write a {suffix} picture: {error}") from error
    return buffer.getvalue()


def save_picture(
    image: Image.Image,
    path: str | os.PathLike[str],
    *,
    record: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a picture whole or not at all; its folder is made where it is missing.

    Raises:
        OutputError: the file exists and `overwrite` is False, the folder cannot be written, the
            disk is full, or the suffix is none of .png, .jpg, .jpeg, .webp.
    """
    target = Path(path)
    write_file(encode_picture(image, target.suffix, record), target, overwrite=overwrite)
    return target


def write_file(content: bytes, target: Path, *, overwrite: bool) -> None:
    """Write a file whole or not at all; see `whole_file`.

    Raises:
        OutputError: as in `save_picture`.
    """
    with whole_file(target, overwrite=overwrite) as temporary, _telling(target):
        temporary.write_bytes(content)


@contextlib.contextmanager
def whole_file(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """A file to write beside the target, which takes its name at the end, or goes after an error.

    Without `overwrite` the name is taken by a hard link, which fails where the file exists, so
    that of two writers one wins and the other is told.

    Raises:
        OutputError: as in `save_picture`.
    """
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(6)}.tmp")
    with _telling(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.open("xb").close()
    try:
        yield temporary
        with _telling(target):
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
            if overwrite:
                temporary.replace(target)
            else:
                _claim(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            temporary.unlink()


@contextlib.contextmanager
def _telling(target: Path) -> Iterator[None]:
    """Say in one line why a file cannot be written."""
    try:
        yield
    except FileExistsError as error:
        if target.parent.is_dir():
            raise OutputError(f"{target} exists; use --force to replace it.") from None
        raise OutputError(f"Cannot write {target}: {error.filename} is not a folder.") from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OutputError(f"Cannot write {target}: {reason}.") from error


def _claim(temporary: Path, target: Path) -> None:
    """Give a file its name unless the name is taken."""
    try:
        os.link(temporary, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            raise
        # No hard links here (FAT, some network file systems): reserve the name, then replace it.
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        try:
            temporary.replace(target)
        except BaseException:
            target.unlink()
            raise


def read_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the record that `save_picture` put into a picture, or `s2v animate` into a video.

    Raises:
        PictureError: no picture, or one without a record.
        DependencyError: a .mp4, and PyAV is missing.
    """
    try:
        record = json.loads(_record_text(path))
    except FileNotFoundError:
        raise PictureError(f"No picture at {str(path)!r}.") from None
    except UnidentifiedImageError:
        raise PictureError(f"{str(path)!r} is not a picture that s2v can read.") from None
    except (OSError, SyntaxError, ValueError, TypeError):
        record = None
    if not isinstance(record, dict):
        raise PictureError(f"{str(path)!r} holds no record of s2v.")
    return record


def _record_text(path: str | os.PathLike[str]) -> Any:
    if Path(path).suffix.lower() == ".mp4" and Path(path).is_file():
        from s2v_cli.video import read_comment

        return read_comment(Path(path))
    with Image.open(path) as file:
        if file.format == "GIF":
            return file.info.get("comment")
        text = file.info.get(RECORD_KEY)
        if text is None:
            comment = file.getexif().get_ifd(_EXIF_IFD).get(_EXIF_COMMENT, b"")
            text = comment.removeprefix(_EXIF_ASCII) if isinstance(comment, bytes) else comment
        return text


def compare_pictures(first: Path, second: Path) -> tuple[float, int]:
    """How far two picture files differ: share of pixels, and the largest difference of a channel.

    Returns:
        0 to 1, and 0 to 255; 1 and 255 where the sizes differ.

    Raises:
        PictureError: a file is not a picture.
    """
    import numpy as np

    one, other = read_picture(first), read_picture(second)
    if one.size != other.size:
        return 1.0, 255
    distance = np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).max(axis=2)
    return float((distance > 0).mean()), int(distance.max())


def parameters_line(record: dict[str, Any]) -> str:
    """One line for people and for programs that show a picture's `parameters`."""
    options = {**record.get("sound_options", {}), **record.get("generate_options", {})}
    width, height = record.get("size", (0, 0))
    gains = record.get("gains_db") or [options.get("gain_db", 0)]
    photos = "; ".join(str(picture.get("source")) for picture in record.get("pictures", []))
    fields = {
        "Sound": "; ".join(str(sound.get("source")) for sound in record.get("sounds", [])),
        "Photo": photos or None,
        "Seed": record.get("seed"),
        "Size": f"{width}x{height}",
        "Model": record.get("preset"),
        "Gain": " to ".join(f"{gain:g}" for gain in dict.fromkeys((gains[0], gains[-1]))) + " dB",
        "Truncation": options.get("truncation"),
        "Best of": options.get("best_of"),
        "Version": f"s2v {record.get('versions', {}).get('s2v')}",
    }
    line = ", ".join(f"{key}: {value}" for key, value in fields.items() if value is not None)
    return line.encode("utf-8", "replace").decode()
