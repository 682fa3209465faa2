"""ComfyUI as it runs on a card with dynamic VRAM, on a machine without one.

The code that runs is ComfyUI's own: `ModelPatcherDynamic`, `comfy.ops`, the loader of files, pinned
memory, and comfy-aimdo's Python. Doubles are the device (`second_device`) and aimdo's compiled
library (`aimdo_library`), which is strict: weights that are read while no page holds them, or
without a copy since the page was taken away, are an error, and so are pins that nobody gives back.

What differs from a card: everything that `second_device` says; the card has `capacity` bytes for
weights, casts and tensors, and ComfyUI is told of `RESERVE` bytes more, which it keeps for what a
model computes; pages are small, as are the models; ComfyUI still believes to be in CPU mode where
it asks for what a card can do (fp16, bf16, fp8 products).
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch

from . import second_device
from .aimdo_library import AimdoLibrary
from .card_memory import CardMemory
from .other_memory import CAST_CHUNK, PinnedMemory
from .reserved_memory import WrongUseError
from .second_device import DEVICE

MB = 1 << 20
CAPACITY, PAGE = 64 * MB, MB // 4
RESERVE = 1536 * MB
PINNABLE = 1024 * MB


class DynamicVram:
    """A card while ComfyUI runs on it.

    Attributes:
        card: its memory: budget, pages, counts.
        pinned: the host memory that it may read.
    """

    def __init__(self, capacity: int, page_size: int) -> None:
        before = second_device.allocated()  # what the traceback of a failed test holds, say
        self.card = CardMemory(
            capacity, page_size, lambda: max(0, second_device.allocated() - before)
        )
        self.pinned = PinnedMemory()
        self.library = AimdoLibrary(self.card, self.pinned)

    def check(self) -> None:
        """Check what has to be true whenever nothing runs.

        Raises:
            WrongUseError: a page is still pinned, or ComfyUI counts its pinned memory wrongly.
        """
        from comfy import model_management

        held = sum(sum(model.pins) for model in self.card.models)
        if held:
            raise WrongUseError(f"{held} pages of weights are pinned while nothing runs")
        registered = sum(self.pinned.blocks.values())
        if registered != model_management.TOTAL_PINNED_MEMORY:
            raise WrongUseError(
                f"{registered} bytes of host memory are pinned, ComfyUI counts"
                f" {model_management.TOTAL_PINNED_MEMORY}"
            )
        if self.pinned.leaks:
            raise WrongUseError("; ".join(self.pinned.leaks))


@contextmanager
def dynamic_vram(capacity: int = CAPACITY, page_size: int = PAGE) -> Iterator[DynamicVram]:
    """ComfyUI with dynamic VRAM on `DEVICE` until the end, with models unloaded before and after.

    Raises:
        WrongUseError: at the end, if memory is still pinned after everything was unloaded.
    """
    from comfy import model_management

    second_device.set_up()
    model_management.unload_all_models()
    running = DynamicVram(capacity, page_size)
    with _patched(running):
        try:
            yield running
            running.check()
        finally:
            unload_all()
        running.check()
        if running.pinned.blocks:
            raise WrongUseError("Host memory stays pinned after all models were unloaded")


def unload_all() -> None:
    """Unload every model, as ComfyUI's button does, and forget what nobody refers to."""
    from comfy import model_management

    model_management.unload_all_models()
    model_management.reset_cast_buffers()
    gc.collect()


