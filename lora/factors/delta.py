"""Exact changes to one parameter, kept in the form in which they are small.

Every delta stands for a matrix ``D [out, in]`` that is added to a weight (or, for `Dense`, for a
tensor of any shape that is added to a norm, bias or token). Nothing is multiplied out until asked.
Factors keep the dtype of the file; alpha/rank is the Python float `scale`, applied in float32 when
factors are fused, so that folding it copies nothing and rounds nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

D = TypeVar("D", bound="Delta")


def _moved(value: Any, device: torch.device | str | None, dtype: torch.dtype | None) -> Any:
    if isinstance(value, Tensor):
        return value.to(device=device, dtype=dtype)
    if isinstance(value, Delta):
        return value.to(device, dtype)
    if isinstance(value, tuple):
        return tuple(_moved(item, device, dtype) for item in value)
    return value


def _bytes(value: Any) -> int:
    if isinstance(value, (Tensor, Delta)):
        return value.nbytes
    return sum(_bytes(item) for item in value) if isinstance(value, tuple) else 0


def _device(value: Any) -> torch.device:
    """Of the first tensor of a delta, or of a tuple of them."""
    while not isinstance(value, Tensor):
        value = value[0] if isinstance(value, tuple) else getattr(value, fields(value)[0].name)
    return value.device


@dataclass(frozen=True, eq=False)
class Delta(ABC):
    """Common operations. Subclasses are immutable; methods return new deltas sharing tensors."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of the change."""

    @abstractmethod
    def matrix(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the change multiplied out, computed in `dtype`."""

    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """Return ``x @ D.T`` in the dtype of x; x is ``[..., in]``, the result ``[..., out]``."""

    @abstractmethod
    def scaled(self: D, strength: float) -> D:
        """Return the delta times `strength`. Scaling twice multiplies; no tensor is touched."""

    @abstractmethod
    def rows(self, start: int, stop: int) -> Delta:
        """Return rows ``start:stop`` of the change."""

    def low_rank(self, limit: int | None = None) -> LowRank | None:
        """Return the change as two factors, exactly, if that is small; None otherwise.

        Small means: fewer elements than the matrix, and a rank of at most `limit`.
        """
        return None

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors held."""
        return sum(_bytes(getattr(self, item.name)) for item in fields(self))

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return _device(self)

    def to(
        self: D, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> D:
        """Return the delta with every tensor moved and converted."""
        moved = {
            item.name: _moved(getattr(self, item.name), device, dtype) for item in fields(self)
        }
        return type(self)(**moved)


def _is_small(rank: int, shape: tuple[int, ...], limit: int | None) -> bool:
    out, inp = shape
    return rank * (out + inp) < out * inp and (limit is None or rank <= limit)


@dataclass(frozen=True, eq=False)
class LowRank(Delta):
    """``D = scale * B @ A`` with A ``[rank, in]`` and B ``[out, rank]``."""

    A: Tensor
    B: Tensor
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.B.shape[0], self.A.shape[1]

    @property
    def rank(self) -> int:
        """Columns of B and rows of A."""
        return self.A.shape[0]

    def matrix(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return (self.B.to(dtype) @ self.A.to(dtype)).mul_(self.scale)

    def apply(self, x: Tensor) -> Tensor:
        inner = functional.linear(x, self.A.to(x.dtype)) * self.scale
        return functional.linear(inner, self.B.to(x.dtype))

    def scaled(self, strength: float) -> LowRank:
        return replace(self, scale=self.scale * strength)

    def rows(self, start: int, stop: int) -> LowRank:
        return replace(self, B=self.B[start:stop])

    def low_rank(self, limit: int | None = None) -> LowRank | None:
        return self if limit is None or self.rank <= limit else None

    def folded(self) -> Tensor:
        """Return ``scale * B`` in float32 (or wider, if B is); B itself if that is the same."""
        wide = torch.promote_types(self.B.dtype, torch.float32)
        return self.B.to(wide) * self.scale if self.scale != 1.0 else self.B.to(wide)


@dataclass(frozen=True, eq=False)
class Hadamard(Delta):
    """LoHa: ``D = scale * (B1 @ A1) * (B2 @ A2)``, elementwise, with ranks r1 and r2.

    By the face-splitting (Khatri-Rao) product it is exactly a low-rank change of rank r1*r2: column
    (i, j) of B is ``B1[:, i] * B2[:, j]`` and row (i, j) of A is ``A1[i] * A2[j]``. The four
    factors are kept, since that form is far smaller, and expanded for use where it saves work.
    """

    A1: Tensor
    B1: Tensor
    A2: Tensor
    B2: Tensor
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.B1.shape[0], self.A1.shape[1]

    def matrix(self, dtype: torch.dtype = torch.float32) -> Tensor:
        first = self.B1.to(dtype) @ self.A1.to(dtype)
        return first.mul_(self.B2.to(dtype) @ self.A2.to(dtype)).mul_(self.scale)

    def apply(self, x: Tensor) -> Tensor:
        expanded = self.low_rank()
        if expanded is not None:
            return expanded.apply(x)
        return functional.linear(x, self.matrix(torch.float32).to(x.dtype))

    def scaled(self, strength: float) -> Hadamard:
        return replace(self, scale=self.scale * strength)

    def rows(self, start: int, stop: int) -> Hadamard:
        return replace(self, B1=self.B1[start:stop], B2=self.B2[start:stop])

    def low_rank(self, limit: int | None = None) -> LowRank | None:
        out, inp = self.shape
        if not _is_small(self.A1.shape[0] * self.A2.shape[0], self.shape, limit):
            return None
        wide = torch.promote_types(self.A1.dtype, torch.float32)
        a1, a2, b1, b2 = (t.to(wide) for t in (self.A1, self.A2, self.B1, self.B2))
        a = (a1[:, None] * a2[None]).reshape(-1, inp)
        b = (b1[:, :, None] * b2[:, None]).reshape(out, -1)
        return LowRank(a, b, self.scale)


@dataclass(frozen=True, eq=False)
class Kronecker(Delta):
    """LoKr: ``D = scale * kron(W1, W2)``; each of W1, W2 is ``(matrix,)`` or factors ``(B, A)``.

    At run time the input is folded to ``[..., in1, in2]`` and multiplied from both sides, so the
    product is never formed. As two factors it has rank(W1) * rank(W2), a whole matrix counting
    with its smaller side: ``kron(B1 A1, B2 A2) = kron(B1, B2) kron(A1, A2)``.
    """

    w1: tuple[Tensor, ...]
    w2: tuple[Tensor, ...]
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        out = self.w1[0].shape[0] * self.w2[0].shape[0]
        return out, self.w1[-1].shape[1] * self.w2[-1].shape[1]

    def matrix(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.kron(_product(self.w1, dtype), _product(self.w2, dtype)).mul_(self.scale)

    def apply(self, x: Tensor) -> Tensor:
        folded = x.reshape(*x.shape[:-1], self.w1[-1].shape[1], self.w2[-1].shape[1])
        for factor in reversed(self.w2):
            folded = functional.linear(folded, factor.to(x.dtype))
        folded = folded.transpose(-1, -2)
        for factor in reversed(self.w1):
            folded = functional.linear(folded, factor.to(x.dtype))
        return (folded.transpose(-1, -2) * self.scale).reshape(*x.shape[:-1], self.shape[0])

    def scaled(self, strength: float) -> Kronecker:
        return replace(self, scale=self.scale * strength)

    def rows(self, start: int, stop: int) -> Kronecker | Rows:
        height = self.w2[0].shape[0]
        first, last = start // height, -(-stop // height)
        cut = replace(self, w1=(self.w1[0][first:last], *self.w1[1:]))
        offset = first * height
        if (start - offset, stop - offset) == (0, cut.shape[0]):
            return cut
        return Rows(cut, start - offset, stop - offset)

    def low_rank(self, limit: int | None = None) -> LowRank | None:
        if not _is_small(_rank(self.w1) * _rank(self.w2), self.shape, limit):
            return None
        (b1, a1), (b2, a2) = _split(self.w1), _split(self.w2)
        return LowRank(torch.kron(a1, a2), torch.kron(b1, b2), self.scale)


def _product(factors: tuple[Tensor, ...], dtype: torch.dtype) -> Tensor:
    first = factors[0].to(dtype)
    return first @ factors[1].to(dtype) if len(factors) == 2 else first


def _rank(factors: tuple[Tensor, ...]) -> int:
    return min(factors[0].shape[0], *(factor.shape[1] for factor in factors))


def _split(factors: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Return factors (B, A) of least rank, in float32 or wider; a whole matrix times identity."""
    wide = torch.promote_types(factors[0].dtype, torch.float32)
    if len(factors) == 2:
        b, a = factors[0].to(wide), factors[1].to(wide)
        if a.shape[0] <= min(b.shape[0], a.shape[1]):
            return b, a
        factors = (b @ a,)
    whole = factors[0].to(wide)
    out, inp = whole.shape
    identity = torch.eye(min(out, inp), dtype=wide, device=whole.device)
    return (whole, identity) if inp <= out else (identity, whole)


@dataclass(frozen=True, eq=False)
class Rows(Delta):
    """Rows ``start:stop`` of a change whose factors cannot be cut there."""

    inner: Delta
    start: int
    stop: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stop - self.start, *self.inner.shape[1:]

    def matrix(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.inner.matrix(dtype)[self.start : self.stop]

    def apply(self, x: Tensor) -> Tensor:
        return self.inner.apply(x)[..., self.start : self.stop]

    def scaled(self, strength: float) -> Rows:
        return replace(self, inner=self.inner.scaled(strength))

    def rows(self, start: int, stop: int) -> Rows:
        return replace(self, start=self.start + start, stop=self.start + stop)

    def low_rank(self, limit: int | None = None) -> LowRank | None:
        low = self.inner.low_rank(limit)
        if low is None or not _is_small(low.rank, self.shape, limit):
            return None
        return low.rows(self.start, self.stop)


@dataclass(frozen=True, eq=False)
class Dense(Delta):
    """``D = scale * diff``: a change stored in full, for a parameter of any shape."""

    diff: Tensor
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.diff.shape)

    def matrix(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.diff.to(dtype) * self.scale

    def apply(self, x: Tensor) -> Tensor:
        if self.diff.dim() != 2:
            raise ValueError(f"a change of shape {list(self.shape)} is not a linear map")
        return functional.linear(x, self.diff.to(x.dtype)) * self.scale

    def scaled(self, strength: float) -> Dense:
        return replace(self, scale=self.scale * strength)

    def rows(self, start: int, stop: int) -> Dense:
        return replace(self, diff=self.diff[start:stop])
