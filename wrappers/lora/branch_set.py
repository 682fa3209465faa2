"""The branches of one stack on one model, and when they are on its modules."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP

from ...lora.factors.branch import Branch
from ..targets.appended_ranks import NOTHING, OPTION, AppendedRanks, Wanted
from ..targets.branch_layer import BranchLayer
from ..targets.known_kinds import kind_of
from ..targets.layered_class import Layer, plain_call, put, take_off
from ..targets.nunchaku_fused import Unfused
from ..targets.nunchaku_offload import Offload, is_native
from ..targets.rank_shares import approximations
from .bound_layers import BoundLayers, groups_of
from .factor_store import Factors, FactorStore
from .running_model import RunningModel
from .uncalled import tell, watch_units

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "vivace_lora"
CHANGED = "_vivace_changed"  # on the network: modules that have a layer now
RUN = "_vivace_run"  # on the network: whose run this is, and the hook in front of its forwards
_COMPILED = "torch.compile"  # the key of ComfyUI's own wrapper that compiles the network


class BranchSet:
    """The branches of one stack on one model; an attachment of a `ModelPatcher`.

    Attributes:
        rows: the LoRAs and strengths that the branches were composed from.
        ranks: what becomes more ranks of the model's own layers, by target.
        beside: what is added beside a module, by canonical path.
        companions: what has to stand beside other modules, so that those of `beside` are called.
        store: the factors of `beside`, and room for `ranks`.
        notes: what could not be kept exactly, in words.
    """

    def __init__(
        self,
        rows: tuple[Any, ...],
        branches: Mapping[str, Branch],
        running: RunningModel,
        device: torch.device,
    ) -> None:
        self.rows = rows
        self.beside: dict[str, Branch] = {}
        self.companions: dict[str, Layer] = {}
        self._layers: weakref.WeakKeyDictionary[FactorStore, BoundLayers] = (
            weakref.WeakKeyDictionary()
        )
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
        self._rank_bytes = self._of_ranks(AppendedRanks.growth, running)
        spare = self._of_ranks(AppendedRanks.spare_bytes, running)
        factors = Factors(
            self.beside,
            groups_of(self.beside, running.architecture),
            self._rank_bytes + spare,
            [cast(torch.Tensor, branch.A) for branch in ranks.values()],
        )
        self.store = running.stores.of(factors, device)

    def _put_beside(self, path: str, branch: Branch, running: RunningModel) -> None:
        self.beside[path] = branch
        kind = kind_of(running.module(path))
        self.companions.update(kind.companions(path, running.module))

    @property
    def unfused(self) -> int:
        """How many fused operations run layer by layer."""
        return sum(isinstance(layer, Unfused) for layer in self.companions.values())

    @property
    def growth(self) -> int:
        """Bytes that the model grows by: ranks of its layers, and branches beside them."""
        return sum(branch.nbytes for branch in self.beside.values()) + self._rank_bytes

    def _of_ranks(
        self, count: Callable[[AppendedRanks, str, Branch], int], running: RunningModel
    ) -> int:
        return sum(count(running.ranks, path, branch) for path, branch in self.ranks.items())

    def attach(self, model: ModelPatcher) -> None:
        """Make `model` run with these branches, in place of those it had.

        The factors become an additional model of ComfyUI's memory management: it loads them with
        the model, counts them, and unloads them.
        """
        model.set_attachments(KEY, self)
        options = model.model_options.setdefault("transformer_options", {})
        options[OPTION] = self.ranks
        model.set_additional_models(KEY, [self.store.patcher_for(model)])
        for event, action in (
            (CallbacksMP.ON_PRE_RUN, install),
            (CallbacksMP.ON_CLEANUP, remove),
        ):
            model.remove_callbacks_with_key(event, KEY)
            model.add_callback_with_key(event, KEY, action)

    def detach(self, model: ModelPatcher) -> None:
        """Undo `attach`."""
        model.remove_attachments(KEY)
        model.model_options.get("transformer_options", {}).pop(OPTION, None)
        model.remove_additional_models(KEY)
        for event in (CallbacksMP.ON_PRE_RUN, CallbacksMP.ON_CLEANUP):
            model.remove_callbacks_with_key(event, KEY)

    def layers(self, model: ModelPatcher, running: RunningModel) -> Mapping[str, BranchLayer]:
        """The layers beside the modules of `model`, by path.

        They work on the factors that this patcher has loaded: one that ComfyUI has made for another
        GPU has its own.
        """
        holders = model.get_additional_models_with_key(KEY)
        store = cast(FactorStore, holders[0].model) if holders else self.store
        bound = self._layers.get(store)
        if bound is None or bound.device != model.load_device:
            made = {
                path: kind_of(running.module(path)).beside(running.module(path), branch)
                for path, branch in self.beside.items()
            }
            bound = self._layers[store] = BoundLayers(made, store, model.load_device)
        bound.start()
        return bound.layers


def install(model: ModelPatcher) -> None:
    """Put the branches of a patcher on the shared modules; ComfyUI calls this before sampling."""
    _remove_layers(model)
    branches: BranchSet = model.attachments[KEY]
    running = RunningModel.of(model)
    _take_room(branches, model, running)
    running.ranks.reconcile(branches.ranks)
    _put_layers(model)
    network: Any = model.model.diffusion_model
    _forget_run(network)
    hook = network.register_forward_pre_hook(_before_forward)
    network.__dict__[RUN] = weakref.ref(model), hook


def _before_forward(network: Any, *_: Any) -> None:
    """Take the layers off for a run of another patcher that began within this one."""
    if torch.compiler.is_compiling():
        return
    model = network.__dict__[RUN][0]()
    if model is None or getattr(model.model, "current_patcher", None) not in (None, model):
        _take_layers_off(network)
    elif CHANGED not in network.__dict__:
        _put_layers(model)


def _forget_run(network: Any) -> None:
    _, hook = network.__dict__.pop(RUN, (None, None))
    if hook is not None:
        hook.remove()


def _put_layers(model: ModelPatcher) -> None:
    branches: BranchSet = model.attachments[KEY]
    running = RunningModel.of(model)
    layers = branches.layers(model, running)
    changed = model.model.diffusion_model.__dict__.setdefault(CHANGED, [])
    for module, layer in _places({**branches.companions, **layers}, running):
        changed.append(module)
        put(module, layer)
    changed += watch_units(branches.beside, running)


def _take_room(branches: BranchSet, model: ModelPatcher, running: RunningModel) -> None:
    """Give the room that was kept for the ranks, and say how to get it back."""
    holders = model.get_additional_models_with_key(KEY)
    reserve = cast(FactorStore, holders[0].model).reserve if holders else None
    if reserve is not None:
        alive, wanted = weakref.ref(running), branches.ranks

        def release() -> None:
            model = alive()
            if model is not None:
                model.ranks.release(wanted)

        reserve.on_leave = release
        reserve.give()


def _places(layers: Mapping[str, Layer], running: RunningModel) -> Iterator[tuple[Any, Layer]]:
    """Each module that gets a layer: where blocks are offloaded, one of the copies that run."""
    copies: dict[Any, ByBlock] = {}
    for path, layer in layers.items():
        place = running.offload.copy_of(path) if running.offload else None
        if running.offload is None or place is None:
            yield running.module(path), layer
        else:
            block, module = place
            copies.setdefault(module, ByBlock(running.offload)).layers[block] = layer
    yield from copies.items()


class ByBlock:
    """The layers of a module in a copy of a block, which runs for many blocks.

    Attributes:
        seen: the blocks as which it was called.
    """

    def __init__(self, offload: Offload) -> None:
        self.layers: dict[int, Layer] = {}
        self.seen: set[int] = set()
        self._offload = offload

    def product(self, module: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.seen.add(self._offload.block)
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
    branches: BranchSet = model.attachments[KEY]
    tell(branches.beside.keys(), RunningModel.of(model))
    _forget_run(model.model.diffusion_model)
    _remove_layers(model)
    if is_native(model) or _COMPILED in model.wrappers.get(WrappersMP.APPLY_MODEL, {}):
        RunningModel.of(model).ranks.reconcile(NOTHING)


def _remove_layers(model: ModelPatcher) -> None:
    # It does not matter whose they are: nothing may be left for the next patcher of the model.
    _take_layers_off(model.model.diffusion_model)
    offload = RunningModel.of(model).offload
    for module in offload.copies() if offload else ():  # made anew while layers were on block 0
        take_off(module)


def _take_layers_off(network: torch.nn.Module) -> None:
    for module in network.__dict__.pop(CHANGED, ()):
        take_off(module)
