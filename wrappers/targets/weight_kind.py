"""What the LoRA engine has to know of a kind of linear layer.

A kind is one file with a class, and one line in `kinds`: how its layers are told from others, what
can be done to them, what weight they stand for, and what is added beside one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ...lora.factors.branch import Branch
from .branch_layer import BranchLayer, Layer

Lookup = Callable[[str], Any]


class UnreadableWeightError(ValueError):
    """A layer keeps its weight in a form that cannot be read back."""


class WeightKind(ABC):
    """One kind of linear layer.

    Attributes:
        rounds: whether a change that is merged into the weight is rounded with it, which a dense
            weight of 16 or 32 bits is not said to do. A rotation of the weight (OFT) is computed
            where nothing is rounded only.
    """

    rounds: bool = True

    @abstractmethod
    def recognises(self, module: Any) -> bool:
        """Whether a layer is of this kind, by what it has; no package is imported for it."""

    @abstractmethod
    def weight(self, module: Any, stored: Any) -> Tensor:
        """Return the weight ``[out, in]`` that a layer stands for.

        `stored` is the parameter without patches: the module's own, or what ComfyUI has put aside.

        Raises:
            UnreadableWeightError: it cannot be read back.
        """

    def refusal(self, module: Any) -> str | None:
        """Return why nothing can run beside a layer; None if it can."""
        return None

    def beside(self, module: Any, branch: Branch) -> BranchLayer:
        """Return what adds a branch to the output of a layer."""
        return BranchLayer(branch)

    def companions(self, path: str, module: Lookup) -> Mapping[str, Layer]:
        """Return what has to stand beside other modules, by path, so that a layer is called."""
        return {}
