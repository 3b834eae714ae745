"""Framing of sound files: does a file hold all that its own headers promise?

Decoders read a file that was cut short without a word, as a shorter sound. So the headers are
walked first: wav and aiff chunks, mp3 frames, ogg pages, mp4 boxes. (flac is checked by its
decoder, which reads the last sample.) Only headers are read, in constant memory.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

_STREAMED = 0x7FFF0000  # a data size from here on is a writer's "until the end", if it is too large
_RESYNC = 1 << 16  # bytes searched for the next mp3 frame
_BIT_RATES = {  # kbit/s by (MPEG 1?, layer) and bit rate index 1 to 14; ISO 11172-3, 13818-3
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_SAMPLE_RATES = (44100, 48000, 32000)  # MPEG 1; MPEG 2 has half, MPEG 2.5 a quarter


@dataclass(frozen=True)
class Mp3Frames:
    """What a walk over the frames of an mp3 found.

    Attributes:
        start: byte of the first frame that holds sound.
        header: the four bytes of that frame's header.
        count: frames that hold sound.
        announced: whether a decoder can tell the count: a Xing, Info or VBRI frame in front
            says it, or the layer is 1 or 2, whose bit rate does not change.
    """

    start: int
    header: bytes
    count: int
    announced: bool


class CutShort(Exception):
    """A file ends before its headers say; the message tells how that shows."""


def check_framing(file: BinaryIO) -> Mp3Frames | None:
    """Walk the headers of a sound file.

    Args:
        file: seekable; wherever it stands.

    Returns:
        What was found, if the file is an mp3.

    Raises:
        CutShort: the file ends before its headers say.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(12)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:] == b"WAVE":
        _check_chunks(file, size, "<" if head[:4] != b"RIFX" else ">", b"data")
    elif head[:4] == b"FORM" and head[8:] in (b"AIFF", b"AIFC"):
        _check_chunks(file, size, ">", b"SSND")
    elif head[:4] == b"OggS":
        _check_pages(file, size)
    elif head[4:8] == b"ftyp":
        _check_boxes(file, size)
    elif head[:3] == b"ID3" or _frame_length(head[:4]):
        return _walk_mp3(file, size)
    return None


def _check_chunks(file: BinaryIO, size: int, order: str, data: bytes) -> None:
    position, long_size = 12, None
    while position + 8 <= size:
        file.seek(position)
        name, length = struct.unpack(f"{order}4sI", file.read(8))
        if name == b"ds64":  # RF64 keeps the sizes that 32 bits do not hold here
            sizes = file.read(24)
            long_size = struct.unpack("<QQQ", sizes)[1] if len(sizes) == 24 else None
        if name == data and length == 0xFFFFFFFF and long_size is not None:
            length = long_size
        missing = position + 8 + length - size
        if name != data and not name.replace(b" ", b"").isalnum():
            return  # not a chunk: left to the decoder
        if missing > 0 and not (name == data and _STREAMED <= length <= 0xFFFFFFFF):
            raise CutShort(f"{missing} of {length} bytes are missing after byte {size}")
        if name == data:
            return
        position += 8 + length + length % 2
    if position >= size:
        raise CutShort("its header ends before the sound")


def _check_pages(file: BinaryIO, size: int) -> None:
    position = 0
    while position < size:
        file.seek(position)
        head = file.read(27)
        if head[:4] != b"OggS"[: len(head)]:
            return  # not a page: left to the decoder
        table = file.read(head[26]) if len(head) == 27 else b""
        position += 27 + len(table) + sum(table)
        if len(head) < 27 or len(table) < head[26] or position > size:
            raise CutShort("its last page is not whole")


def _check_boxes(file: BinaryIO, size: int) -> None:
    position = 0
    while position + 8 <= size:
        file.seek(position)
        length, name = struct.unpack(">I4s", file.read(8))
        if length == 1:  # a 64-bit length follows
            (length,) = struct.unpack(">Q", file.read(8).rjust(8, b"\0"))
        if length == 0:  # until the end of the file
            return
        if length < 8 or not name.isascii():
            return  # not a box: left to the decoder
        position += length
        if position > size:
            raise CutShort(f"{position - size} of {length} bytes are missing after byte {size}")


def _walk_mp3(file: BinaryIO, size: int) -> Mp3Frames | None:
    start, end = _skip_id3(file, size), _tags_begin(file, size)
    file.seek(start)
    if file.read(4) == b"fLaC":
        return None
    first, header, count, announced = 0, b"", 0, None
    for position, frame_header, length in _frames(file, start, end):
        if not header:
            if announced is None:
                file.seek(position)
                announced = _announced_frames(file.read(min(length, 200)))
                if announced is not None:
                    continue
            first, header = position, frame_header
        if position + length > end:
            raise CutShort("its last frame is not whole")
        count += 1
    if announced and count < announced:
        raise CutShort(f"{count} frames are there, its header says {announced}")
    if not header:
        return None
    return Mp3Frames(first, header, count, bool(announced) or header[1] >> 1 & 3 != 1)


def _skip_id3(file: BinaryIO, size: int) -> int:
    position = 0
    while True:
        file.seek(position)
        head = file.read(10)
        if head[:3] != b"ID3" or len(head) < 10:
            return position
        length = sum(
            (byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True)
        )
        position += 10 + length + (10 if head[5] & 0x10 else 0)
        if position >= size:
            raise CutShort("it ends inside its tags")


