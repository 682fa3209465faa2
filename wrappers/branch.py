"""LoRAs as a runtime branch beside a linear layer: `y += ((x Aᵀ)·s) Bᵀ`.

The weight is not touched, so quantized weights lose nothing, and a changed strength is a changed
vector. While a model samples, the class of each linear layer that a stack changes is replaced by a
subclass whose `__call__` adds the branch. That keeps the module, its parameters, their names and
`isinstance` as they are; it covers a `forward` that other packs have replaced; and `torch.compile`
sees it, because its guards compare the types of modules.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP

from ..lora.branch import Branch
from ..svdquant.convert import MODULATION_CHUNKS
from ..svdquant.packing import unpack_vector
from .column_kinds import is_nunchaku_awq, is_nunchaku_svdq
from .columns import NOTHING, OPTION, Columns, Wanted
from .nunchaku import is_native
from .running_model import RunningModel
from .split import approximations

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "vivace_lora"
_LAYER = "_vivace_branch"
_COMPILED = "torch.compile"  # the key of ComfyUI's own wrapper that compiles the network


class BranchLayer:
    """The branch of one linear layer, on the device where ComfyUI wants it.

    The composed factors stay in host memory, where the composer keeps them for the next change;
    what goes to the GPU is a copy, which unloading just drops.
    """

    __slots__ = ("branch", "host")

    def __init__(self, branch: Branch) -> None:
        self.host = branch
        self.branch = branch

    def move(self, device: torch.device) -> None:
        """Bring the factors to a device; to the one they came from costs nothing."""
        home = device == device_of(self.host)
        self.branch = self.host if home else moved(self.host, device)

    def __call__(self, x: torch.Tensor, y: torch.Tensor, module: Any) -> torch.Tensor:
        """`y`, the output of `module` for `x`, with the branch added."""
        branch = self.branch
        a, b, s = branch.A, branch.B, branch.s
        if branch.terms or a is None or b is None or s is None or a.device != x.device:
            return self._add_any(x, y, module)
        inner = torch.nn.functional.linear(x, a.to(x.dtype)) * s.to(x.dtype)
        y = y + torch.nn.functional.linear(inner, b.to(x.dtype))
        return y if branch.bias is None else y + branch.bias.to(y.dtype)

    def _add_any(self, x: torch.Tensor, y: torch.Tensor, module: Any) -> torch.Tensor:
        # ComfyUI may leave a part of a model in host memory when the GPU is short of it.
        branch = self.branch
        if device_of(branch) != x.device:
            branch = moved(branch, x.device)

        def linear(z: torch.Tensor) -> torch.Tensor:
            product = y if z is x else self.output(plain_call(module, z))
            bias = self.bias(module)
            return product if bias is None else product - bias.to(product)

        return y + branch.apply(x, linear).to(y.dtype)

    def bias(self, module: Any) -> torch.Tensor | None:
        """The module's bias in the order of the branch's rows."""
        return module.bias

    def output(self, y: torch.Tensor) -> torch.Tensor:
        """The module's output in the order of the branch's rows."""
        return y


class PackedBiasLayer(BranchLayer):
    """The branch of a nunchaku layer, whose bias is stored in the order of the kernels."""

    def bias(self, module: Any) -> torch.Tensor | None:
        return None if module.bias is None else unpack_vector(module.bias.detach())


class InterleavedLayer(BranchLayer):
    """The branch of a nunchaku modulation layer, whose rows are ``[dim, 6]``, not ``[6, dim]``."""

    def bias(self, module: Any) -> torch.Tensor | None:
        return None if module.bias is None else _planar(module.bias.detach())

    def output(self, y: torch.Tensor) -> torch.Tensor:
        return _planar(y)

    def __call__(self, x: torch.Tensor, y: torch.Tensor, module: Any) -> torch.Tensor:
        changed = super().__call__(x, _planar(y), module)
        return changed.unflatten(-1, (MODULATION_CHUNKS, -1)).mT.flatten(-2)


def _planar(rows: torch.Tensor) -> torch.Tensor:
    return rows.unflatten(-1, (-1, MODULATION_CHUNKS)).mT.flatten(-2)


def layer_class(module: Any) -> type[BranchLayer]:
    """How a branch is added to the output of a module."""
    if is_nunchaku_awq(module):
        return InterleavedLayer
    return PackedBiasLayer if is_nunchaku_svdq(module) else BranchLayer


def device_of(branch: Branch) -> torch.device:
    """The device of a branch's tensors."""
    for tensor in (branch.A, branch.bias):
        if tensor is not None:
            return tensor.device
    delta: Any = branch.terms[0].delta
    while hasattr(delta, "inner"):
        delta = delta.inner
    found = (getattr(delta, name, None) for name in ("A", "A1", "w1", "diff"))
    first: Any = next(value for value in found if value is not None)
    return first[0].device if isinstance(first, tuple) else first.device


