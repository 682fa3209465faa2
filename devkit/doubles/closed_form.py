"""Nunchaku's layouts as positions, element by element: the tests' own packer.

Every function of the first group returns where in the packed memory each logical element lies, by
plain arithmetic on its indices. Packing scatters to those positions and unpacking gathers from
them, so nothing here shares a line, or a way of thinking, with `vivace.svdquant.packing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=32)
def lowrank_positions(channels: int, rank: int, *, down: bool) -> Tensor:
    """For the logical factor: down ``[rank, channels]``, up ``[channels, rank]``."""
    n, k = _grid(rank, channels) if down else _grid(channels, rank)
    channel, number = (k, n) if down else (n, k)
    block = channel // 16 * (rank // 16) + number // 16
    n, k = n % 16, k % 16
    return 256 * block + n % 8 * 32 + k % 8 // 2 * 8 + n // 8 * 4 + k // 8 * 2 + k % 2


@lru_cache(maxsize=32)
def weight_positions(n: int, k: int) -> Tensor:
    """For a 4-bit weight ``[n, k]``, counted in nibbles, the low one of a byte first."""
    rows, columns = _grid(n, k)
    return _mixed([
        (rows // 128, n // 128), (columns // 64, k // 64), (rows // 16 % 8, 8), (rows % 8, 8),
        (columns // 8 % 4, 4), (rows // 8 % 2, 2), (columns // 32 % 2, 2), (columns % 8, 8),
    ])  # fmt: skip


@lru_cache(maxsize=32)
def scale_positions(groups: int, n: int) -> Tensor:
    """For int4 scales ``[groups, n]``; with one group, also for a vector over channels."""
    group, column = _grid(groups, n)
    return _mixed([
        (column // 128, n // 128), (group, groups), (column // 16 % 8, 8), (column // 2 % 4, 4),
        (column // 8 % 2, 2), (column % 2, 2),
    ])  # fmt: skip


@lru_cache(maxsize=32)
def micro_scale_positions(groups: int, n: int) -> Tensor:
    """For the scales of an nvfp4 weight, ``[groups, n]``, of 16 inputs each."""
    group, column = _grid(groups, n)
    return _mixed([
        (column // 128, n // 128), (group // 4, groups // 4), (column % 8, 8),
        (column // 8 % 4, 4), (column // 32 % 4, 4), (group % 4, 4),
    ])  # fmt: skip


@lru_cache(maxsize=32)
def awq_positions(n: int, k: int) -> Tensor:
    """For an AWQ weight ``[n, k]``, counted in nibbles."""
    rows, columns = _grid(n, k)
    word = columns % 64 // 32 * 8 + columns % 8
    return _mixed([
        (rows // 4, n // 4), (columns // 64, k // 64), (rows % 4, 4), (word, 16),
        (columns // 8 % 4, 4),
    ])  # fmt: skip


def scatter(values: Tensor, positions: Tensor) -> Tensor:
    """Return flat memory with `values` at `positions`."""
    assert values.shape == positions.shape
    memory = torch.empty_like(values, memory_format=torch.contiguous_format).flatten()
    memory[positions.flatten()] = values.flatten()
    return memory


def gather(memory: Tensor, positions: Tensor) -> Tensor:
    """Return the logical tensor from packed memory."""
    return memory.flatten()[positions]


def nibbles(data: Tensor) -> Tensor:
    """The nibbles of contiguous memory as int8 0..15, low nibble of each byte first."""
    flat = data.contiguous().view(-1).view(torch.uint8)
    return torch.stack([flat & 15, flat >> 4], 1).flatten().view(torch.int8)


def from_nibbles(values: Tensor) -> Tensor:
    """Flat uint8 memory with these nibbles (taken modulo 16); undoes `nibbles`."""
    low, high = (values.to(torch.int8).view(torch.uint8) & 15).view(-1, 2).unbind(1)
    return low | high << 4


def pack_factor(weight: Tensor, *, down: bool) -> Tensor:
    """A low-rank factor as Nunchaku stores it, ``[channels, rank]``."""
    rank, channels = weight.shape if down else weight.shape[::-1]
    return scatter(weight, lowrank_positions(channels, rank, down=down)).view(channels, rank)


def unpack_factor(packed: Tensor, *, down: bool) -> Tensor:
    """Undo `pack_factor`."""
    return gather(packed, lowrank_positions(*packed.shape, down=down))


def pack_weight(values: Tensor) -> Tensor:
    """4-bit values as an int8 qweight ``[n, k/2]``."""
    n, k = values.shape
    memory = scatter(values.to(torch.int8), weight_positions(n, k))
    return from_nibbles(memory).view(torch.int8).view(n, k // 2)


def unpack_weight(qweight: Tensor) -> Tensor:
    """The bit patterns 0..15 of a qweight, ``[n, k]``."""
    n, half = qweight.shape
    return gather(nibbles(qweight), weight_positions(n, half * 2))


def pack_awq(values: Tensor) -> Tensor:
    """4-bit values as an int32 AWQ weight ``[n/4, k/2]``."""
    n, k = values.shape
    memory = scatter(values.to(torch.int8), awq_positions(n, k))
    return from_nibbles(memory).view(torch.int32).view(n // 4, k // 2)


def unpack_awq(qweight: Tensor) -> Tensor:
    """The values 0..15 of an AWQ weight, ``[n, k]``."""
    quarter, half = qweight.shape
    return gather(nibbles(qweight), awq_positions(quarter * 4, half * 2))


def pack_scale(scales: Tensor) -> Tensor:
    """Scales ``[groups, n]`` of an int4 weight, packed."""
    return scatter(scales, scale_positions(*scales.shape)).view(scales.shape)


def unpack_scale(packed: Tensor) -> Tensor:
    """Undo `pack_scale`."""
    return gather(packed, scale_positions(*packed.shape))


def pack_channels(vector: Tensor) -> Tensor:
    """A vector over channels, packed."""
    return pack_scale(vector[None])[0]


def unpack_channels(packed: Tensor) -> Tensor:
    """Undo `pack_channels`."""
    return unpack_scale(packed[None])[0]


def _grid(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    return torch.arange(rows)[:, None], torch.arange(columns)[None]


def _mixed(digits: Sequence[tuple[Tensor, int]]) -> Tensor:
    """Read digits, the most significant first, each with its radix, as one number.

    Each depends on the row or on the column alone, so that a single sum is as large as the grid.
    """
    rows = columns = torch.zeros(1, 1, dtype=torch.int64)
    place = 1
    for digit, radix in reversed(digits):
        if digit.shape[1] == 1:
            rows = rows + digit * place
        else:
            columns = columns + digit * place
        place *= radix
    return rows + columns
