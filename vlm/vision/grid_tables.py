"""What a vision tower needs to know about a grid, computed once and kept out of the graph.

Every temporal patch is encoded for itself: its attention, positions and windows depend on the patch
rows and columns only. So the tables of one frame serve stills, batches and videos.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class GridTables(NamedTuple):
    """Tables of one frame of `rows` x `columns` patches, `patches` in all, `tokens` after merging.

    Patches are in the order of the processors (those of one token together), or, for a tower with
    windows, in the order of the windows.

    Attributes:
        cos, sin: `[patches, 1, head_dim]` float32, rotary position embedding.
        taps, tap_weights: `[4, patches]` int64 and `[4, patches, 1]` float32, where and how much to
            take from the learned position grid; None for a tower without one.
        order: `[tokens]` int64, token groups in the order of the windows; None without windows.
        restore: `[tokens]` int64, back to the order of the processors.
        windows: (number, patches) of equally long windows, in this order.
    """

    cos: torch.Tensor
    sin: torch.Tensor
    taps: torch.Tensor | None
    tap_weights: torch.Tensor | None
    order: torch.Tensor | None
    restore: torch.Tensor | None
    windows: tuple[tuple[int, int], ...]


def grid_tables(
    rows: int,
    columns: int,
    merge: int,
    inv_freq: torch.Tensor,
    *,
    position_side: int = 0,
    window: int = 0,
) -> GridTables:
    """Compute the tables on the device of `inv_freq`.

    Args:
        rows, columns: patches of one frame, multiples of `merge`.
        merge: patches per side that become one token.
        inv_freq: `[head_dim / 4]`, the tower's rotary frequencies.
        position_side: rows and columns of the learned position grid, 0 if there is none.
        window: side of an attention window in tokens, 0 if there are none.
    """
    device = inv_freq.device
    places = _merge_order(rows, columns, merge, device)
    taps, weights = _taps(places, rows, columns, position_side) if position_side else (None, None)
    order, windows = None, ((1, rows * columns),)
    if window:
        order, windows = _window_order(rows // merge, columns // merge, merge**2, window, device)
        places = places.view(len(order), merge**2, 2)[order].flatten(0, 1)
    angles = (places[:, :, None] * inv_freq.float()).flatten(1).repeat(1, 2)[:, None]
    restore = order.argsort() if order is not None else None
    return GridTables(angles.cos(), angles.sin(), taps, weights, order, restore, windows)


def _merge_order(rows: int, columns: int, merge: int, device: torch.device) -> torch.Tensor:
    """Return row and column of each patch `[patches, 2]`, those of one token together."""
    row, column = torch.meshgrid(
        torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij"
    )
    places = torch.stack((row, column), dim=-1)
    blocks = places.view(rows // merge, merge, columns // merge, merge, 2)
    return blocks.transpose(1, 2).reshape(-1, 2)


def _taps(
    places: torch.Tensor, rows: int, columns: int, side: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Resample a `side` x `side` grid to the patches: bilinear, corner to corner."""
    sizes = torch.tensor([rows, columns], device=places.device)
    source = places.float() * (side - 1) / (sizes - 1).clamp(min=1)
    low = source.floor()
    share = source - low
    first = low.long()
    second = (first + 1).clamp(max=side - 1)
    taps, weights = [], []
    for row, row_share in ((first, 1 - share), (second, share)):
        for column, column_share in ((first, 1 - share), (second, share)):
            taps.append(row[:, 0] * side + column[:, 1])
            weights.append(row_share[:, 0] * column_share[:, 1])
    return torch.stack(taps), torch.stack(weights)[..., None]


def _window_order(
    rows: int, columns: int, unit: int, window: int, device: torch.device
) -> tuple[torch.Tensor, tuple[tuple[int, int], ...]]:
    """Sort the tokens into windows, and the windows, which are cut off at two edges, by size.

    Attention knows no order among windows; equally long ones together are a plain batch.
    """
    tokens = torch.arange(rows * columns).view(rows, columns)
    by_length: dict[int, list[torch.Tensor]] = {}
    for strip in tokens.split(window):
        for tile in strip.split(window, dim=1):
            by_length.setdefault(tile.numel() * unit, []).append(tile.flatten())
    order = torch.cat([tile for tiles in by_length.values() for tile in tiles])
    windows = tuple((len(tiles), length) for length, tiles in by_length.items())
    return order.to(device), windows