def moved(branch: Branch, device: torch.device) -> Branch:
    """The branch with every tensor on a device."""
    tensors = {
        name: None if tensor is None else tensor.to(device, non_blocking=True)
        for name, tensor in (
            ("A", branch.A),
            ("B", branch.B),
            ("s", branch.s),
            ("bias", branch.bias),
        )
    }
    terms = tuple(replace(term, delta=term.delta.to(device)) for term in branch.terms)
    return replace(branch, terms=terms, **tensors)


class BranchSet(torch.nn.Module):
    """The branches of one stack on one model; an attachment of a `ModelPatcher`.

    It is a module so that ComfyUI's memory management can move it like a model.

    Attributes:
        rows: the LoRAs and strengths that the branches were composed from.
        columns: what becomes more ranks of the model's own layers, by target.
        layers: what is added beside a module, by canonical path.
        notes: what could not be kept exactly, in words.
    """

    def __init__(
        self, rows: tuple[Any, ...], branches: Mapping[str, Branch], running: RunningModel
    ) -> None:
        super().__init__()
        self.rows = rows
        self.place = torch.device("cpu")
        self.layers: dict[str, BranchLayer] = {}
        self.notes: list[str] = []
        self._running = weakref.ref(running)
        shares = running.shares(branches)
        columns: dict[str, Branch] = {}
        for path, branch in branches.items():
            share = shares.get(path)
            if share is None:
                self.layers[path] = layer_class(running.module(path))(branch)
                continue
            if share.ranks is not None:
                columns[path] = share.ranks
            for member, rest in share.beside.items():
                self.layers[member] = layer_class(running.module(member))(rest)
        self.columns = Wanted(columns)
        running.columns.check(self.columns)
        self.notes = approximations(shares)

    @property
    def growth(self) -> int:
        """Bytes that the model grows by: ranks of its layers, and branches beside them."""
        beside = sum(layer.host.nbytes for layer in self.layers.values())
        return beside + self._of_columns(Columns.growth)

    @property
    def nbytes(self) -> int:
        """Bytes that all of it takes on the device."""
        return self.growth + self._of_columns(Columns.spare_bytes)

    def _of_columns(self, count: Callable[[Columns, str, Branch], int]) -> int:
        running = self._running()
        if running is None:
            return 0
        return sum(count(running.columns, path, branch) for path, branch in self.columns.items())

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        device = fn(torch.empty(0, device=self.place)).device
        if device != self.place:
            for layer in self.layers.values():
                layer.move(device)
            self.place = device
            running = self._running()
            if running is not None and device.type == "cpu":
                running.columns.release(self.columns)
        return self

    def attach(self, model: ModelPatcher) -> None:
        """Make `model` run with these branches, in place of those it had.

        The factors become an additional model of ComfyUI's memory management: it loads them with
        the model, counts them, and unloads them.
        """
        holder = ModelPatcher(self, model.load_device, model.offload_device, size=self.nbytes)
        model.set_attachments(KEY, self)
        options = model.model_options.setdefault("transformer_options", {})
        options[OPTION] = self.columns
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
    running.columns.reconcile(branches.columns)
    installed = model.model.diffusion_model.__dict__.setdefault(_LAYER, [])
    for path, layer in branches.layers.items():
        module: Any = running.module(path)
        installed.append(module)
        module.__class__ = with_branch(type(module))
        module.__dict__[_LAYER] = layer


def remove(model: ModelPatcher) -> None:
    """Take what may not stay off the shared modules; ComfyUI calls this after sampling, however it
    ends.

    Ranks stay for the next run where that is safe: not where compiled code would not see them
    change, nor where the patcher puts ranks of its own on the same layers.
    """
    _remove_layers(model)
    if is_native(model) or _COMPILED in model.wrappers.get(WrappersMP.APPLY_MODEL, {}):
        RunningModel.of(model).columns.reconcile(NOTHING)


def _remove_layers(model: ModelPatcher) -> None:
    # It does not matter whose they are: nothing may be left for the next patcher of the model.
    for module in model.model.diffusion_model.__dict__.pop(_LAYER, ()):
        if module.__dict__.pop(_LAYER, None) is not None:
            module.__class__ = type(module).__base__


@lru_cache(maxsize=64)
def with_branch(cls: type[torch.nn.Module]) -> type[torch.nn.Module]:
    """A subclass of a linear layer's class whose calls add the module's branch."""

    def __call__(self: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:  # noqa: N807
        y = cls.__call__(self, x, *args, **kwargs)
        return self.__dict__[_LAYER](x, y, self)

    return type(cls.__name__, (cls,), {"__call__": __call__, "__module__": cls.__module__})


def plain_call(module: Any, x: torch.Tensor) -> torch.Tensor:
    """The layer's own output, without its branch."""
    bare: Any = type(module).__base__
    return bare.__call__(module, x)
