"""Bringing pixels to the device while it still works on the ones before, and timing that."""

from __future__ import annotations

from time import perf_counter

import torch


class Timer:
    """Milliseconds between entering and leaving, of the device's own clock on CUDA.

    Entering and leaving wait for nothing; `milliseconds` does.
    """

    def __init__(self, device: torch.device) -> None:
        self._seconds = 0.0
        self._events: tuple[torch.cuda.Event, torch.cuda.Event] | None = None
        if device.type == "cuda":
            self._events = (
                torch.cuda.Event(enable_timing=True),
                torch.cuda.Event(enable_timing=True),
            )

    def __enter__(self) -> Timer:
        if self._events is not None:
            self._events[0].record()
        self._seconds -= perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self._seconds += perf_counter()
        if self._events is not None:
            self._events[1].record()

    @property
    def milliseconds(self) -> float:
        if self._events is None:
            return self._seconds * 1000
        self._events[1].synchronize()
        return self._events[0].elapsed_time(self._events[1])


class Uploader:
    """Copies to one device; on CUDA from pinned memory and on a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def upload(self, host: torch.Tensor) -> tuple[torch.Tensor, Timer]:
        """Start a copy; what is launched on the current stream afterwards waits for it."""
        timer = Timer(self._device)
        if self._stream is None:
            with timer:
                return host.to(self._device), timer
        source = host if host.is_cuda else pinned(host)
        with torch.cuda.stream(self._stream), timer:
            tensor = source.to(self._device, non_blocking=True)
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        # Its memory belongs to the stream of the copy, which does not know who else reads it.
        tensor.record_stream(current)
        return tensor, timer


def pinned(host: torch.Tensor) -> torch.Tensor:
    """Return a tensor of main memory in pages that a GPU reads by itself; as it is without CUDA."""
    if not torch.cuda.is_available() or host.is_pinned():
        return host
    return empty_pinned(host.shape, host.dtype).copy_(host)


def empty_pinned(shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
    """Allocate main memory for copies from and to a GPU.

    Where the system locks no more pages it is ordinary memory, which makes copies slower and
    changes nothing else.
    """
    try:
        return torch.empty(shape, dtype=dtype, pin_memory=True)
    except RuntimeError:
        return torch.empty(shape, dtype=dtype)
