"""The low-rank part of a branch: ``y += ((x Aᵀ) · s) Bᵀ`` with the fewest operations.

For a whole stack these are one product down, the strengths on its small result, and one product up
that is added in place. Layers with the same input have one product down together.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from .paged import Paged


class LowRankPart(Protocol):
    """Adds a low-rank change to the output of a layer."""

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Return ``y`` with the change added for input ``x [..., in]``; `y` may be changed."""
        ...


class OwnInput:
    """A layer whose input no other layer has; `page` holds A ``[R, in]`` and B ``[out, R]``."""

    __slots__ = ("page", "scales")

    def __init__(self, page: Paged, scales: Tensor) -> None:
        self.page = page
        self.scales = scales

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        a, b, held = self.page.fetch(x)
        inner = functional.linear(x, a).mul_(_on(self.scales, x))
        y = add_product(y, inner, b)
        self.page.release(a, b, held)
        return y


class SharedInput:
    """The product down of several layers that are called with the same tensor.

    The first of them computes it for all. If they turn out to get different tensors after all, each
    computes its own from then on.

    Args:
        page: A ``[ΣR, in]`` of all layers.
        scales: ``[ΣR]`` float32.
        members: how many layers there are.
    """

    __slots__ = ("_kept", "_left", "_members", "_same", "page", "scales")

    def __init__(self, page: Paged, scales: Tensor, members: int) -> None:
        self.page = page
        self.scales = scales
        self._members = members
        self._same = True
        self._left = 0
        self._kept: tuple[Tensor, Tensor] | None = None

    def inner(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Return ``(x Aᵀ) · s`` for the ranks ``start:stop``, ``[..., stop - start]``."""
        if torch.compiler.is_compiling() or not self._same:
            return self._product(x, start, stop)
        kept = self._kept
        if kept is not None and kept[0] is x:
            self._left -= 1
            if not self._left:
                self._kept = None
            return kept[1][..., start:stop]
        if kept is not None:  # before all had it, one came with another input
            self._same, self._kept = False, None
            return self._product(x, start, stop)
        whole = self._product(x, 0, self.scales.shape[0])
        self._left = self._members - 1
        self._kept = (x, whole)
        return whole[..., start:stop]

    def forget(self) -> None:
        """Drop what was kept for layers that were not called."""
        self._kept = None

    def _product(self, x: Tensor, start: int, stop: int) -> Tensor:
        a, rest, held = self.page.fetch(x)
        product = functional.linear(x, a[start:stop]).mul_(_on(self.scales, x)[start:stop])
        self.page.release(a, rest, held)
        return product


class PartOfShared:
    """One of the layers of a `SharedInput`: its ranks there, and its B ``[out, R]``."""

    __slots__ = ("page", "shared", "start", "stop")

    def __init__(self, shared: SharedInput, start: int, stop: int, page: Paged) -> None:
        self.shared = shared
        self.start = start
        self.stop = stop
        self.page = page

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        inner = self.shared.inner(x, self.start, self.stop)
        b, rest, held = self.page.fetch(x)
        y = add_product(y, inner, b)
        self.page.release(b, rest, held)
        return y


def add_product(y: Tensor, inner: Tensor, b: Tensor) -> Tensor:
    """Return ``y + inner @ b.T``, in place if `y` is a plain result that nothing else uses."""
    if y.dtype == b.dtype and y.is_contiguous() and not y.requires_grad and type(y) is Tensor:
        rows = inner.flatten(0, -2) if inner.dim() > 2 else inner
        if rows.dim() == 2:
            y.view(-1, y.shape[-1]).addmm_(rows, b.t())
            return y
    return y + functional.linear(inner, b).to(y.dtype)


def _on(scales: Tensor, x: Tensor) -> Tensor:
    return scales if scales.device == x.device else scales.to(x.device)
