"""Loading a Nunchaku checkpoint against plainly reading its tensors: time, and peak memory."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ...lora.files.open_file import LoraFile
from ...lora.mapping.supported_models import qwen_image
from ...svdquant.reader import CheckpointFile
from ...svdquant.save import write_converted
from .harness import Result, Target, Timings, spread
from .memory import high_water, resident

RANK, GROUP = 32, 64
_WHY = (
    "on the CPU a permutation of small tiles costs more than reading from the page cache at memory"
    " speed; a disk of less than about 1 GB/s hides it"
)
_TARGET = Target("at most", 2)


def measure(folder: Path, blocks: int, rounds: int) -> tuple[list[Result], dict[str, Any]]:
    """Time both by turns; peaks come from processes of their own."""
    path = folder / "svdq-int4_r32-qwen-image.safetensors"
    _write(path, blocks)
    size = path.stat().st_size
    timings = Timings("cpu")
    for _ in range(rounds):
        timings.time("load", lambda: _load(path))
        timings.time("read", lambda: _read(path))
    copy = folder / "converted.safetensors"
    write_converted(copy, _load(path), {"format": "pt"})
    for _ in range(rounds):
        timings.time("load of the copy", lambda: _load(copy))
        timings.time("read again", lambda: _read(path))
    peak = _peak(path)
    case = f"Qwen-Image, {blocks} blocks, {size / 2**20:.0f} MiB"
    load = Result(case, "load / read", spread(timings.ratios("load", "read")), _TARGET)
    if load.hit is False:
        load = replace(load, reason=_WHY)
    results = [
        load,
        Result(
            case,
            "load of the converted copy / read",
            spread(timings.ratios("load of the copy", "read again")),
        ),
        Result(
            case, "load: peak host memory beyond the file, GiB", spread([(peak - size) / 2**30]),
            Target("at most", 1),
        ),
    ]  # fmt: skip
    return results, {"case": case, "milliseconds": timings.summary(), "peak_bytes": peak}


def _load(path: Path) -> dict[str, torch.Tensor]:
    with CheckpointFile(path) as file:
        return {name: tensor for piece in file.pieces() for name, tensor in piece.items()}


def _read(path: Path) -> dict[str, torch.Tensor]:
    with LoraFile(path) as file:
        return file.read(name for name in file.header.tensors if "smooth_factor_orig" not in name)


def _write(path: Path, blocks: int) -> None:
    """Random bytes in the places of a checkpoint's tensors."""
    architecture = qwen_image(blocks)
    tensors: dict[str, torch.Tensor] = {}
    inside = {block.module for parts in architecture.fusions.values() for block in parts}
    for fused in architecture.fusions:
        _svdq(tensors, fused, *architecture.target(fused).shape)
    for name, module in architecture.modules.items():
        if module.optional or name in inside:
            continue
        if module.kind != "linear" or not name.startswith("transformer_blocks"):
            for parameter in ("weight", "bias")[: 2 if module.bias else 1]:
                shape = module.shape if parameter == "weight" else module.shape[:1]
                tensors[module.parameter_name(parameter)] = _random(*shape)
        elif "_mod." in name:
            _awq(tensors, name, *module.shape)
        else:
            _svdq(tensors, name, *module.shape)
    quantization = {"method": "svdquant", "weight": {"dtype": "int4", "group_size": GROUP}}
    metadata = {"quantization_config": json.dumps({**quantization, "rank": RANK})}
    _save(path, tensors, metadata)


def _save(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    from safetensors.torch import save_file

    save_file(tensors, path, metadata)


def _random(*shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.bfloat16).normal_(0, 0.02)


def _bytes(*shape: int) -> torch.Tensor:
    return torch.randint(-128, 128, shape, dtype=torch.int8)


def _svdq(tensors: dict[str, torch.Tensor], name: str, n: int, k: int) -> None:
    tensors |= {
        f"{name}.qweight": _bytes(n, k // 2),
        f"{name}.wscales": _random(k // GROUP, n),
        f"{name}.bias": _random(n),
        f"{name}.smooth_factor": _random(k),
        f"{name}.smooth_factor_orig": _random(k),
        f"{name}.proj_down": _random(k, RANK),
        f"{name}.proj_up": _random(n, RANK),
    }


def _awq(tensors: dict[str, torch.Tensor], name: str, n: int, k: int) -> None:
    tensors |= {
        f"{name}.qweight": _bytes(n // 4, k * 2).view(torch.int32),
        f"{name}.wscales": _random(k // GROUP, n),
        f"{name}.wzeros": _random(k // GROUP, n),
        f"{name}.bias": _random(n),
    }


def _peak(path: Path) -> int:
    command = [sys.executable, "-m", f"{__package__}.checkpoint_load", str(path)]
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(finished.stdout)["peak_bytes"]


def _main(path: str) -> None:
    torch.empty(1)
    before = resident()
    kept = _load(Path(path))
    json.dump({"peak_bytes": high_water() - before, "kept": len(kept)}, sys.stdout)


if __name__ == "__main__":
    _main(*sys.argv[1:])
