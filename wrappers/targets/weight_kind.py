"""What the LoRA engine has to know of a kind of linear layer.

A kind is one file with a class, and one line in `kinds`: how its layers are told from others, what
can be done to them, what weight they stand for, and what is added beside one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from ...lora.factors.branch import Branch
from .branch_layer import BranchLayer
from .layered_class import Layer
from .used_dtype import used_dtype

Lookup = Callable[[str], Any]


class Peak(NamedTuple):
    """The row ``[1, in]`` of a weight that has its largest magnitude, and its number."""

    row: int
    values: Tensor


class Excerpt(NamedTuple):
    """Rows of a weight."""

    rows: Tensor
    peak: Peak | None = None
    """Where the rounding of any row depends on the largest number of all: the row that has it."""


class UnreadableWeightError(ValueError):
    """A layer keeps its weight in a form that cannot be read back."""


class WeightKind(ABC):
    """One kind of linear layer.

    Attributes:
        rounds: whether the weight itself is stored with fewer than 16 bits. A rotation of the
            weight (OFT) is computed only where it is not.
    """

    rounds: bool = True

    @abstractmethod
    def recognises(self, module: Any) -> bool:
        """Whether a layer is of this kind, by what it has; no package is imported for it."""

    @abstractmethod
    def weight(self, module: Any, stored: Any) -> Tensor:
        """Return the weight ``[out, in]`` that a layer stands for.

        `stored` is the parameter without patches: the module's own, or what ComfyUI has put aside,
        and it may be on another device than the module. The weight is where `stored` is.

        Raises:
            UnreadableWeightError: it cannot be read back.
        """

    def unreadable(self, module: Any) -> str | None:
        """Return why `weight` would raise, without computing anything; None if it would not."""
        return None

    def takes_merges(self, module: Any) -> bool:
        """Return whether ComfyUI can merge a change into a layer's weight."""
        return True

    def reads_rows(self, stored: Any) -> bool:
        """Return whether `excerpt` costs less for some rows than for all."""
        return True

    def excerpt(self, module: Any, stored: Any, start: int, stop: int) -> Excerpt:
        """Return rows of the weight, as `weight` does of all.

        Raises:
            UnreadableWeightError: as `weight`.
        """
        return Excerpt(self.weight(module, stored[start:stop]))

    def rounded(self, module: Any, weight: Tensor, seed: int) -> Tensor:
        """Return what ComfyUI leaves of rows of a weight that a change was added to.

        A layer that stores a weight in its own way has a method for it, which ComfyUI calls.
        `weight` may be overwritten.
        """
        from comfy.float import stochastic_rounding

        own = getattr(module, "set_weight", None)
        if own is None:
            return self.weight(module, stochastic_rounding(weight, used_dtype(module), seed))
        return self.weight(module, own(weight, seed=seed, return_weight=True))

    def refusal(self, module: Any) -> str | None:
        """Return why nothing can run beside a layer; None if it can."""
        return None

    def beside(self, module: Any, branch: Branch) -> BranchLayer:
        """Return what adds a branch to the output of a layer."""
        return BranchLayer(branch)

    def companions(self, path: str, module: Lookup) -> Mapping[str, Layer]:
        """Return what has to stand beside other modules, by path, so that a layer is called."""
        return {}
