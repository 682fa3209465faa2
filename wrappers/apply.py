"""Puts a stack of LoRA files on a model: what every LoRA node calls.

Each change goes one of two ways: merged into the weight by ComfyUI, or as a runtime branch beside
the layer. Everything that can go wrong goes wrong before the incoming model is cloned.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Literal, cast

import torch

from ..lora.architecture import Architecture
from ..lora.compose import Composer
from ..lora.dora import Dora
from ..lora.loader import Entry, Lora, load_lora
from ..lora.report import markdown
from ..lora.stack import LoraStack
from .branch import KEY, BranchSet
from .merge import add_merged
from .running_model import architecture_of, base_weight, is_quantized, known_to_files, module_at

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

log = logging.getLogger(__name__)

Mode = Literal["auto", "merge", "branch"]
_SHOWN = 5

# One composer per running model: a change of the stack then costs what has changed.
_composers: weakref.WeakKeyDictionary[torch.nn.Module, Composer] = weakref.WeakKeyDictionary()


@dataclass
class Placement:
    """How the changes of one file go onto one model."""

    lora: Lora
    strength: float
    milliseconds: float
    """What loading took: reading the file, or finding it in the cache."""
    merged: list[Entry] = field(default_factory=list)
    branched: dict[str, list[Entry]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    """Modules that this model cannot take, with the reason."""

    @property
    def count(self) -> int:
        """Number of modules that are changed."""
        return len({entry.module for entry in self.merged} | self.branched.keys())

    def line(self) -> str:
        """What happens to the model, in one line."""
        merged = len({entry.module for entry in self.merged} - self.branched.keys())
        text = f"strength {self.strength:g}: {merged} modules merged"
        text += f", {len(self.branched)} as a runtime branch"
        if self.skipped:
            first = list(self.skipped.items())[:_SHOWN]
            more = len(self.skipped) - len(first)
            text += f", {len(self.skipped)} not in this model or refused: "
            text += "; ".join(f"{module} ({reason})" for module, reason in first)
            text += f" and {more} more" if more else ""
        return text


def apply_loras(
    model: ModelPatcher,
    loras: Sequence[tuple[Path, float]],
    mode: Mode = "auto",
    strict: bool = False,
) -> tuple[ModelPatcher, str]:
    """A clone of `model` with a stack of LoRAs, or `model` itself when there are none.

    Args:
        model: the model, which is not changed.
        loras: file and strength of each.
        mode: `merge` into the weights, run as a `branch`, or `auto`: branch where merging would
            round a quantized weight, merge elsewhere.
        strict: whether a tensor or module that cannot be applied is an error.

    Returns:
        The model, and the report as Markdown.

    Raises:
        ValueError: a file cannot be read (`LoraError`), is for another model, changes nothing of
            this one, or, with `strict`, holds something that cannot be applied.
    """
    if not loras:
        return model, "No LoRA is on."
    architecture = architecture_of(model)
    known = known_to_files(architecture)
    placements = [_load(path, strength, known) for path, strength in loras]
    for placement in placements:
        _place(model, architecture, placement, mode)
    for placement in placements:
        _refuse(placement, strict)
    branches = _branches(model, architecture, placements)
    patched = model.clone()
    for placement in placements:
        for module in add_merged(patched, architecture, placement.merged, placement.strength):
            placement.skipped[module] = "the model has no such parameter"
    if branches is not None:
        branches.attach(patched)
    for p in placements:
        log.info("%s; %.1f ms; %s", p.lora.report.line(), p.milliseconds, p.line())
    return patched, _report(placements)


def _load(path: Path, strength: float, known: tuple[Architecture, ...]) -> Placement:
    started = perf_counter()
    lora = load_lora(path, "cpu", known)
    return Placement(lora, strength, (perf_counter() - started) * 1000)


def _place(
    model: ModelPatcher, architecture: Architecture, placement: Placement, mode: Mode
) -> None:
    lora = placement.lora
    if lora.architecture.name != architecture.name:
        raise ValueError(
            f"{lora.path}: this LoRA is for {lora.architecture.title} and the model is a"
            f" {architecture.title}. Choose a LoRA for {architecture.title}."
        )
    for path, entries in lora.deltas.items():
        module = architecture.modules.get(path)
        running = None if module is None else module_at(model, path)
        if module is None or (running is None and module.kind != "parameter"):
            placement.skipped[path] = "not in this model"
        elif running is None or module.kind != "linear":
            placement.merged += entries
        elif mode == "branch" or (mode == "auto" and is_quantized(running)):
            if (problem := _branch_problem(model, path, running, entries)) is None:
                placement.branched[path] = list(entries)
            else:
                placement.skipped[path] = problem
        else:
            placement.merged += entries


def _branch_problem(
    model: ModelPatcher, path: str, module: torch.nn.Module, entries: Sequence[Entry]
) -> str | None:
    if not hasattr(module, "weight"):
        return f"a {type(module).__name__} takes no LoRA here"
    if any(isinstance(entry.delta, Dora) for entry in entries):
        try:
            base_weight(model.model, model.backup, path)
        except ValueError as error:
            return str(error)
    return None


def _refuse(placement: Placement, strict: bool) -> None:
    name, report = placement.lora.path, placement.lora.report
    if placement.count == 0:
        reasons = "; ".join(dict.fromkeys(placement.skipped.values()))
        raise ValueError(f"{name}: none of its modules can be applied to this model ({reasons}).")
    unmatched = report.names("unmatched")
    problems = [*unmatched, *(fault.module for fault in report.faults), *placement.skipped]
    if strict and problems:
        shown = ", ".join(problems[:_SHOWN])
        raise ValueError(
            f"{name}: {len(problems)} tensors or modules cannot be applied (first: {shown})."
            " Switch `strict` off to apply the rest."
        )


def _branches(
    model: ModelPatcher, architecture: Architecture, placements: list[Placement]
) -> BranchSet | None:
    """The branches of these LoRAs and of those that the model runs with already."""
    previous = model.attachments.get(KEY)
    rows = list(previous.rows) if isinstance(previous, BranchSet) else []
    rows += [(_branched_part(p), p.strength) for p in placements if p.branched]
    if not any(placement.branched for placement in placements):
        return None
    branches = _composer(model, architecture).compose(LoraStack(rows))
    return BranchSet(tuple(rows), branches)


def _composer(model: ModelPatcher, architecture: Architecture) -> Composer:
    composer = _composers.get(model.model)
    if composer is None:
        # The composer lives as long as the model, so it must not keep the model alive.
        network, backup = weakref.ref(model.model), model.backup

        def weights(path: str) -> torch.Tensor:
            return base_weight(cast(torch.nn.Module, network()), backup, path)

        composer = Composer(architecture, dtype=_compute_dtype(model), weights=weights)
        _composers[model.model] = composer
    return composer


def _branched_part(placement: Placement) -> Lora:
    """The LoRA with only the changes that run as branches, under a key of its own."""
    lora = placement.lora
    path, size, mtime_ns = lora.key
    modules = hash(frozenset(placement.branched))
    deltas = {path: tuple(entries) for path, entries in placement.branched.items()}
    return replace(lora, key=(f"{path}#{modules}", size, mtime_ns), deltas=deltas)


def _compute_dtype(model: ModelPatcher) -> torch.dtype:
    manual = getattr(model.model, "manual_cast_dtype", None)
    dtype = manual or model.model.get_dtype()
    return dtype if dtype in (torch.float16, torch.bfloat16) else torch.float32


def _report(placements: list[Placement]) -> str:
    lines = [f"- `{p.lora.path.name}` in {p.milliseconds:.1f} ms, {p.line()}" for p in placements]
    return "\n".join([markdown(p.lora.report for p in placements), "", *lines])
