"""What images, files and sound cost: one small rule per published way of counting.

A size is read from the data in the block. Where the block only holds an address, nothing is fetched: it is charged the
most that the rule can ever charge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, floor, sqrt
from typing import Any, Protocol

from ctxkit.errors import PartError
from ctxkit.protocols import TEMPLATE, PromptMessage, Rendering
from ctxkit.tokens.blocks import (
    FILE_TYPES,
    IMAGE_TYPES,
    Block,
    block_type,
    detail_of,
    is_media,
    opaque_text,
    size_of,
)
from ctxkit.tokens.image_size import Size


class MediaRule(Protocol):
    """Prices one content block of OpenAI's form (`image_url`, `file`, `input_audio`)."""

    def tokens(self, block: Mapping[str, Any]) -> int:
        """Tokens of the block, at most. Raises PartError for a block that the rule cannot price."""
        ...


@dataclass(frozen=True)
class _ImageRule:
    """What the image rules share: a size where it can be read, else the maximum."""

    def tokens(self, block: Mapping[str, Any]) -> int:
        """Tokens of the image, at most. Raises PartError for another block, or data that is no image."""
        if block_type(block) not in IMAGE_TYPES:
            raise PartError(
                f"{type(self).__name__} prices images, not a content block of type {block_type(block)!r}; "
                f"combine rules: MediaRules(images=..., files=..., others=...)"
            )
        size = size_of(block)
        return self._most() if size is None else self._of_size(size)

    def _most(self) -> int:
        raise NotImplementedError

    def _of_size(self, size: Size) -> int:
        raise NotImplementedError


@dataclass(frozen=True)
class OpenAITiles(_ImageRule):
    """OpenAI's rule by tiles of 512 pixels.

    The image is fitted into 2,048 x 2,048, then its shorter side is brought to 768 pixels (never enlarged); each tile
    that it needs costs `per_tile`, and the image `base`. With `detail: low` it costs `base` alone.

    base, per_tile: 85, 170 for gpt-4o, gpt-4.1 and gpt-4.5 (default); 75, 150 for o1, o1-pro and o3; 70, 140 for gpt-5;
        2_833, 5_667 for gpt-4o-mini; 65, 129 for computer-use-preview.

    Source: https://platform.openai.com/docs/guides/images-vision#calculating-costs
    """

    base: int = 85
    per_tile: int = 170

    def tokens(self, block: Mapping[str, Any]) -> int:
        """As published; an image with `detail: low` is not looked into."""
        low = block_type(block) in IMAGE_TYPES and detail_of(block) == "low"
        return self.base if low else super().tokens(block)

    def _most(self) -> int:
        return self.base + self.per_tile * 4 * 2  # 2,048 x 768

    def _of_size(self, size: Size) -> int:
        scale = min(Fraction(1), Fraction(2_048, max(size)))
        scale = min(scale, Fraction(768, min(size)))
        across, down = (max(ceil(side * scale / 512), 1) for side in size)
        return self.base + self.per_tile * across * down


@dataclass(frozen=True)
class OpenAIPatches(_ImageRule):
    """OpenAI's rule by patches of 32 pixels, at most 1,536 of them, times a factor for the model.

    multiplier: 1.62 for gpt-4.1-mini and gpt-5-mini (default), 2.46 for gpt-4.1-nano and gpt-5-nano, 1.72 for o4-mini.

    Where an image must shrink, the published steps are followed; the bill has been seen to be the whole cap instead.
    `strict_bound=True` charges the cap there.

    Source: https://platform.openai.com/docs/guides/images-vision#calculating-costs
    """

    multiplier: float = 1.62
    max_patches: int = 1_536
    patch_pixels: int = 32
    strict_bound: bool = False

    def _most(self) -> int:
        return self._priced(self.max_patches)

    def _of_size(self, size: Size) -> int:
        patches = self._patches(size)
        if patches <= self.max_patches:
            return self._priced(patches)
        return self._most() if self.strict_bound else self._priced(self._patches(self._shrunk(size)))

    def _shrunk(self, size: Size) -> tuple[float, float]:
        """Scaled to the cap, then until one side is whole patches."""
        width, height = size
        scale = sqrt(self.patch_pixels**2 * self.max_patches / (width * height))
        across, down = width * scale / self.patch_pixels, height * scale / self.patch_pixels
        scale *= min(max(floor(across), 1) / across, max(floor(down), 1) / down)
        return width * scale, height * scale

    def _patches(self, size: tuple[float, float]) -> int:
        across, down = (max(ceil(round(side / self.patch_pixels, 6)), 1) for side in size)
        return across * down

    def _priced(self, patches: int) -> int:
        return ceil(round(min(patches, self.max_patches) * self.multiplier, 6))


