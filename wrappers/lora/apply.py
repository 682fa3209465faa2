"""Puts a stack of LoRA files on a model: what every LoRA node calls.

Each change goes one of two ways: merged into the weight by ComfyUI, or as a runtime branch beside
the layer. Everything that can go wrong goes wrong before the incoming model is cloned.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from ...lora.loader import Lora, load_lora
from ...lora.lora_set import LoraSet
from ...lora.mapping.architecture import Architecture
from .applied_loras import AppliedLora, record_loras
from .branch_set import KEY, BranchSet
from .compute_place import FACTORS_PLACE
from .merge import add_merged, adds_a_bias
from .placement import SHOWN, Placed, Placement
from .rounding import NotMeasured, Rounding, measure
from .running_model import Mode, RunningModel
from .stack_report import report
from .taken_weights import give_weights
from .uncalled import warning
from .way import NotApplied, Way, need_of

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

log = logging.getLogger(__name__)


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
        mode: `merge` into the weights, or run as a `branch`, which `auto` does too. What is no
            linear layer (norms, embeddings) is merged in every mode.
        strict: whether a tensor or module that cannot be applied is an error.

    Returns:
        The model, and the report as Markdown.

    Raises:
        ValueError: a file cannot be read (`LoraError`), is for another model, changes nothing of
            this one, or, with `strict`, holds something that cannot be applied.
    """
    placed = place_loras(model, loras, mode, strict)
    return placed.model, report(placed)


def place_loras(
    model: ModelPatcher,
    loras: Sequence[tuple[Path, float]],
    mode: Mode,
    strict: bool,
    text_encoder: bool = False,
) -> Placed:
    """As `apply_loras`, with what the report says as values.

    With `text_encoder`, what the files have for one is read along.
    """
    if not loras:
        return Placed(model)
    running = RunningModel.of(model)
    placements = [_load(path, strength, running.known, text_encoder) for path, strength in loras]
    for placement in placements:
        _place(running, placement, mode)
        _refuse(placement, strict)
    branches = _branches(model, running, placements)
    if strict and branches is not None and branches.notes:
        raise ValueError(f"{'; '.join(branches.notes)}. Switch `strict` off to apply it so.")
    patched = model.clone()
    for placement in placements:
        changes = add_merged(
            patched,
            running.architecture,
            placement.merged,
            placement.strength,
            running.base_parameter,
        )
        for module in changes:
            placement.skipped[module] = "the model has no such parameter"
    if branches is not None:
        branches.attach(patched)
        give_weights(patched)
    rounding = _rounding(model, running, placements) if mode == "merge" else None
    record_loras(patched, [AppliedLora(p.lora.path.name, p.strength, p.count) for p in placements])
    for p in placements:
        log.info("%s; %.1f ms; %s", p.lora.report.line(), p.milliseconds, p.line())
    return Placed(patched, placements, _notes(branches, running), rounding)


def _notes(branches: BranchSet | None, running: RunningModel) -> list[str]:
    if branches is None:
        return []
    size = branches.growth / 2**20
    notes = [f"the model grows by {size:.1f} MiB of low-rank factors", *branches.notes]
    if number := branches.unfused:
        notes.append(f"{number} fused operations run layer by layer, which takes longer")
    if lost := [path for path in branches.beside if path in running.uncalled]:
        notes.append(f"in the last run: {warning(lost)}")
    return notes


def _rounding(
    model: ModelPatcher, running: RunningModel, placements: Sequence[Placement]
) -> Rounding | NotMeasured | None:
    """Measure what rounding does to all that is merged, and note each file's share."""
    found = measure(model, running, [(p.merged, p.strength) for p in placements])
    if isinstance(found, Rounding):
        for placement, kept in zip(placements, found.kept, strict=True):
            placement.kept = kept
    return found


def _load(
    path: Path, strength: float, known: tuple[Architecture, ...], text_encoder: bool
) -> Placement:
    started = perf_counter()
    lora = load_lora(path, FACTORS_PLACE, known, text_encoder=text_encoder)
    return Placement(lora, strength, (perf_counter() - started) * 1000)


def _place(running: RunningModel, placement: Placement, mode: Mode) -> None:
    lora, architecture = placement.lora, running.architecture
    if lora.architecture.name != architecture.name:
        raise ValueError(
            f"{lora.path}: this LoRA is for {lora.architecture.title} and the model is a"
            f" {architecture.title}. Choose a LoRA for {architecture.title}."
        )
    for path, entries in lora.deltas.items():
        way = running.way(path, mode, need_of(entries))
        if isinstance(way, NotApplied):
            placement.skipped[path] = way.reason
        elif way is Way.MERGE and not adds_a_bias(running.module(path), entries):
            placement.merged += entries
        else:
            placement.branched[path] = entries
            placement.ranks += running.takes_ranks(path)


def _refuse(placement: Placement, strict: bool) -> None:
    name, problems = placement.lora.path, placement.problems
    if placement.count == 0:
        reasons = "; ".join(dict.fromkeys(placement.skipped.values()))
        raise ValueError(f"{name}: none of its modules can be applied to this model ({reasons}).")
    if strict and problems:
        shown = ", ".join(problems[:SHOWN])
        raise ValueError(
            f"{name}: {len(problems)} tensors or modules cannot be applied (first: {shown})."
            " Switch `strict` off to apply the rest."
        )


def _branches(
    model: ModelPatcher, running: RunningModel, placements: list[Placement]
) -> BranchSet | None:
    """The branches of these LoRAs and of those that the model runs with already."""
    if not any(placement.branched for placement in placements):
        return None
    previous = model.attachments.get(KEY)
    rows = list(previous.rows) if isinstance(previous, BranchSet) else []
    rows += [(_branched_part(p), p.strength) for p in placements if p.branched]
    stack = LoraSet(rows)
    if not stack.strengths:
        return None
    return BranchSet(tuple(rows), running.compose(stack), running, model.load_device)


def _branched_part(placement: Placement) -> Lora:
    """The LoRA with only the changes that run as branches, under a key of its own."""
    lora = placement.lora
    path, content = lora.key
    modules = hash(frozenset(placement.branched))
    return replace(lora, key=(f"{path}#{modules}", content), deltas=placement.branched)
