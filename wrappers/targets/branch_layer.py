"""LoRAs as a runtime branch beside a linear layer: `y += ((x Aᵀ)·s) Bᵀ`.

The weight is not touched, so quantized weights lose nothing, and a changed strength is a changed
vector. How a module's calls come here is told in `layered_class`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from ...lora.factors.branch import Branch
from ...lora.factors.tensors import with_tensors
from .layered_class import plain_call
from .low_rank import LowRankPart
from .paged import Paged


class BranchLayer:
    """The branch of one linear layer, with its tensors where ComfyUI's memory management has them.

    Args:
        branch: what a stack adds; its own tensors are not used for computing, but for their shapes.
    """

    __slots__ = ("_low", "_terms", "_vectors", "branch")

    def __init__(self, branch: Branch) -> None:
        self.branch = branch
        self._low: LowRankPart | None = None
        self._terms: Sequence[Sequence[Paged]] = ()
        self._vectors: tuple[Tensor | None, Tensor | None] = (None, None)

    def bind(
        self,
        low: LowRankPart | None,
        terms: Sequence[Sequence[Paged]],
        bias: Tensor | None,
        bias_lift: Tensor | None,
    ) -> None:
        """Say where the tensors are: the low-rank part, those of each term, and the two vectors."""
        self._low = low
        self._terms = terms
        self._vectors = bias, bias_lift

    def product(self, module: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return plain_call(module, x, *args, **kwargs)

    def __call__(self, x: Tensor, y: Tensor, module: Any) -> Tensor:
        bias, bias_lift = self._vectors
        if self._terms or bias_lift is not None:
            y = y + self._rest(x, y, module)
        elif bias is not None:
            y = y + bias.to(y)
        return y if self._low is None else self._low.add(x, y)

    def _rest(self, x: Tensor, y: Tensor, module: Any) -> Tensor:
        """All but the low-rank part, for the product `y` without it."""

        def linear(z: Tensor) -> Tensor:
            product = y if z is x else self.output(self.product(module, z))
            bias = self.bias(module)
            return product if bias is None else product - bias.to(product)

        pages = [page for term in self._terms for page in term]
        fetched = [page.fetch_as_is(x.device) for page in pages]
        tensors = (weight for weight, _, _ in fetched)
        terms = tuple(
            replace(term, delta=with_tensors(term.delta, tensors)) for term in self.branch.terms
        )
        bias, bias_lift = (None if v is None else v.to(x.device) for v in self._vectors)
        own_bias = None if bias_lift is None else self.original_bias(module)
        if own_bias is None:  # and a factor of none changes nothing
            bias_lift = None
        rest = Branch(
            self.branch.target, self.branch.shape, terms=terms, bias=bias, bias_lift=bias_lift
        )
        result = rest.apply(x, linear, own_bias).to(y.dtype)
        for page, (weight, other, held) in zip(pages, fetched, strict=True):
            page.release(weight, other, held)
        return result

    def bias(self, module: Any) -> Tensor | None:
        """The module's bias in the order of the branch's rows."""
        return module.bias

    def original_bias(self, module: Any) -> Tensor | None:
        """The bias that the layer was trained with, which is what a factor multiplies."""
        return self.bias(module)

    def output(self, y: Tensor) -> Tensor:
        """The module's output in the order of the branch's rows."""
        return y
