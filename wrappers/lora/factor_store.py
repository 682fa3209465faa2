"""The factors of a stack as a model of their own, which ComfyUI loads, pages, counts and drops.

Strengths are no part of it: stacks that differ in nothing else have one store, so that a changed
strength moves no factors.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from comfy import model_patcher
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...lora.factors.branch import Branch
from ...lora.factors.tensors import tensors_of
from ..targets.paged import Paged, Reserve


@dataclass(frozen=True, eq=False)
class Factors:
    """What a store is made of.

    Attributes:
        branches: what runs beside a layer, by canonical path.
        groups: paths of layers with the same input; each layer of `branches` in one at most.
        reserved: bytes of what is appended to the model's own layers instead.
        appended: the tensors of that, of which only the identity counts.
    """

    branches: Mapping[str, Branch]
    groups: Sequence[Sequence[str]]
    reserved: int
    appended: Sequence[Tensor]

    def identity(self) -> tuple[object, ...]:
        """Equal for the same tensors at the same places, as long as they live."""
        parts: list[object] = [id(tensor) for tensor in self.appended]
        for path, branch in self.branches.items():
            parts += (path, *(id(tensor) for tensor in _tensors(branch)))
        return tuple(parts)


class FactorStore(torch.nn.Module):
    """The tensors of `Factors` in pages.

    Attributes:
        shared: the page with A ``[ΣR, in]`` of each group, by the paths of its layers.
        own: the pages of each layer by path: B, with A before it where that is not shared.
        terms: for each layer the pages of each of its terms.
        reserve: room for what is appended to the model's own layers, if there is such.
    """

    def __init__(self, factors: Factors, device: torch.device) -> None:
        super().__init__()
        self.factors = factors
        self.identity = factors.identity()
        self._first: weakref.ref[ModelPatcher] | None = None
        self.shared: dict[tuple[str, ...], Paged] = {}
        self.own: dict[str, Paged] = {}
        self.terms: dict[str, list[list[Paged]]] = {}
        for group in factors.groups:
            stacked = _stacked([_down(factors.branches[path]) for path in group])
            self.shared[tuple(group)] = Paged(stacked)
        grouped = {path for group in factors.groups for path in group}
        for path, branch in factors.branches.items():
            if branch.A is not None and branch.B is not None:
                alone = path not in grouped
                self.own[path] = Paged(branch.A, branch.B) if alone else Paged(branch.B)
            if branch.terms:
                self.terms[path] = [
                    [Paged(tensor) for tensor in tensors_of(term.delta)] for term in branch.terms
                ]
        # For named_modules, which is how ComfyUI finds what there is to load.
        self.pages = torch.nn.ModuleList(self._pages())
        self.reserve = Reserve(factors.reserved, device) if factors.reserved else None

    def _pages(self) -> Iterator[Paged]:
        yield from self.shared.values()
        yield from self.own.values()
        yield from (page for terms in self.terms.values() for term in terms for page in term)

    @property
    def nbytes(self) -> int:
        """Bytes of all factors, and of what is reserved."""
        pages = sum(tensor.nbytes for page in self.pages for tensor in page.parameters())
        return pages + self.factors.reserved

    def patcher_for(self, model: ModelPatcher) -> ModelPatcher:
        """The store as an additional model of `model`, managed in the way that `model` is.

        Stacks that share the store get clones of one patcher. ComfyUI goes on with the first when
        that of a stack which is gone was loaded; of an unrelated one it would believe that memory
        leaks, and collect garbage and empty its caches at each changed strength.
        """
        dynamic = hasattr(model, "is_dynamic") and model.is_dynamic()
        first = self._first() if self._first else None
        same = first is not None and (first.load_device, first.offload_device) == (
            model.load_device,
            model.offload_device,
        )
        if first is not None and same and type(first) is _kind(dynamic):
            return first.clone()
        made = _Maker(self, model.load_device, model.offload_device, dynamic).patcher(self)
        self._first = weakref.ref(made)
        return made


@dataclass(frozen=True, eq=False)
class _Maker:
    """Makes patchers of a store, also of copies of it for other devices."""

    store: FactorStore
    load_device: torch.device
    offload_device: torch.device
    dynamic: bool

    def patcher(self, store: FactorStore, dynamic: bool | None = None) -> ModelPatcher:
        wanted = self.dynamic if dynamic is None else dynamic
        patcher = _kind(wanted)(
            store, self.load_device, self.offload_device, size=max(store.nbytes, 1)
        )
        # With this ComfyUI makes a copy for another GPU, which has a network of its own too.
        patcher.cached_patcher_init = (self.copy, ())
        return patcher

    def copy(self, disable_dynamic: bool = False) -> ModelPatcher:
        """A patcher of a store with the same tensors, at home."""
        store = FactorStore(self.store.factors, self.load_device)
        return self.patcher(store, dynamic=self.dynamic and not disable_dynamic)


def _kind(dynamic: bool) -> type[ModelPatcher]:
    return model_patcher.CoreModelPatcher if dynamic else ModelPatcher


class Stores:
    """The stores of one model that are in use."""

    def __init__(self) -> None:
        self._alive: weakref.WeakSet[FactorStore] = weakref.WeakSet()

    def of(self, factors: Factors, device: torch.device) -> FactorStore:
        """Return the store for these tensors: one that is there, or a new one.

        `device` is where the model runs.
        """
        identity = factors.identity()
        for store in self._alive:
            if store.identity == identity:
                return store
        store = FactorStore(factors, device)
        self._alive.add(store)
        return store


def _tensors(branch: Branch) -> Iterator[Tensor]:
    yield from (tensor for tensor in (branch.A, branch.B) if tensor is not None)
    yield from (tensor for term in branch.terms for tensor in tensors_of(term.delta))


def _down(branch: Branch) -> Tensor:
    if branch.A is None:
        raise ValueError(f"{branch.target} has no low-rank part")
    return branch.A


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """Tensors ``[R, in]`` one below the other; without a copy where they lie so already."""
    first, rows = parts[0], 0
    storage = first.untyped_storage().data_ptr()
    for part in parts:
        same = part.untyped_storage().data_ptr() == storage and part.dtype == first.dtype
        expected = first.storage_offset() + rows * first.shape[1]
        if not (same and part.is_contiguous() and part.storage_offset() == expected):
            return torch.cat(list(parts))
        rows += part.shape[0]
    return first.as_strided((rows, first.shape[1]), first.stride())
