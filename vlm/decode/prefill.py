"""Reading prompts: token ids and image embeddings become the key-value cache they start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..text.chat_prompt import Prompt
from ..vision.embedding_cache import ImageEmbedding
from .language_model import LanguageModel


@dataclass(eq=False)
class Prefilled:
    """Sequences that have been read, ready to be continued.

    Attributes:
        cache: keys and values; None after `release`.
        logits: `[batch, vocabulary]` float32, for the next token of each.
        next_positions: `[batch]` int64, its position for rotary embedding.
        lengths: `[batch]` int64, tokens of each prompt.
        mask: `[batch, tokens]` int64, 0 where there is padding; None if there is none.
        computed: tokens that went through the model, without padding; the others came with the
            start that was given.
    """

    cache: Any
    logits: torch.Tensor
    next_positions: torch.Tensor
    lengths: torch.Tensor
    mask: torch.Tensor | None
    computed: int

    def release(self) -> None:
        """Give the memory of keys and values back, also while an error's traceback holds this."""
        self.cache = None


@dataclass(frozen=True, eq=False)
class _Row:
    embeddings: torch.Tensor
    positions: torch.Tensor
    visual: torch.Tensor
    deepstack: tuple[torch.Tensor, ...]
    next_position: int


@torch.no_grad()
def prefill(
    language: LanguageModel,
    prompts: Sequence[Prompt],
    embeddings: Sequence[Sequence[ImageEmbedding]],
    start: Any = None,
) -> Prefilled:
    """Read prompts, padded on the left to one length.

    Args:
        embeddings: of the images and videos of each prompt, in order.
        start: a cache that holds the beginning of the only prompt. It is continued in place.

    Raises:
        ValueError: an embedding does not fit its grid or the model, or a start for several
            prompts.
    """
    if start is not None and len(prompts) != 1:
        raise ValueError("only a single prompt can be continued")
    skipped = int(start.get_seq_length()) if start is not None else 0
    rows = [
        _row(language, prompt, images, skipped)
        for prompt, images in zip(prompts, embeddings, strict=True)
    ]
    device = language.device
    longest = max(len(row.embeddings) for row in rows)
    missing = [longest - len(row.embeddings) for row in rows]
    visual = torch.stack([_padded(row.visual, gap) for row, gap in zip(rows, missing, strict=True)])
    mask = None
    if any(missing):
        mask = (torch.arange(longest) >= torch.tensor(missing)[:, None]).long().to(device)
    offsets = torch.arange(skipped, skipped + longest) - torch.tensor(missing)[:, None]
    cache = start if start is not None else language.new_cache()
    logits = language.forward(
        torch.stack([_padded(row.embeddings, gap) for row, gap in zip(rows, missing, strict=True)]),
        torch.stack(
            [_padded(row.positions.T, gap).T for row, gap in zip(rows, missing, strict=True)], dim=1
        ).to(device),
        offsets.clamp(min=0).to(device),
        mask,
        cache,
        visual.to(device),
        _deepstack(rows),
    )
    return Prefilled(
        cache,
        logits,
        torch.tensor([row.next_position for row in rows], device=device),
        torch.tensor([len(prompt.ids) for prompt in prompts], device=device),
        mask,
        sum(len(row.embeddings) for row in rows),
    )


@torch.no_grad()
def step(language: LanguageModel, state: Prefilled, tokens: torch.Tensor, taken: int) -> None:
    """Continue each sequence by a token `[batch]` int64; `taken` were taken before it."""
    if state.mask is not None:
        state.mask = torch.cat((state.mask, torch.ones_like(state.mask[:, :1])), dim=1)
    state.logits = language.forward(
        language.embed(tokens[:, None]),
        (state.next_positions + taken)[None, :, None].expand(3, -1, -1),
        (state.lengths + taken)[:, None],
        state.mask,
        state.cache,
    )


def _row(
    language: LanguageModel, prompt: Prompt, images: Sequence[ImageEmbedding], skipped: int
) -> _Row:
    _check(language, prompt, images)
    positions, following = language.positions(prompt)
    ids = torch.tensor(prompt.ids[skipped:], device=language.device)
    embedded = language.embed(ids)
    visual = torch.tensor(prompt.types[skipped:]) > 0
    deepstack: tuple[torch.Tensor, ...] = ()
    if images and bool(visual.any()):
        packed = torch.cat([image.packed.to(embedded.device) for image in images], dim=1)
        packed = packed[:, -int(visual.sum()) :]  # the others are in the beginning
        embedded = embedded.clone()
        embedded[visual.to(embedded.device)] = packed[0].to(embedded.dtype)
        deepstack = packed[1:].to(embedded.dtype).unbind()
    return _Row(embedded, positions[:, skipped:], visual, deepstack, following)


def _check(language: LanguageModel, prompt: Prompt, images: Sequence[ImageEmbedding]) -> None:
    if [image.grid_thw for image in images] != list(prompt.grids):
        raise ValueError("the embeddings are not those of the prompt's images")
    tokens = sum(len(image.features) for image in images)
    places = sum(kind > 0 for kind in prompt.types)
    if tokens != places:
        raise ValueError(f"the images have {tokens} features, the prompt places for {places}")
    if any(image.deepstack for image in images) and not language.takes_deepstack:
        raise ValueError("the embeddings have deepstack features, which the model does not take")


def _deepstack(rows: Sequence[_Row]) -> list[torch.Tensor] | None:
    """Put the levels of all rows together, in the order in which a mask finds their places."""
    levels = [row.deepstack for row in rows if row.deepstack]
    return [torch.cat(level) for level in zip(*levels, strict=True)] or None


def _padded(tensor: torch.Tensor, missing: int) -> torch.Tensor:
    """Put zeros before the first row."""
    return torch.cat((tensor.new_zeros(missing, *tensor.shape[1:]), tensor)) if missing else tensor