@contextmanager
def _patched(running: DynamicVram) -> Iterator[None]:
    import comfy.float as rounding
    import comfy.memory_management as memory
    import comfy.model_management as management
    import comfy.model_patcher as patchers
    import comfy_aimdo.control
    import comfy_aimdo.host_buffer
    import comfy_aimdo.model_mmap
    import comfy_aimdo.model_vbar
    import comfy_aimdo.torch
    import comfy_aimdo.vram_buffer

    library, streams = running.library, [_Stream(1), _Stream(2)]
    changes: list[tuple[Any, str, Any]] = [
        (comfy_aimdo.control, "devctxs", [1]),
        (comfy_aimdo.torch, "get_tensor_from_raw_ptr", library.tensor),
        (comfy_aimdo.vram_buffer, "_growth_chunk_size", lambda: CAST_CHUNK),
        (rounding, "stochastic_rounding", _on_the_host(rounding.stochastic_rounding)),
        (memory, "aimdo_enabled", True),
        (patchers, "CoreModelPatcher", patchers.ModelPatcherDynamic),
        (management, "vram_state", management.VRAMState.NORMAL_VRAM),
        (management, "get_total_memory", _total(running.card, management.get_total_memory)),
        (management, "current_stream", _current(management.current_stream)),
        (management, "NUM_STREAMS", len(streams)),
        (management, "STREAMS", {DEVICE: streams}),
        (management, "stream_counters", {}),
        (management, "MAX_PINNED_MEMORY", PINNABLE),
        (management, "TOTAL_PINNED_MEMORY", 0),
        (torch.nn.Parameter, "data", second_device.PARAMETER_DATA),
        (torch.cuda, "cudart", lambda: _runtime(running.pinned)),
        (second_device, "watch", library.use),
        (second_device, "before_allocation", running.card.make_room),
    ]
    for module in ("control", "host_buffer", "model_mmap", "model_vbar", "vram_buffer"):
        changes.append((getattr(comfy_aimdo, module), "lib", library))
    undo = [patch.object(where, name, value) for where, name, value in changes]
    undo += [
        _Everywhere("get_torch_device", lambda: DEVICE),
        _Everywhere("get_free_memory", _free(running.card, management.get_free_memory)),
    ]
    for each in undo:
        each.__enter__()
    try:
        yield
    finally:
        for each in reversed(undo):
            each.__exit__(None, None, None)


class _Everywhere:
    """Another function instead of one of `model_management`, also where it was imported by name."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        import comfy.model_management

        self._name = name
        self._original = getattr(comfy.model_management, name)
        self._function = function

    def __enter__(self) -> None:
        self._replace(self._original, self._function)

    def __exit__(self, *_: object) -> None:
        self._replace(self._function, self._original)

    def _replace(self, old: Callable[..., Any], new: Callable[..., Any]) -> None:
        for module in list(sys.modules.values()):
            if getattr(module, "__dict__", {}).get(self._name) is old:
                setattr(module, self._name, new)


class _Stream:
    """A stream that has always done everything."""

    def __init__(self, number: int) -> None:
        self.cuda_stream = number  # the library copies to the device only with a stream

    def as_context(self, _: _Stream) -> Any:
        return nullcontext()

    def wait_stream(self, _: _Stream) -> None:
        pass

    def synchronize(self) -> None:
        pass


def _current(original: Callable[..., Any]) -> Callable[..., Any]:
    default = _Stream(3)
    return lambda device: default if device == DEVICE else original(device)


def _on_the_host(original: Callable[..., Any]) -> Callable[..., Any]:
    """Torch has no random numbers for a device of its open registration."""

    def stochastic_rounding(value: torch.Tensor, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
        return original(value.cpu(), dtype, seed=seed).to(value.device)

    return stochastic_rounding


def _free(card: CardMemory, original: Callable[..., Any]) -> Callable[..., Any]:
    def get_free_memory(dev: Any = None, torch_free_too: bool = False) -> Any:
        if dev is not None and dev != DEVICE:
            return original(dev, torch_free_too)
        free = RESERVE + max(0, -card.deficit())
        return (free, 0) if torch_free_too else free

    return get_free_memory


def _total(card: CardMemory, original: Callable[..., Any]) -> Callable[..., Any]:
    def get_total_memory(dev: Any = None, torch_total_too: bool = False) -> Any:
        if dev is not None and dev != DEVICE:
            return original(dev, torch_total_too)
        total = RESERVE + card.capacity
        return (total, 0) if torch_total_too else total

    return get_total_memory


def _runtime(pinned: PinnedMemory) -> SimpleNamespace:
    """What ComfyUI calls of CUDA's runtime itself."""
    return SimpleNamespace(cudaHostRegister=pinned.register, cudaHostUnregister=pinned.unregister)
