"""Keys and values of fixed places in memory, so that each step of decoding is the same graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .language_model import LanguageModel
from .prefill import Prefilled

_SHORTEST = 512
_MASKED_ATTENTIONS = ("sdpa", "eager")


def bucket(tokens: int) -> int:
    """The length of the static cache for so many tokens: few lengths, so that few graphs occur."""
    return max(_SHORTEST, 1 << (tokens - 1).bit_length())


def refusal(language: LanguageModel, cache: Any) -> str | None:
    """Say why what a cache holds cannot be in a static one, or return None."""
    from transformers.cache_utils import DynamicLayer

    others = {type(layer).__name__ for layer in cache.layers if type(layer) is not DynamicLayer}
    if others:
        return (
            f"the model keeps more than keys and values of each token: {', '.join(sorted(others))}"
        )
    attention = getattr(language.model.config, "_attn_implementation", None)
    if attention not in _MASKED_ATTENTIONS:
        return f"attention {attention} cannot leave out the free places of a static cache"
    return None


def static_nbytes(cache: Any, length: int) -> int:
    """Bytes of a static cache of `length` tokens for what a growing cache holds."""
    return sum(
        tensor.nbytes // tensor.shape[-2] * length
        for layer in cache.layers
        for tensor in (layer.keys, layer.values)
    )


class StaticCache:
    """Keys and values, and the inputs of a step, all at addresses that never change.

    Args:
        layers: of the model.
        batch: sequences.
        length: places for tokens.
        device: to allocate on.

    Attributes:
        cache: as the models of transformers take it.
        inputs: `[5, batch]` int64: the token, its position for rotary embedding, its place in its
            sequence, its slot in the cache, and the number of slots of padding before the sequence.
    """

    def __init__(self, layers: int, batch: int, length: int, device: torch.device) -> None:
        from transformers.cache_utils import Cache, StaticLayer

        self.cache: Any = Cache(layers=[StaticLayer(length) for _ in range(layers)])
        self.inputs = torch.zeros(5, batch, dtype=torch.int64, device=device)
        torch._dynamo.mark_static_address(self.inputs)
        self._positions: list[int] = []
        self._lengths: list[int] = []
        self._padding: list[int] = []
        self._filled = 0

    def fill(self, state: Prefilled) -> None:
        """Take over sequences that have been read; their own cache stays as it is."""
        self.cache.reset()
        for index, layer in enumerate(state.cache.layers):
            self.cache.update(layer.keys, layer.values, index)
        self._filled = int(state.cache.get_seq_length())
        self._positions = state.next_positions.tolist()
        self._lengths = state.lengths.tolist()
        self._padding = [self._filled - length for length in self._lengths]

    def place(self, tokens: Sequence[int], taken: int) -> None:
        """Set the inputs of the step that reads a token of each sequence; `taken` came before."""
        rows = (
            tokens,
            [position + taken for position in self._positions],
            [length + taken for length in self._lengths],
            [self._filled + taken] * len(tokens),
            self._padding,
        )
        self.inputs.copy_(torch.tensor(rows))

    def restore(self, language: LanguageModel, taken: int) -> Any:
        """Return a cache that grows, with what was read and the `taken` tokens after it."""
        cache = language.new_cache()
        end = self._filled + taken
        for index, layer in enumerate(self.cache.layers):
            cache.update(layer.keys[..., :end, :], layer.values[..., :end, :], index)  # copies
        return cache


def decode_step(language: LanguageModel, cache: Any, inputs: torch.Tensor) -> torch.Tensor:
    """Read one token of each sequence.

    Args:
        cache, inputs: as in `StaticCache`.

    Returns:
        `[batch, vocabulary]` float32, logits of the token after it.
    """
    tokens, positions, text_positions, slots, padding = inputs.unbind()
    every = torch.arange(cache.layers[0].max_cache_len, device=inputs.device)
    free = (every > slots[:, None]) | (every < padding[:, None])
    embeddings = language.embed(tokens[:, None])
    mask = torch.zeros_like(free, dtype=embeddings.dtype).masked_fill(free, -torch.inf)
    return language.forward(
        embeddings,
        positions[None, :, None].expand(3, -1, -1),
        text_positions[:, None],
        mask[:, None, None],
        cache,
        slots=slots[:1],
    )
