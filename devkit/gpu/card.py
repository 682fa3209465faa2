"""Where claims are measured: a card, or the CPU in its place."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from .claims import NotApplicableError


@dataclass(frozen=True)
class Card:
    """A device that ComfyUI runs models on.

    Attributes:
        device: the device.
        folder: for files.
        dynamic: whether ComfyUI's VRAM is dynamic.
    """

    device: torch.device
    folder: Path
    dynamic: bool

    @property
    def dry(self) -> bool:
        """Whether there is no card, and the CPU takes its place."""
        return self.device.type == "cpu"

    @property
    def kind(self) -> str:
        """``"cpu"`` or ``"cuda"``."""
        return self.device.type

    def needs_dynamic(self) -> None:
        """Leave a claim about dynamic VRAM where there is none; a dry run goes on.

        Raises:
            NotApplicableError: there is none.
        """
        if not (self.dynamic or self.dry):
            raise NotApplicableError("dynamic VRAM is off here")

    def synchronize(self) -> None:
        """Wait until the device has done everything."""
        if not self.dry:
            torch.cuda.synchronize(self.device)

    def bytes_in_use(self) -> int:
        """Bytes of all tensors that torch has on the device now.

        On the CPU files that are cached, and what was composed of them, are among them.
        """
        gc.collect()
        if self.dry:
            return _bytes_in_host_memory()
        self.synchronize()
        return torch.cuda.memory_allocated(self.device)

    def peak_above(self, action: Callable[[], object]) -> tuple[int, int]:
        """Bytes that an action has in use at most, and those that stay, beyond those before.

        On the CPU only what stays is seen, and takes the place of both.
        """
        before = self.bytes_in_use()
        if not self.dry:
            torch.cuda.reset_peak_memory_stats(self.device)
        kept = action()
        self.synchronize()
        peak = 0 if self.dry else torch.cuda.max_memory_allocated(self.device) - before
        stays = self.bytes_in_use() - before
        del kept
        return max(peak, stays), stays

    def copied(self, action: Callable[[], object]) -> int:
        """Bytes that an action copies from host memory to the device, as torch's profiler saw."""
        activity = ProfilerActivity.CPU if self.dry else ProfilerActivity.CUDA
        with profile(activities=[activity]) as found:
            action()
            self.synchronize()
        trace = self.folder / "trace.json"
        found.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
        return sum(_bytes_of(event) for event in events if "HtoD" in str(event.get("name")))


def _bytes_of(event: Any) -> int:
    return int(event.get("args", {}).get("bytes", 0))


def _bytes_in_host_memory() -> int:
    storages: dict[int, int] = {}
    for each in gc.get_objects():
        plain = type(each) in (Tensor, torch.nn.Parameter) and type(each.data) is Tensor
        if plain and each.device.type == "cpu":
            storage = each.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())
