"""The branches of one stack on one model, and when they are on its modules."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP

from ...lora.factors.branch import Branch
from ..targets.appended_ranks import NOTHING, OPTION, AppendedRanks, Wanted
from ..targets.branch_layer import BranchLayer, Layer, plain_call, put, take_off
from ..targets.known_kinds import kind_of
from ..targets.nunchaku_fused import Unfused
from ..targets.nunchaku_offload import Offload, is_native
from ..targets.rank_shares import approximations
from .running_model import RunningModel

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "vivace_lora"
CHANGED = "_vivace_changed"  # on the network: modules that have a layer now
_COMPILED = "torch.compile"  # the key of ComfyUI's own wrapper that compiles the network


class BranchSet(torch.nn.Module):
    """The branches of one stack on one model; an attachment of a `ModelPatcher`.

    It is a module so that ComfyUI's memory management can move it like a model.

    Attributes:
        rows: the LoRAs and strengths that the branches were composed from.
        ranks: what becomes more ranks of the model's own layers, by target.
        layers: what is added beside a module, by canonical path.
        companions: what has to stand beside other modules, so that those of `layers` are called.
        notes: what could not be kept exactly, in words.
    """

    def __init__(
        self, rows: tuple[Any, ...], branches: Mapping[str, Branch], running: RunningModel
    ) -> None:
        super().__init__()
        self.rows = rows
        self.place = torch.device("cpu")
        self.layers: dict[str, BranchLayer] = {}
        self.companions: dict[str, Layer] = {}
        self.notes: list[str] = []
        self._running = weakref.ref(running)
        shares = running.shares(branches)
        ranks: dict[str, Branch] = {}
        for path, branch in branches.items():
            share = shares.get(path)
            if share is None:
                self._put_beside(path, branch, running)
                continue
            if share.ranks is not None:
                ranks[path] = share.ranks
            for member, rest in share.beside.items():
                self._put_beside(member, rest, running)
        self.ranks = Wanted(ranks)
        running.ranks.check(self.ranks)
        self.notes = approximations(shares)

    def _put_beside(self, path: str, branch: Branch, running: RunningModel) -> None:
        module = running.module(path)
        kind = kind_of(module)
        self.layers[path] = kind.beside(module, branch)
        self.companions.update(kind.companions(path, running.module))

    @property
    def unfused(self) -> int:
        """How many fused operations run layer by layer."""
        return sum(isinstance(layer, Unfused) for layer in self.companions.values())

    @property
    def growth(self) -> int:
        """Bytes that the model grows by: ranks of its layers, and branches beside them."""
        beside = sum(layer.host.nbytes for layer in self.layers.values())
        return beside + self._of_ranks(AppendedRanks.growth)

    @property
    def nbytes(self) -> int:
        """Bytes that all of it takes on the device."""
        return self.growth + self._of_ranks(AppendedRanks.spare_bytes)

    def _of_ranks(self, count: Callable[[AppendedRanks, str, Branch], int]) -> int:
        running = self._running()
        if running is None:
            return 0
        return sum(count(running.ranks, path, branch) for path, branch in self.ranks.items())

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        device = fn(torch.empty(0, device=self.place)).device
        if device != self.place:
            self._move(device)
            self.place = device
            running = self._running()
            if running is not None and device.type == "cpu":
                running.ranks.release(self.ranks)
        return self

    def _move(self, device: torch.device) -> None:
        """Move all layers or none: what half of a failed move left there, nobody would fetch."""
        before = [(layer, layer.branch) for layer in self.layers.values()]
        try:
            for layer in self.layers.values():
                layer.move(device)
        except BaseException:
            for layer, branch in before:
                layer.branch = branch
            raise

    def attach(self, model: ModelPatcher) -> None:
        """Make `model` run with these branches, in place of those it had.

        The factors become an additional model of ComfyUI's memory management: it loads them with
        the model, counts them, and unloads them.
        """
        holder = ModelPatcher(self, model.load_device, model.offload_device, size=self.nbytes)
        model.set_attachments(KEY, self)
        options = model.model_options.setdefault("transformer_options", {})
        options[OPTION] = self.ranks
        model.set_additional_models(KEY, [holder])
        for event, action in (
            (CallbacksMP.ON_PRE_RUN, install),
            (CallbacksMP.ON_CLEANUP, remove),
        ):
            model.remove_callbacks_with_key(event, KEY)
            model.add_callback_with_key(event, KEY, action)


def install(model: ModelPatcher) -> None:
    """Put the branches of a patcher on the shared modules; ComfyUI calls this before sampling."""
    _remove_layers(model)
    branches: BranchSet = model.attachments[KEY]
    running = RunningModel.of(model)
    running.ranks.reconcile(branches.ranks)
    changed = model.model.diffusion_model.__dict__.setdefault(CHANGED, [])
    for module, layer in _places(branches, running):
        changed.append(module)
        put(module, layer)


def _places(branches: BranchSet, running: RunningModel) -> Iterator[tuple[Any, Layer]]:
    """Each module that gets a layer: where blocks are offloaded, one of the copies that run."""
    copies: dict[Any, ByBlock] = {}
    for path, layer in {**branches.companions, **branches.layers}.items():
        place = running.offload.copy_of(path) if running.offload else None
        if running.offload is None or place is None:
            yield running.module(path), layer
        else:
            block, module = place
            copies.setdefault(module, ByBlock(running.offload)).layers[block] = layer
    yield from copies.items()


class ByBlock:
    """The layers of a module in a copy of a block, which runs for many blocks."""

    def __init__(self, offload: Offload) -> None:
        self.layers: dict[int, Layer] = {}
        self._offload = offload

    def product(self, module: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        layer = self.layers.get(self._offload.block)
        return (plain_call if layer is None else layer.product)(module, x, *args, **kwargs)

    def __call__(self, x: torch.Tensor, y: torch.Tensor, module: Any) -> torch.Tensor:
        layer = self.layers.get(self._offload.block)
        return y if layer is None else layer(x, y, module)


def remove(model: ModelPatcher) -> None:
    """Take what may not stay off the shared modules; ComfyUI calls this after sampling, however it
    ends.

    Ranks stay for the next run where that is safe: not where compiled code would not see them
    change, nor where the patcher puts ranks of its own on the same layers.
    """
    _remove_layers(model)
    if is_native(model) or _COMPILED in model.wrappers.get(WrappersMP.APPLY_MODEL, {}):
        RunningModel.of(model).ranks.reconcile(NOTHING)


def _remove_layers(model: ModelPatcher) -> None:
    # It does not matter whose they are: nothing may be left for the next patcher of the model.
    for module in model.model.diffusion_model.__dict__.pop(CHANGED, ()):
        take_off(module)
    offload = RunningModel.of(model).offload
    for module in offload.copies() if offload else ():  # made anew while layers were on block 0
        take_off(module)
