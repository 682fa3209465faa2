"""LoRAs on packed layers as packs for Nunchaku apply them: unpack, join, pack again, every time.

Written from the description of that algorithm: each change of the stack goes back to the packed
base factors of every layer, unpacks them, joins them with all LoRAs (Q, K and V block-diagonally,
strengths multiplied into A), and packs the result anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...lora.factors.delta import LowRank
from ...lora.loader import Lora
from ...lora.mapping.architecture import Architecture

Stack = Sequence[tuple[Lora, float]]


class Repacker:
    """Keeps the packed base factors of all layers, and makes new ones for each stack."""

    def __init__(self, layers: Mapping[str, Any], architecture: Architecture) -> None:
        self._layers = layers
        self._base = {path: (layer.proj_down, layer.proj_up) for path, layer in layers.items()}
        self._members = {
            path: [block.module for block in architecture.layout(path)] for path in layers
        }

    def apply(self, stack: Stack) -> None:
        """Bring every layer to these LoRAs."""
        for path, layer in self._layers.items():
            down, up = self._base[path]
            downs, ups = [_unpack(down.detach(), down=True)], [_unpack(up.detach(), down=False)]
            for lora, strength in stack:
                a, b = self._joined(path, lora, strength)
                pad = -a.shape[0] % 16
                downs.append(torch.nn.functional.pad(a, (0, 0, 0, pad)).to(downs[0]))
                ups.append(torch.nn.functional.pad(b, (0, pad)).to(ups[0]))
            layer.proj_down = _parameter(_pack(torch.cat(downs), down=True))
            layer.proj_up = _parameter(_pack(torch.cat(ups, 1), down=False))

    def _joined(self, path: str, lora: Lora, strength: float) -> tuple[Tensor, Tensor]:
        deltas = [lora.deltas[module][0].delta for module in self._members[path]]
        parts = [delta for delta in deltas if isinstance(delta, LowRank)]
        a = torch.cat([part.A * (strength * part.scale) for part in parts])
        return a, torch.block_diag(*(part.B for part in parts))


def _parameter(tensor: Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(tensor, requires_grad=False)


def _pack(weight: Tensor, *, down: bool) -> Tensor:
    rows, columns = weight.shape
    tiles = weight.reshape(rows // 16, 2, 8, columns // 16, 2, 4, 2)
    tiles = tiles.permute((3, 0, 2, 5, 1, 4, 6) if down else (0, 3, 2, 5, 1, 4, 6)).contiguous()
    return tiles.view(columns, rows) if down else tiles.view(rows, columns)


def _unpack(packed: Tensor, *, down: bool) -> Tensor:
    channels, rank = packed.shape
    tiles = packed.reshape(channels // 16, rank // 16, 8, 4, 2, 2, 2)
    tiles = tiles.permute((1, 4, 2, 0, 5, 3, 6) if down else (0, 4, 2, 1, 5, 3, 6)).contiguous()
    return tiles.view(rank, channels) if down else tiles.view(channels, rank)
