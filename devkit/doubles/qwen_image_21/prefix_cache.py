"""Keys and values of the tokens before the picture, kept as long as one sampling run lasts."""

from __future__ import annotations

import torch
from torch import Tensor


class PrefixCache:
    """What each block has made of the tokens before the picture, a slot for each condition.

    Attributes:
        hits: how many forwards found their slot filled.
    """

    def __init__(self) -> None:
        self._slots: list[tuple[Tensor, dict[int, Tensor]]] = []
        self._blocks: dict[int, Tensor] = {}
        self.hits = 0

    def select(self, key: Tensor, blocks: int) -> bool:
        """Turn to the slot of a key `[B, n]`; returns whether all blocks are in it."""
        for known, kept in self._slots:
            if known.shape == key.shape and torch.equal(known, key):
                self._blocks = kept
                break
        else:
            self._blocks = {}
            self._slots.append((key.clone(), self._blocks))
        filled = len(self._blocks) == blocks
        self.hits += filled
        return filled

    def put(self, block: int, keys: Tensor, values: Tensor) -> None:
        """Keep keys and values, each `[B, n, heads, d]`."""
        self._blocks[block] = torch.stack([keys, values], dim=1)

    def take(self, block: int) -> tuple[Tensor, Tensor]:
        """The keys and values of a block in the slot."""
        keys, values = self._blocks[block].unbind(1)
        return keys, values


def cache_key(x: Tensor, context: Tensor, references: list[Tensor], slots: list[int]) -> Tensor:
    """Return sizes, places, prompt and references as one tensor, float32, a row for each sample."""
    sizes = [context.shape[1], len(references), *x.shape[-2:], *slots]
    sizes += [size for reference in references for size in reference.shape[-2:]]
    head = torch.tensor(sizes, dtype=torch.float32, device=x.device).expand(len(context), -1)
    return torch.cat([head, *(t.float().flatten(1) for t in (context, *references))], dim=1)
