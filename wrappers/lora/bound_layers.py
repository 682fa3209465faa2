"""The layers of a stack, tied to the factors on a device and to the strengths of that stack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ...lora.factors.branch import Branch
from ...lora.mapping.architecture import Architecture
from ..targets.branch_layer import BranchLayer
from ..targets.low_rank import LowRankPart, OwnInput, PartOfShared, SharedInput
from .factor_store import FactorStore


class BoundLayers:
    """The layers of one stack on one device.

    All that depends on strengths is one vector, which is brought to the device once.

    Args:
        layers: by path, not yet bound.
        store: has the factors of these paths.
        device: where the model runs.
    """

    def __init__(
        self, layers: Mapping[str, BranchLayer], store: FactorStore, device: torch.device
    ) -> None:
        self.layers = layers
        self.device = device
        branches = {path: layer.branch for path, layer in layers.items()}
        vectors = _Vectors(branches, store, device)
        self._shared: list[SharedInput] = []
        low: dict[str, LowRankPart] = {}
        for group, page in store.shared.items():
            shared = SharedInput(page, vectors.of_group(group), len(group))
            self._shared.append(shared)
            start = 0
            for path in group:
                stop = start + branches[path].rank
                low[path] = PartOfShared(shared, start, stop, store.own[path])
                start = stop
        for path in store.own.keys() - low.keys():
            low[path] = OwnInput(store.own[path], vectors.of_group((path,)))
        for path, layer in layers.items():
            bias, bias_lift = vectors.of_bias(path)
            layer.bind(low.get(path), store.terms.get(path, ()), bias, bias_lift)

    def start(self) -> None:
        """Forget what a run that was broken off has left."""
        for shared in self._shared:
            shared.forget()


class _Vectors:
    """The strengths and bias changes of all layers, float32, parts of one tensor on the device."""

    def __init__(
        self, branches: Mapping[str, Branch], store: FactorStore, device: torch.device
    ) -> None:
        self._places: dict[tuple[str, ...], tuple[int, int]] = {}
        pieces: list[Tensor] = []
        at = 0
        for key, vectors in _pieces(branches, store):
            size = sum(len(vector) for vector in vectors)
            pieces += vectors
            self._places[key] = (at, at + size)
            at += size
        whole = torch.cat([piece.float() for piece in pieces]) if pieces else torch.empty(0)
        self._whole = whole.to(device)

    def of_group(self, group: tuple[str, ...]) -> Tensor:
        """The strengths of the ranks of these layers."""
        start, stop = self._places[("s", *group)]
        return self._whole[start:stop]

    def of_bias(self, path: str) -> tuple[Tensor | None, Tensor | None]:
        """What is added to the bias of a layer, and by what it is multiplied."""
        places = (self._places.get((kind, path)) for kind in ("bias", "bias_lift"))
        bias, lift = (None if place is None else self._whole[slice(*place)] for place in places)
        return bias, lift


def _pieces(
    branches: Mapping[str, Branch], store: FactorStore
) -> Iterator[tuple[tuple[str, ...], list[Tensor]]]:
    grouped = {path for group in store.shared for path in group}
    alone = [(path,) for path in store.own if path not in grouped]
    for group in (*store.shared, *alone):
        yield ("s", *group), [s for path in group if (s := branches[path].s) is not None]
    for path, branch in branches.items():
        if branch.bias is not None:
            yield ("bias", path), [branch.bias]
        if branch.bias_lift is not None:
            yield ("bias_lift", path), [branch.bias_lift]


def groups_of(branches: Mapping[str, Branch], architecture: Architecture) -> list[tuple[str, ...]]:
    """Return the layers with low-rank parts that the model calls with the same tensor.

    These are the parts of what other implementations fuse into one projection.
    """
    found: list[tuple[str, ...]] = []
    for blocks in architecture.fusions.values():
        paths = dict.fromkeys(block.module for block in blocks)
        group = tuple(path for path in paths if path in branches and branches[path].A is not None)
        if len(group) > 1 and len({branches[path].shape[1] for path in group}) == 1:
            found.append(group)
    return found
