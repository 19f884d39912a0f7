"""Width and height of an image from the first bytes of its file: PNG, JPEG, GIF, WebP and BMP. Nothing is decoded."""

from __future__ import annotations

from collections.abc import Callable
from struct import error as StructError
from struct import unpack_from

from ctxkit.errors import PartError

Size = tuple[int, int]

_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start of frame, without tables and extensions
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})  # no length follows


class ImageCutShort(PartError):
    """The bytes end before the image's size is named."""


def image_size(data: bytes) -> Size:
    """(width, height) in pixels, as stored: an EXIF rotation is not applied.

    Raises ImageCutShort where more bytes are needed, and PartError where this is no image of a known kind.

    >>> image_size(b"GIF89a" + bytes([64, 0, 48, 0]))
    (64, 48)
    """
    read = next((read for magic, read in _READERS if data.startswith(magic)), None)
    if read is None:
        raise PartError(
            f"the image data begins with {data[:12]!r}, which is none of PNG, JPEG, GIF, WebP and BMP; "
            f"convert the image to one of them"
        )
    try:
        width, height = read(data)
    except (StructError, IndexError):
        raise ImageCutShort(
            f"the image data ends after {len(data):,} bytes, before its size; send the whole file"
        ) from None
    if width < 1 or height < 1:
        raise PartError(f"the image header says {width} x {height} pixels; the file is damaged")
    return width, height


def _png(data: bytes) -> Size:
    if data[12:16] not in (b"IHDR", b"CgBI") and len(data) >= 16:
        raise PartError(f"the PNG data has {data[12:16]!r} where its header should be; the file is damaged")
    width, height = unpack_from(">II", data, 32 if data[12:16] == b"CgBI" else 16)
    return width, height


def _gif(data: bytes) -> Size:
    width, height = unpack_from("<HH", data, 6)
    return width, height


def _bmp(data: bytes) -> Size:
    (header_bytes,) = unpack_from("<I", data, 14)
    if header_bytes == 12:  # OS/2
        width, height = unpack_from("<HH", data, 18)
    else:
        width, height = unpack_from("<ii", data, 18)
    return width, abs(height)  # a negative height: rows from the top


def _jpeg(data: bytes) -> Size:
    """Walks over the segments to the first start of frame."""
    at = 2
    while True:
        if data[at] != 0xFF:
            raise PartError(f"the JPEG data has no marker at byte {at:,}; the file is damaged")
        while data[at] == 0xFF:  # fill bytes
            at += 1
        marker, at = data[at], at + 1
        if marker in _FRAME_MARKERS:
            height, width = unpack_from(">HH", data, at + 3)
            return width, height
        if marker in (0xD9, 0xDA):
            raise PartError("the JPEG data has no frame header before its pixels; the file is damaged")
        if marker not in _BARE_MARKERS:
            at += unpack_from(">H", data, at)[0]


def _webp(data: bytes) -> Size:
    if data[8:12] != b"WEBP" and len(data) >= 12:
        raise PartError(f"the RIFF data holds {data[8:12]!r}, not WebP; convert the image to PNG or JPEG")
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        wide, high = unpack_from("<I", data, 24)[0] & 0xFFFFFF, unpack_from("<I", data, 26)[0] >> 8
        return wide + 1, high + 1
    if len(kind) < 4:
        raise IndexError
    raise PartError(f"the WebP data begins with a {kind!r} chunk; the file is damaged")


_READERS: tuple[tuple[bytes, Callable[[bytes], Size]], ...] = (
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"\xff\xd8\xff", _jpeg),
    (b"GIF87a", _gif),
    (b"GIF89a", _gif),
    (b"RIFF", _webp),
    (b"BM", _bmp),
)
