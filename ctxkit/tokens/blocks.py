"""Content blocks that are not text: which are media, which are the provider's own, and what can be read from them.

Media (images, files, sound) are priced by a `MediaRule`. Everything else is opaque: it goes back to the provider as it
came, and is charged by its text. What is encrypted or signed is charged nothing, because nobody but the provider knows
its tokens: Anthropic's `redacted_thinking`, the `signature` of `thinking`, and OpenAI's `encrypted_content`. (Anthropic
leaves the thinking of earlier turns out of the prompt; charged in full, it is counted too high there, never too low.)
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ctxkit.errors import PartError
from ctxkit.tokens.image_size import ImageCutShort, Size, image_size

Block = Mapping[str, Any]

IMAGE_TYPES = frozenset({"image_url", "image", "input_image"})
FILE_TYPES = frozenset({"file", "input_file", "document"})
MEDIA_TYPES = IMAGE_TYPES | FILE_TYPES | {"input_audio", "audio", "audio_url", "video", "video_url"}

_DATA_URL = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)
_HEADER_BASE64_CHARS = 65_536
_SEALED = frozenset({"signature", "encrypted_content", "data"})
_THINKING_TEXT = ("thinking", "text", "summary", "content", "reasoning")


def block_type(block: Block) -> str:
    return str(block.get("type", "?"))


def is_media(block: Block) -> bool:
    return block_type(block) in MEDIA_TYPES


def opaque_text(block: Block) -> str:
    """What an opaque block is charged for: the text of thinking, else everything in it but what is sealed, as JSON."""
    kind = block_type(block)
    if kind == "redacted_thinking":
        return ""
    if kind in ("thinking", "reasoning"):
        return "".join(_strings([block[key] for key in _THINKING_TEXT if key in block]))
    return json.dumps({key: value for key, value in block.items() if key not in _SEALED}, ensure_ascii=False)


def _strings(value: Any) -> Iterator[str]:
    """The text in a str, a list of text blocks, or a block."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _strings([value[key] for key in _THINKING_TEXT if key in value])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def size_of(block: Block) -> Size | None:
    """(width, height) of an image block whose data is in it; None where it only names a place on the net or a file.

    Raises PartError where the data is no image.
    """
    encoded = _encoded_image(block)
    if encoded is None:
        return None
    try:
        return image_size(_decoded(encoded[:_HEADER_BASE64_CHARS]))
    except ImageCutShort:  # a long profile or preview stands before the size
        return image_size(_decoded(encoded))


def detail_of(block: Block) -> str:
    """ "low", "high" or "auto"."""
    image = block.get("image_url")
    detail = image.get("detail") if isinstance(image, Mapping) else block.get("detail")
    return str(detail or "auto")


def _encoded_image(block: Block) -> str | None:
    """The base64 text of an image: in a data URL (OpenAI) or a source (Anthropic)."""
    source = block.get("source")
    if isinstance(source, Mapping) and source.get("type") == "base64":
        return str(source.get("data", ""))
    image = block.get("image_url", block.get("image"))
    url = image.get("url") if isinstance(image, Mapping) else image
    match = _DATA_URL.match(url) if isinstance(url, str) else None
    return str(url)[match.end() :] if match else None


def _decoded(encoded: str) -> bytes:
    text = encoded[: len(encoded) // 4 * 4] if len(encoded) == _HEADER_BASE64_CHARS else encoded
    try:
        return base64.b64decode("".join(text.split()) + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise PartError(f"the data URL of an image is not base64: {error}") from None
