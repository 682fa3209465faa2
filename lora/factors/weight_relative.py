"""Changes that depend on the base weight ``W [out, in]``: what is added is linear in W.

Each can be multiplied out, given the weight, or run beside the layer, given its product without
bias. Strength s means ``W + s * (W' - W)``. Source of the formulas here: LyCORIS 4.1
(``lycoris/modules/{glora,ia3}.py``) and peft 0.21 (``tuners/ia3/layer.py``). Rotations of the
weight are in `oft_rotation`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from .delta import LowRank

Apply = Callable[[Tensor], Tensor]
R = TypeVar("R", bound="Relative")


@dataclass(frozen=True, eq=False)
class Relative(ABC):
    """Common operations. Subclasses are immutable and have a field `strength`."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""

    @abstractmethod
    def matrix(self, weight: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the change multiplied out, given the base weight, computed in `dtype`."""

    @abstractmethod
    def apply(self, x: Tensor, linear: Apply) -> Tensor:
        """Return ``x @ D.T``; `linear` computes ``x @ W.T``, without bias."""

    @abstractmethod
    def rows(self: R, start: int, stop: int) -> R:
        """Return rows ``start:stop``.

        Raises:
            ValueError: the change mixes these rows with others.
        """

    def scaled(self: R, strength: float) -> R:
        """Return the change times `strength`."""
        known: Any = self
        return replace(known, strength=known.strength * strength)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors held."""
        values = (getattr(self, item.name) for item in fields(self))
        return sum(value.nbytes for value in values if hasattr(value, "nbytes"))

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        values = (getattr(self, item.name) for item in fields(self))
        return next(value.device for value in values if hasattr(value, "device"))

    def to(
        self: R, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> R:
        """Return the change moved, its low-rank parts also converted; other tensors keep their
        type."""
        moved: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, LowRank):
                moved[item.name] = value.to(device, dtype)
            elif isinstance(value, Tensor):
                moved[item.name] = value.to(device=device)
        known: Any = self
        return replace(known, **moved)


@dataclass(frozen=True, eq=False)
class Scaling(Relative):
    """IA3: ``W' = W * (1 + lift)``, `lift` being ``[out, 1]`` or ``[1, in]``; for a bias both are
    ``[out]``."""

    lift: Tensor
    size: tuple[int, ...]
    strength: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.size

    def change(self) -> Tensor:
        """Return strength times `lift`, float32."""
        return self.lift.float() * self.strength

    def matrix(self, weight: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        return weight.to(dtype) * self.lift.to(weight.device, dtype) * self.strength

    def apply(self, x: Tensor, linear: Apply) -> Tensor:
        lift = (self.lift.flatten() * self.strength).to(x.dtype)
        return linear(x * lift) if self.lift.shape[0] == 1 else linear(x) * lift

    def rows(self, start: int, stop: int) -> Scaling:
        by_input = self.lift.dim() == 2 and self.lift.shape[0] == 1
        lift = self.lift if by_input else self.lift[start:stop]
        return replace(self, lift=lift, size=(stop - start, *self.size[1:]))


@dataclass(frozen=True, eq=False)
class Glora(Relative):
    """GLoRA of LyCORIS: ``W' = W + scale * (W @ a1 @ a2 + b1 @ b2)``.

    `inner` stands for ``a1 @ a2 [in, in]`` and `outer` for ``b1 @ b2 [out, in]``, both with the
    scale.
    """

    inner: LowRank
    outer: LowRank
    strength: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.outer.shape

    def matrix(self, weight: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        inner, outer = (part.to(weight.device) for part in (self.inner, self.outer))
        left = (weight.to(dtype) @ inner.B.to(dtype)) @ inner.A.to(dtype) * inner.scale
        return (left + outer.matrix(dtype)) * self.strength

    def apply(self, x: Tensor, linear: Apply) -> Tensor:
        return (linear(self.inner.apply(x)) + self.outer.apply(x)) * self.strength

    def rows(self, start: int, stop: int) -> Glora:
        return replace(self, outer=self.outer.rows(start, stop))


@dataclass(frozen=True, eq=False)
class Replacement(Relative):
    """A value in full: ``W' = value``, of any number of dimensions."""

    value: Tensor
    strength: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.value.shape)

    def matrix(self, weight: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        return (self.value.to(weight.device, dtype) - weight.to(dtype)) * self.strength

    def apply(self, x: Tensor, linear: Apply) -> Tensor:
        return (functional.linear(x, self.value.to(x.dtype)) - linear(x)) * self.strength

    def rows(self, start: int, stop: int) -> Replacement:
        return replace(self, value=self.value[start:stop])
