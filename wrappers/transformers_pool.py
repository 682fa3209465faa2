"""Models of transformers in ComfyUI's memory management: shared, evicted for others, given back.

A model of transformers is not made of ComfyUI's operations, so it moves as a whole or not at all.
ComfyUI evicts it like its own models, for others, by *Unload Models*, `/free` or after an
out-of-memory error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import psutil
import torch
from comfy import model_management
from comfy.model_patcher import ModelPatcher

# A model that is evicted stays in main memory only where that leaves as much again for others.
RAM_FACTOR = 2.0


class PooledModel(Protocol):
    """A model that moves as a whole.

    Attributes:
        model: its network.
        movable: whether `to` works; otherwise it is dropped and loaded again instead.
    """

    model: torch.nn.Module
    movable: bool

    @property
    def device(self) -> torch.device: ...

    @property
    def nbytes(self) -> int: ...

    def to(self, device: torch.device) -> None: ...


Model = TypeVar("Model", bound=PooledModel)


class _Holder(torch.nn.Module):
    """What a patcher holds: it sets attributes that a model of transformers refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.network: torch.nn.Module | None = None


class PooledModelPatcher(ModelPatcher, Generic[Model]):
    """Loads a model, and unloads it, as a whole.

    On unloading, weights go to main memory if they can be moved, if that is another place than
    where they are, and if there is room; otherwise they are dropped, and read again when needed.

    Args:
        path: of the model's folder.
        read: reads the model's files, to the load device.
        size: bytes that it will take, as far as that is known before.
        on_unload: is called with the model before its weights leave the device.

    Attributes:
        local: the model; None while it is dropped.
        loads: how often its files were read.
    """

    def __init__(
        self,
        path: Path,
        read: Callable[[], Model],
        size: int,
        load_device: torch.device,
        offload_device: torch.device,
        on_unload: Callable[[Model], None],
    ) -> None:
        super().__init__(_Holder(), load_device, offload_device, size=max(size, 1))
        self.local: Model | None = None
        self.loads = 0
        self.path, self._read, self._on_unload = path, read, on_unload

    def load(
        self,
        device_to: Any = None,
        lowvram_model_memory: int = 0,
        force_patch_weights: bool = False,
        full_load: bool = False,
    ) -> None:
        """Bring all of it to a device, reading the files if it was dropped.

        Raises:
            Exception: whatever `read` raises.
        """
        device = torch.device(device_to if device_to is not None else self.load_device)
        # ComfyUI runs nodes in inference mode, whose tensors could not be moved outside of it.
        with torch.inference_mode(False):
            if self.local is None:
                self.local = self._read()
                self.model.network = self.local.model
                self.size = self.local.nbytes
                self.loads += 1
            elif self.local.device != device:
                self.local.to(device)
        self._loaded_to(device, self.size)

    def partially_load(
        self, device_to: Any, extra_memory: int = 0, force_patch_weights: bool = False
    ) -> int:
        if self.loaded_size() and self.local is not None:
            return 0
        self.load(device_to)
        return self.size

    def partially_unload(
        self, device_to: Any, memory_to_free: int = 0, force_patch_weights: bool = False
    ) -> int:
        return 0  # so ComfyUI unloads all of it

    def detach(self, unpatch_all: bool = True) -> Any:
        if unpatch_all and self.local is not None and self.loaded_size():
            self._unload(self.local)
        return self.model

    def drop(self) -> None:
        """Forget the weights."""
        if self.local is not None:
            self._on_unload(self.local)
        self.local = self.model.network = None
        self._loaded_to(self.offload_device, 0)

    def _unload(self, local: Model) -> None:
        moves = local.movable and self.offload_device != self.load_device
        if not moves or psutil.virtual_memory().available < RAM_FACTOR * self.size:
            self.drop()
            return
        self._on_unload(local)
        with torch.inference_mode(False):
            local.to(self.offload_device)
        self._loaded_to(self.offload_device, 0)

    def _loaded_to(self, device: torch.device, nbytes: int) -> None:
        self.model.device = device
        self.model.model_loaded_weight_memory = nbytes


class TransformersPool(Generic[Model]):
    """The models of all nodes of a kind: one copy for each key.

    Args:
        on_unload: is called with a model before its weights leave the device.
    """

    def __init__(self, on_unload: Callable[[Model], None] = lambda _: None) -> None:
        self.patchers: dict[Hashable, PooledModelPatcher[Model]] = {}
        self._on_unload = on_unload
        self._lock = threading.RLock()

    def obtain(
        self,
        key: Hashable,
        path: Path,
        read: Callable[[], Model],
        size: int,
        device: torch.device,
        headroom: int,
    ) -> tuple[Model, PooledModelPatcher[Model]]:
        """Return the model of a key on its device, with room for what it computes.

        Args:
            path, read, size: as `PooledModelPatcher` takes them.
            headroom: bytes beside the weights: keys and values, activations.

        Raises:
            Exception: whatever `read` raises.
        """
        with self._lock:
            patcher = self.patchers.get(key)
            if patcher is None:
                self._forget_unloaded()
                patcher = self.patchers[key] = PooledModelPatcher(
                    path,
                    read,
                    size,
                    device,
                    model_management.text_encoder_offload_device(),
                    self._on_unload,
                )
            model_management.load_models_gpu(
                [patcher], memory_required=headroom, force_full_load=True
            )
            if patcher.local is None:  # pragma: no cover - load either raises or sets it
                raise RuntimeError("ComfyUI did not load the model")
            return patcher.local, patcher

    def drop(self, patcher: PooledModelPatcher[Model]) -> None:
        """Give all memory of a model back."""
        with self._lock:
            loaded = model_management.current_loaded_models
            for index in range(len(loaded) - 1, -1, -1):
                if loaded[index].model is patcher:
                    loaded.pop(index).model_unload()
            patcher.drop()
            self.patchers = {
                key: kept for key, kept in self.patchers.items() if kept is not patcher
            }
        model_management.soft_empty_cache()

    def _forget_unloaded(self) -> None:
        """Other models that wait in main memory make room for a new one."""
        for patcher in [p for p in self.patchers.values() if not p.loaded_size()]:
            self.drop(patcher)
