"""The difference of two checkpoints as a LoRA, module by module."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..errors import Unusable
from ..factors.delta import Dense
from ..files.writer import TensorWriter
from ..mapping.architecture import Architecture
from .checkpoint import PLAIN, ModelCheckpoint
from .derived_file import MARK, Made, Step, summary
from .errors import ToolError
from .leading_singular_values import reduce
from .lower_rank import Limit
from .name_styles import names, parts
from .unit_tensors import Encoded, encode, factors
from .units import Unit, UnitPiece, dense

_SUFFIXES = ("lora_down.weight", "lora_up.weight", "lora_A.weight", "lora_B.weight")
_SUFFIXES += ("alpha", "diff", "diff_b")


def extract(
    tuned: ModelCheckpoint,
    base: ModelCheckpoint,
    output: Path,
    *,
    limit: Limit,
    style: str = "comfyui",
    dtype: torch.dtype | None = None,
    linear_only: bool = False,
    device: str = "cpu",
    step: Step = lambda amount, text: None,
) -> Made:
    """Write what was changed from `base` to `tuned`: linear layers at a lower rank, the rest whole.

    Both may be named as ComfyUI or diffusers do, fused or not. The weights of one module are in
    memory at a time. `linear_only` leaves out norms, biases and tokens.

    Raises:
        LoraError: the checkpoints are of different models or sizes, are quantized, or are equal;
            or a change has no form in the style.
        OSError: the file cannot be written. Nothing is left behind.
    """
    model = base.architecture
    _check(tuned, base)
    pairs = [(m, p) for m in model.modules if m in base.present for p in parts(style, model, m)]
    every = [names(style, model, *pair).of(suffix) for pair in pairs for suffix in _SUFFIXES]
    told: dict[str, object] = {
        "tool": "extract",
        "sources": [{"file": c.path.name, "bytes": c.nbytes} for c in (tuned, base)],
        **{name: value for name, value in vars(limit).items() if value is not None},
    }
    done: list[Encoded] = []
    with TensorWriter(output, every, {"format": "pt", MARK: json.dumps(told)}) as file:
        for module, part in pairs:
            unit = _difference(tuned, base, module, part, linear_only, device)
            try:
                item = None if unit is None else _encode(unit, model, style, limit, dtype)
            except Unusable as error:
                remedy = "Choose another format, or --linear-only"
                raise ToolError(output, f"cannot be made: {error}", remedy) from None
            step(1 / len(pairs), module)
            if item is not None:
                for name, tensor in item.tensors.items():
                    file.add(name, tensor)
                done.append(replace(item, unit=Unit(module, part, ()), tensors={}))
        if not done:
            raise ToolError(tuned.path, f"is equal to {base.path.name}", "Choose other checkpoints")
        made = summary(done, output, model, style, (), file.nbytes)
        told["relative_error"] = float(f"{made.error:.3g}")
        file.metadata[MARK] = json.dumps(told)
    return made


def _check(tuned: ModelCheckpoint, base: ModelCheckpoint) -> None:
    """Raise unless both are whole, unquantized models of the same kind and size."""
    model = base.architecture
    if tuned.architecture is not model:
        problem = f"is {tuned.architecture.title}, but {base.path.name} is {model.title}"
        raise ToolError(tuned.path, problem, "Choose checkpoints of one model")
    for checkpoint, other in ((tuned, base), (base, tuned)):
        for module in model.modules:
            if module not in other.present:
                continue
            if module not in checkpoint.present:
                problem = f"has no {module}, but {other.path.name} has"
                raise ToolError(checkpoint.path, problem, "Choose checkpoints of one model")
            stored = checkpoint.parameters.get((module, "weight"), [])
            if not stored or any(one.info.dtype not in PLAIN for one in stored):
                problem = f"{module} is quantized"
                raise ToolError(checkpoint.path, problem, "Choose the bf16 or float16 version")


def _difference(
    tuned: ModelCheckpoint,
    base: ModelCheckpoint,
    module: str,
    part: str | None,
    linear_only: bool,
    device: str,
) -> Unit | None:
    """What was changed of a module, or of a part of it; None if nothing was."""
    model = base.architecture
    known = model.modules[module]
    if linear_only and known.kind != "linear":
        return None
    start, stop = model.rows(module, part)
    unit = Unit(module, part, (stop - start, *known.shape[1:]))
    for parameter, pieces in (("weight", unit.weight), ("bias", unit.bias)):
        if parameter == "bias" and (linear_only or (module, parameter) not in base.parameters):
            continue
        after = _read(tuned, module, parameter, device)[start:stop]
        change = after.float() - _read(base, module, parameter, device)[start:stop].float()
        if bool(change.count_nonzero()):
            pieces.append(UnitPiece(Dense(change), 0, stop - start))
    return unit if unit.weight or unit.bias else None


def _read(checkpoint: ModelCheckpoint, module: str, parameter: str, device: str) -> Tensor:
    """A parameter, put together if it is stored in several tensors."""
    known = checkpoint.architecture.modules[module]
    shape = known.shape if parameter == "weight" else known.shape[:1]
    rows: list[Tensor] = []
    found = checkpoint.parameters.get((module, parameter), [])
    for stored in sorted(found, key=lambda one: one.start):
        tensor = stored.file.read([stored.name], device)[stored.name]
        rows.append(tensor[stored.first : stored.first + stored.stop - stored.start])
    if not rows or (sum(map(len, rows)), *rows[0].shape[1:]) != shape:
        problem = f"{module}.{parameter} is not of the shape {list(shape)} that this model has"
        raise ToolError(checkpoint.path, problem, "Choose an unquantized checkpoint of the model")
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def _encode(
    unit: Unit, model: Architecture, style: str, limit: Limit, dtype: torch.dtype | None
) -> Encoded:
    linear = model.modules[unit.module].kind == "linear"
    if not linear or not unit.weight:
        return encode(unit, model, style, None, dtype)
    weight, unit.weight = unit.weight, []
    rest = encode(unit, model, style, None, dtype)
    change = dense(replace(unit, weight=weight), torch.float32)
    best = reduce(change, limit).to(dtype=torch.float32)
    return factors(unit, change, best, model, style, dtype, rest.tensors)