@dataclass(frozen=True)
class AnthropicImages(_ImageRule):
    """Anthropic's rule by area: width x height / 750, after scaling the longest edge to 1,568 pixels.

    An image of more than about 1,600 tokens is scaled down further, so `max_tokens` is the most that one costs.
    For models that read larger images (Claude Opus 4.7 and later): longest_edge=2_576, max_tokens=4_800.

    Source: https://docs.anthropic.com/en/docs/build-with-claude/vision#calculate-image-costs (until 2026; since then
    the page counts patches, see AnthropicPatches)
    """

    longest_edge: int = 1_568
    pixels_per_token: int = 750
    max_tokens: int = 1_600

    def _most(self) -> int:
        return min(self.max_tokens, ceil(self.longest_edge**2 / self.pixels_per_token))

    def _of_size(self, size: Size) -> int:
        scale = min(Fraction(1), Fraction(self.longest_edge, max(size)))
        return min(self.max_tokens, ceil(size[0] * size[1] * scale**2 / self.pixels_per_token))


@dataclass(frozen=True)
class AnthropicPatches(_ImageRule):
    """Anthropic's rule of 2026: one token per patch of 28 x 28 pixels, after scaling the longest edge.

    longest_edge, max_tokens: 1_568, 1_600 (default); 2_576, 4_784 for Claude Opus 4.7 and later. What would cost more
        is scaled down by the provider; it is charged `max_tokens`.

    Source: https://platform.claude.com/docs/en/build-with-claude/vision
    """

    longest_edge: int = 1_568
    max_tokens: int = 1_600
    patch_pixels: int = 28

    def _most(self) -> int:
        return self.max_tokens

    def _of_size(self, size: Size) -> int:
        scale = min(Fraction(1), Fraction(self.longest_edge, max(size)))
        across, down = (ceil(side * scale / self.patch_pixels) for side in size)
        return min(self.max_tokens, across * down)


@dataclass(frozen=True)
class QwenVL(_ImageRule):
    """Qwen2-VL and Qwen2.5-VL: one token per 28 x 28 pixels of the image as their processor resizes it.

    Both sides become multiples of 28; the area is brought between `min_pixels` and `max_pixels` (they are in the
    model's preprocessor_config.json). Two more tokens stand around each image. For Qwen3-VL: patch_pixels=32.

    Source: `smart_resize` in the models' own processor; Qwen2-VL, arXiv:2409.12191, section 2.1
    """

    patch_pixels: int = 28
    min_pixels: int = 4 * 28 * 28
    max_pixels: int = 16_384 * 28 * 28
    wrapper_tokens: int = 2

    def _most(self) -> int:
        return self.max_pixels // self.patch_pixels**2 + self.wrapper_tokens

    def _of_size(self, size: Size) -> int:
        if max(size) > 200 * min(size):
            raise PartError(
                f"the image is {size[0]} x {size[1]} pixels; Qwen-VL refuses sides of more than 200 to 1, crop it"
            )
        width, height = self._resized(size)
        return width * height // self.patch_pixels**2 + self.wrapper_tokens

    def _resized(self, size: Size) -> Size:
        patch, area = self.patch_pixels, size[0] * size[1]
        sides = [round(side / patch) * patch for side in size]
        if sides[0] * sides[1] > self.max_pixels:
            shrink = sqrt(area / self.max_pixels)
            sides = [max(patch, floor(side / shrink / patch) * patch) for side in size]
        elif sides[0] * sides[1] < self.min_pixels:
            enlarge = sqrt(self.min_pixels / area)
            sides = [ceil(side * enlarge / patch) * patch for side in size]
        return sides[0], sides[1]


