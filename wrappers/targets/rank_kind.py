"""Kinds of layers with a low-rank branch of their own, to which ranks can be appended.

SVDQuant layers compute ``y = Q(x) W + (x down) up + bias``. A LoRA becomes more ranks of that
branch: it costs no further operation, and is there for fused operations too, which read the
factors but never call the layer.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .weight_kind import Lookup, WeightKind

RANK_STEP = 16  # of the kernels; also bounds the number of work spaces that comfy-kitchen keeps

Scales = Tensor | float  # ``[r]``, or a number if it is the same for all ranks


class Appended(NamedTuple):
    """Appended factors at scale 1, laid out as the layers have them; an up for each module."""

    down: Tensor
    ups: list[Tensor]


class RankKind(WeightKind):
    """How the factors of one kind of layer are laid out.

    Modules come in groups that have the same input and one down factor (Q, K and V, say); most
    groups are of one. `append` and `cut` make all that is new before they change any module: where
    memory does not suffice, each has what it had.

    Attributes:
        limit: the most ranks that a layer may have, its own included; None for any number.
    """

    limit: int | None = None

    @abstractmethod
    def factors(self, module: Any) -> tuple[Tensor, Tensor]:
        """Return the down and up factor as stored; both are other tensors after any change."""

    @abstractmethod
    def rank_of(self, module: Any) -> int:
        """Return the ranks that the layer has now."""

    @abstractmethod
    def append(self, modules: Sequence[Any], down: Tensor, ups: Sequence[Tensor]) -> Appended:
        """Add ranks, down ``[r, K]`` and an up ``[N, r]`` for each module, in the layers' dtype."""

    @abstractmethod
    def rescale_down(self, module: Any, start: int, stored: Tensor, scales: Scales) -> None:
        """Write `stored` (of `append`, at scale 1) times `scales` over ranks of down."""

    @abstractmethod
    def rescale_up(self, module: Any, start: int, stored: Tensor, scales: Scales) -> None:
        """The same for up."""

    @abstractmethod
    def cut(self, modules: Sequence[Any], rank: int) -> None:
        """Leave the first `rank` ranks, bit for bit as they were."""

    @abstractmethod
    def dense(self, module: Any, rank: int, device: torch.device | None = None) -> Tensor:
        """Return the weight ``[N, K]``, float32, that a layer stands for with its first ranks.

        Rows are in the order of the architecture. It is worked out on `device`, where the layer is
        unless given.

        Raises:
            UnreadableWeightError: it cannot be read back.
        """

    def weight(self, module: Any, stored: Any) -> Tensor:
        return self.dense(module, self.rank_of(module), stored.device)

    def share_input(self, modules: Sequence[Any]) -> bool:
        """Return whether layers read their input alike, so that they can have one down factor."""
        return False

    def only_ranks(self, path: str, module: Lookup) -> bool:
        """Return whether a layer is never called, and nothing can make the model call it."""
        return False
