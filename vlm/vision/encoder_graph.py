"""The vision encoder as one graph: real weights, nothing that depends on data.

The towers' own forward splits by a tensor of sequence lengths in every block, which breaks
`torch.compile` into a graph per layer. Here frames of one size are a batch, and so are windows of
one size, so no shape depends on the content of a tensor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from .grid_tables import GridTables


@dataclass(frozen=True)
class TowerGeometry:
    """The numbers that shape a tower's graph.

    Attributes:
        patch_size, temporal_patch_size, merge_size: as in `pixels.PixelFormat`.
        depth: number of blocks.
        dim: width of the features that come out.
        window: side of an attention window in tokens, 0 if all blocks see the whole frame.
        full_layers: blocks that see the whole frame although there are windows.
        deepstack_layers: blocks after which features are taken as well.
        position_side: side of the learned position grid, 0 if there is none.
    """

    patch_size: int
    temporal_patch_size: int
    merge_size: int
    depth: int
    dim: int
    window: int
    full_layers: tuple[int, ...]
    deepstack_layers: tuple[int, ...]
    position_side: int


def encode_frames(
    tower: Any, geometry: TowerGeometry, pixel_values: torch.Tensor, tables: GridTables
) -> torch.Tensor:
    """Encode frames of one grid.

    Args:
        tower: a vision tower of transformers; only its submodules and weights are used.
        pixel_values: `[frames, patches, patch values]`, in the dtype of the tower.
        tables: of the grid, on the same device.

    Returns:
        `[1 + deepstack layers, frames, tokens, dim]`: the merged features, then those of the
        deepstack layers.
    """
    frames, patches, _ = pixel_values.shape
    unit = geometry.merge_size**2
    # A convolution whose stride is its kernel is a product of matrices, and faster as one.
    projection = tower.patch_embed.proj
    hidden = F.linear(pixel_values, projection.weight.flatten(1), projection.bias)
    if tables.taps is not None:
        hidden = hidden + (tower.pos_embed(tables.taps) * tables.tap_weights).sum(0).to(hidden)
    if tables.order is not None:
        hidden = hidden.view(frames, patches // unit, unit, -1)[:, tables.order]
        hidden = hidden.view(frames, patches, -1)
    levels = []
    for layer, block in enumerate(tower.blocks):
        whole = layer in geometry.full_layers or not geometry.window
        windows = ((1, patches),) if whole else tables.windows
        hidden = hidden + _attention(block.attn, block.norm1(hidden), tables, windows)
        hidden = hidden + block.mlp(block.norm2(hidden))
        if layer in geometry.deepstack_layers:
            merger = tower.deepstack_merger_list[geometry.deepstack_layers.index(layer)]
            levels.append(merger(hidden))
    stacked = torch.stack([tower.merger(hidden), *levels])
    stacked = stacked.view(len(levels) + 1, frames, patches // unit, -1)
    return stacked if tables.restore is None else stacked[:, :, tables.restore]


def _attention(
    attention: Any, hidden: torch.Tensor, tables: GridTables, windows: tuple[tuple[int, int], ...]
) -> torch.Tensor:
    frames, patches, _ = hidden.shape
    query, key, value = (
        attention.qkv(hidden).view(frames, patches, 3, attention.num_heads, -1).unbind(2)
    )
    query, key = _rotate(query, tables), _rotate(key, tables)
    parts, start = [], 0
    for number, length in windows:
        stop = start + number * length
        q, k, v = (
            states[:, start:stop]
            .reshape(frames * number, length, attention.num_heads, -1)
            .transpose(1, 2)
            for states in (query, key, value)
        )
        seen = F.scaled_dot_product_attention(q, k, v, scale=attention.scaling)
        parts.append(seen.transpose(1, 2).reshape(frames, stop - start, -1))
        start = stop
    return attention.proj(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1))


def _rotate(states: torch.Tensor, tables: GridTables) -> torch.Tensor:
    wide = states.float()
    first, second = wide.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (wide * tables.cos + turned * tables.sin).to(states.dtype)
