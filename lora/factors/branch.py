"""What a stack adds to one module: one low-rank branch, further terms, and a bias."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from .delta import Delta
from .weight_relative import Apply, Relative


@dataclass(frozen=True, eq=False)
class Term:
    """A change of rows ``start:stop`` that is not part of the low-rank factors."""

    delta: Delta | Relative
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Branch:
    """All that a stack adds to one module: ``y += ((x @ A.T) * s) @ B.T``, terms, and a bias.

    A is ``[R, in]``, B ``[out, R]``, both in the composer's dtype; s is ``[R]`` float32 and holds
    strength times alpha/rank. A, B and s are None without low-rank changes. `bias` is ``[out]``
    float32, and so is `bias_lift`: the layer's own bias times it is added too. For norms and
    tokens, `terms` hold dense changes of the parameter itself; for these and for embeddings
    `matrix` is what to add, and `apply` has no meaning.
    """

    target: str
    shape: tuple[int, ...]
    A: Tensor | None = None
    B: Tensor | None = None
    s: Tensor | None = None
    terms: tuple[Term, ...] = ()
    bias: Tensor | None = None
    bias_lift: Tensor | None = None

    @property
    def rank(self) -> int:
        """Rank of the low-rank part."""
        return 0 if self.A is None else self.A.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors held."""
        tensors = (self.A, self.B, self.s, self.bias, self.bias_lift)
        own = sum(tensor.nbytes for tensor in tensors if tensor is not None)
        return own + sum(term.delta.nbytes for term in self.terms)

    @property
    def device(self) -> torch.device | None:
        """Where the tensors are; None if there are none."""
        holders = (self.A, self.bias, self.bias_lift, *(term.delta for term in self.terms))
        return next((holder.device for holder in holders if holder is not None), None)

    def to(self, device: str | torch.device) -> Branch:
        """Return the branch with every tensor on a device."""
        tensors = {
            name: None if tensor is None else tensor.to(device)
            for name in ("A", "B", "s", "bias", "bias_lift")
            for tensor in (getattr(self, name),)
        }
        terms = tuple(replace(term, delta=term.delta.to(device)) for term in self.terms)
        return replace(self, terms=terms, **tensors)

    def apply(
        self, x: Tensor, linear: Apply | None = None, own_bias: Tensor | None = None
    ) -> Tensor:
        """Return what to add to the module's output for input ``x [..., in]``.

        `linear` computes ``x @ W.T`` and is needed for changes that depend on the weight (DoRA);
        `own_bias` is the layer's ``[out]``, needed where that is changed by a factor.

        Raises:
            ValueError: a change depends on the weight, and there is no `linear`.
        """
        if self.A is not None and self.B is not None and self.s is not None:
            inner = functional.linear(x, self.A.to(x.dtype)) * self.s.to(x.dtype)
            result = functional.linear(inner, self.B.to(x.dtype))
        else:
            result = x.new_zeros(*x.shape[:-1], self.shape[0])
        for term in self.terms:
            rows = slice(term.start, term.stop)
            if isinstance(term.delta, Delta):
                result[..., rows] += term.delta.apply(x)
            elif linear is None:
                raise ValueError(f"{self.target}: a change needs the product with the base weight")
            else:
                base = _rows_of(linear, rows)
                result[..., rows] += term.delta.apply(x, base)
        if self.bias_lift is not None:
            if own_bias is None:
                raise ValueError(f"{self.target}: a change needs the bias of the layer")
            result = result + own_bias.to(x) * self.bias_lift.to(x.dtype)
        return result if self.bias is None else result + self.bias.to(x.dtype)

    def matrix(self, weight: Tensor | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the change of the weight multiplied out, without the bias.

        Raises:
            ValueError: a change depends on the weight, and there is no base `weight`.
        """
        if self.A is not None and self.B is not None and self.s is not None:
            result = (self.B.to(dtype) * self.s.to(dtype)) @ self.A.to(dtype)
        else:
            result = torch.zeros(self.shape, dtype=dtype, device=self.device)
        for term in self.terms:
            rows = slice(term.start, term.stop)
            if isinstance(term.delta, Delta):
                change = term.delta.matrix(dtype)
            elif weight is None:
                raise ValueError(f"{self.target}: a change needs the base weight")
            else:
                change = term.delta.matrix(weight[rows], dtype)
            result[rows] += change.to(result.device)
        return result


def _rows_of(linear: Apply, rows: slice) -> Apply:
    return lambda x: linear(x)[..., rows]