def _tags_begin(file: BinaryIO, size: int) -> int:
    """Where the tags at the end of an mp3 begin: ID3v1, then APEv2 before it."""
    end = size
    file.seek(max(0, end - 128))
    if file.read(3) == b"TAG":
        end -= 128
    file.seek(max(0, end - 32))
    footer = file.read(32)
    if footer[:8] == b"APETAGEX":
        length, _, flags = struct.unpack("<III", footer[12:24])
        end -= length + (32 if flags & 1 << 31 else 0)
    return max(0, end)


def _frames(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, bytes, int]]:
    """Position, header and length of each frame; the last one may reach beyond the end."""
    position, kind = start, None
    while position + 4 <= end:
        file.seek(position)
        header = file.read(4)
        length = _frame_length(header)
        if not length or (kind is not None and _kind(header) != kind):
            position = _next_frame(file, position + 1, end, kind)
            if position < 0:
                return
            continue
        kind = _kind(header)
        yield position, header, length
        position += length


def _next_frame(file: BinaryIO, start: int, end: int, kind: bytes | None) -> int:
    """The first frame from start on that another one follows; -1 where there is none near."""
    file.seek(start)
    window = file.read(max(0, min(_RESYNC, end - start)))
    offset = window.find(b"\xff")
    while offset >= 0:
        header = window[offset : offset + 4]
        length = _frame_length(header)
        if length and (kind is None or _kind(header) == kind):
            following = window[offset + length : offset + length + 4]
            if _frame_length(following) and _kind(following) == _kind(header):
                return start + offset
        offset = window.find(b"\xff", offset + 1)
    return -1


def _kind(header: bytes) -> bytes:
    """What all frames of a file share: version, layer and sample rate."""
    return bytes((header[1] & 0xFE, header[2] & 0x0C))


def _frame_length(header: bytes) -> int:
    """Bytes of an MPEG audio frame by its header; 0 for what is not one (or of free format)."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bit_rate, sample_rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 4 or bit_rate in (0, 15) or sample_rate == 3:
        return 0
    bits = 1000 * _BIT_RATES[version == 3, layer][bit_rate - 1]
    rate = _SAMPLE_RATES[sample_rate] >> {3: 0, 2: 1, 0: 2}[version]
    if layer == 1:
        return (12 * bits // rate + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bits // rate + padding


def _side_information(header: bytes) -> int:
    """Bytes between a layer 3 header and its Xing tag."""
    mono = header[3] >> 6 == 3
    if header[1] >> 3 & 3 == 3:
        return 17 if mono else 32
    return 9 if mono else 17


def _announced_frames(frame: bytes) -> int | None:
    """The number of frames in a Xing, Info or VBRI tag: 0 if it does not say, None without one."""
    tag = 4 + _side_information(frame)
    if frame[tag : tag + 4] in (b"Xing", b"Info"):
        flags, frames = struct.unpack(">II", frame[tag + 4 : tag + 12].ljust(8, b"\0"))
        return int(frames) if flags & 1 else 0
    if frame[36:40] == b"VBRI":
        return int.from_bytes(frame[50:54], "big")
    return None


def announce(file: BinaryIO, frames: Mp3Frames) -> io.RawIOBase:
    """An mp3 with a Xing frame in front that tells its number of frames.

    Without one libsndfile guesses the length from the bit rate of the first frame and stops
    there, which loses most of some files of variable bit rate.
    """
    version_1 = frames.header[1] >> 3 & 3 == 3
    bit_rate = (5 if version_1 else 8) << 4  # 64 kbit/s: at least 192 bytes, enough for the tag
    header = bytes(
        (
            0xFF,
            frames.header[1] | 1,  # no checksum
            bit_rate | frames.header[2] & 0x0C,
            frames.header[3],
        )
    )
    tag = struct.pack(">4sII", b"Xing", 1, frames.count)
    frame = header + bytes(_side_information(header)) + tag
    return _Prefixed(frame.ljust(_frame_length(header), b"\0"), file, frames.start)


def state_length(file: BinaryIO, samples: int) -> io.RawIOBase:
    """A flac file whose STREAMINFO tells its length; encoders that write to a pipe leave it 0."""
    file.seek(0)
    head = bytearray(file.read(26))  # "fLaC", block header, STREAMINFO up to its 36-bit length
    head[21] = head[21] & 0xF0 | samples >> 32 & 0x0F
    head[22:26] = struct.pack(">I", samples & 0xFFFFFFFF)
    return _Prefixed(bytes(head), file, len(head))


class _Prefixed(io.RawIOBase):
    """A file read as if other bytes stood in place of its first `skip` ones."""

    def __init__(self, prefix: bytes, file: BinaryIO, skip: int) -> None:
        self._prefix, self._file, self._skip = prefix, file, skip
        self._position = 0
        self._size = len(prefix) + file.seek(0, os.SEEK_END) - skip

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = len(buffer)
        part = self._prefix[self._position : self._position + wanted]
        if len(part) < wanted:
            self._file.seek(self._skip + self._position + len(part) - len(self._prefix))
            part += self._file.read(wanted - len(part))
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)

    def close(self) -> None:
        self._file.close()
        super().close()