@dataclass(frozen=True)
class FixedCost:
    """The same number of tokens for every block: local models that resize each image to one size (LLaVA 1.5: 576)."""

    tokens_each: int

    def tokens(self, block: Mapping[str, Any]) -> int:
        """`tokens_each`, whatever the block is."""
        return self.tokens_each


@dataclass(frozen=True)
class FilePages:
    """Files by the page: pages x tokens_per_page.

    tokens_per_page: text and picture of a page together. Anthropic names 1,500 to 3,000 for the text of a PDF page, and
        each page costs an image besides (https://docs.anthropic.com/en/docs/build-with-claude/pdf-support).
    pages: pages of each file, by its `file_id` or `filename`. A block may say it itself in metadata:
        {"type": "file", "file": {...}, "metadata": {"pages": 12}}.
    """

    tokens_per_page: int
    pages: Mapping[str, int] = field(default_factory=dict)

    def tokens(self, block: Mapping[str, Any]) -> int:
        """Raises PartError where nobody says how many pages the file has."""
        if block_type(block) not in FILE_TYPES:
            raise PartError(f"FilePages prices files, not a content block of type {block_type(block)!r}")
        metadata, names = block.get("metadata"), self._names(block)
        said = metadata.get("pages") if isinstance(metadata, Mapping) else None
        pages = next((self.pages[name] for name in names if name in self.pages), said)
        if not isinstance(pages, int) or pages < 0:
            raise PartError(
                f"nobody says how many pages the file {next(iter(names), '(no name)')!r} has; "
                f"pass FilePages(..., pages={{name: pages}}) or put {{'metadata': {{'pages': n}}}} into the block"
            )
        return pages * self.tokens_per_page

    @staticmethod
    def _names(block: Block) -> list[str]:
        file = block.get("file")
        source = file if isinstance(file, Mapping) else block
        return [str(source[key]) for key in ("file_id", "filename", "title") if source.get(key)]


@dataclass(frozen=True)
class MediaRules:
    """One rule for images, one for files and one for all the rest (sound, video). None: such blocks are refused."""

    images: MediaRule | None = None
    files: MediaRule | None = None
    others: MediaRule | None = None

    def tokens(self, block: Mapping[str, Any]) -> int:
        """By the rule for the block's type. Raises PartError where there is none."""
        kind = block_type(block)
        which = "images" if kind in IMAGE_TYPES else "files" if kind in FILE_TYPES else "others"
        rule: MediaRule | None = getattr(self, which)
        if rule is None:
            raise PartError(f"no rule prices a content block of type {kind!r}; pass MediaRules({which}=...)")
        return rule.tokens(block)


def with_blocks(
    rendering: Rendering, messages: Iterable[PromptMessage], media: MediaRule | None, count: Callable[[str], int]
) -> Rendering:
    """`rendering` of the text, and what the other blocks cost, charged to the parts that they belong to. It has no ids.

    Raises PartError for media without a rule.
    """
    blocks = [(one.owner, one.block) for message in messages for one in message.segments if one.block is not None]
    if not blocks:
        return rendering
    by_owner = dict(rendering.by_owner)
    for owner, block in blocks:
        by_owner[owner or TEMPLATE] = by_owner.get(owner or TEMPLATE, 0) + block_tokens(block, media, count)
    return Rendering(tokens=sum(by_owner.values()), ids=None, by_owner=by_owner)


def block_tokens(block: Block, media: MediaRule | None, count: Callable[[str], int]) -> int:
    """Tokens of one block: by the rule where it is media, else by its text. Raises PartError."""
    if not is_media(block):
        return count(opaque_text(block))
    if media is None:
        raise PartError(
            f"a content block of type {block_type(block)!r} is not text, and this counter does not know what it costs; "
            f"pass `media=` to the counter (such as ctxkit.tokens.OpenAITiles()), or drop the block"
        )
    return media.tokens(block)
