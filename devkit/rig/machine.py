"""The machine that something was measured on, as results state it."""

from __future__ import annotations

import os
import platform
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ...lora.files.cache import total_memory


def environment(device: str, comfyui: str) -> dict[str, Any]:
    """Versions, hardware and date, in words that do not identify the machine."""
    import safetensors
    import torch

    gpu = torch.cuda.get_device_name() if device == "cuda" else None
    return {
        "date": date.today().isoformat(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "safetensors": safetensors.__version__,
            "transformers": version("transformers"),
            "comfyui": comfyui,
        },
        "hardware": {
            "system": platform.system(),
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
            "ram_gib": round(total_memory() / 2**30, 1),
            "gpu": gpu,
        },
        "device": device,
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()} ({platform.machine()})"
    return platform.processor() or platform.machine()
