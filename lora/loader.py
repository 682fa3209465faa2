"""Loading LoRA files: one open and one read each, then from the cache until the file changes."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

import torch

from .adapters import build, non_finite
from .architecture import Architecture, standard
from .cache import ByteLru
from .delta import Delta
from .dora import Dora
from .errors import LoraModelError
from .examine import Examination, examine, remember
from .file import LoraFile, Stamp, stamp
from .metadata import header_scale
from .plan import Fault, ModulePlan, Unusable
from .report import Report

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Entry:
    """A change of rows ``start:stop`` of a module's ``"weight"`` or ``"bias"``.

    `part` names those rows where the module is fused (``q``, ``k``, ``v``), None means all rows.
    """

    module: str
    part: str | None
    parameter: str
    start: int
    stop: int
    delta: Delta | Dora


@dataclass(frozen=True, eq=False)
class Lora:
    """A loaded file. `deltas` maps canonical module paths to what changes there.

    `key` identifies the content (path, size, mtime_ns); `seconds` is how long loading took.
    """

    path: Path
    key: tuple[str, int, int]
    architecture: Architecture
    deltas: Mapping[str, tuple[Entry, ...]] = field(repr=False)
    report: Report = field(repr=False)
    nbytes: int
    seconds: float


CACHE: ByteLru[Lora] = ByteLru()


def load_lora(
    path: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    architectures: tuple[Architecture, ...] | None = None,
    cache: ByteLru[Lora] = CACHE,
) -> Lora:
    """Load a LoRA file to `device`, or return it from the cache if the file has not changed.

    Modules that cannot be applied are dropped and listed in the report. `architectures` are the
    models to recognize, the published ones unless given.

    Raises:
        LoraFileError: the file cannot be read, or changed meanwhile.
        LoraFormatError: it is not a valid safetensors (or restricted pickle) file.
        LoraModelError: it holds nothing that can be applied to a supported model.
    """
    known = architectures or standard()
    full = Path(os.path.abspath(path))  # noqa: PTH100  (Path.resolve would follow links)
    place = torch.device(device)

    content = stamp(full)

    def load() -> Lora:
        return _load(full, content, place, known)

    return cache.get_or_load((str(full), content, str(place), known), load)


def _load(
    path: Path, content: Stamp, device: torch.device, known: tuple[Architecture, ...]
) -> Lora:
    started = perf_counter()
    with LoraFile(path) as file:
        found = examine(file, known)
        architecture = found.keys.architecture
        if found.report.refusal is not None or architecture is None:
            raise LoraModelError(path, found.report.refusal or "", "Choose a LoRA for this model")
        names = {key for plan in found.plans for key in plan.keys.values()}
        alphas = {plan.keys["alpha"] for plan in found.plans if "alpha" in plan.keys}
        tensors = file.read(names, device, on_host=alphas)
        file.check_unchanged(content)
    entries, faults = _build_all(found, architecture, tensors, file)
    report = _final_report(found, faults)
    remember(path, content, known, report)
    if not entries:
        raise LoraModelError(path, _nothing_left(report), "Use another version of this LoRA")
    deltas: dict[str, list[Entry]] = {}
    for entry in entries:
        deltas.setdefault(entry.module, []).append(entry)
    lora = Lora(
        path,
        (str(path), content.size, content.mtime_ns),
        architecture,
        {module: tuple(items) for module, items in deltas.items()},
        report,
        sum(entry.delta.nbytes for entry in entries),
        perf_counter() - started,
    )
    logger.debug("%s; read in %.0f ms", report.line(), lora.seconds * 1000)
    return lora


def _build_all(
    found: Examination,
    architecture: Architecture,
    tensors: dict[str, torch.Tensor],
    file: LoraFile,
) -> tuple[list[Entry], list[Fault]]:
    header = header_scale(file.header.metadata)
    bad = non_finite(tensors)
    entries: list[Entry] = []
    faults: list[Fault] = []
    for plan in found.plans:
        try:
            if wrong := bad.intersection(plan.keys.values()):
                raise Unusable(f"{min(wrong)} holds NaN or infinity")
            entries += _place(plan, build(plan, tensors, header), architecture)
        except Unusable as error:
            faults.append(Fault(plan.target.module, plan.target.part, str(error)))
    return entries, faults


def _place(plan: ModulePlan, delta: Delta | Dora, architecture: Architecture) -> list[Entry]:
    """Cut a delta into canonical modules (a fused ``w13`` into w3 and w1, say)."""
    target = plan.target
    if target.module in architecture.modules:
        start, stop = architecture.rows(target.module, target.part)
        return [Entry(target.module, target.part, plan.parameter, start, stop, delta)]
    try:
        return [
            Entry(
                block.module,
                block.part,
                plan.parameter,
                *architecture.rows(block.module, block.part),
                delta.rows(block.start, block.stop),
            )
            for block in target.blocks
        ]
    except ValueError as error:
        raise Unusable(str(error)) from None


def _final_report(found: Examination, faults: list[Fault]) -> Report:
    if not faults:
        return found.report
    failed = {(fault.module, fault.part) for fault in faults}
    planned = {(plan.target.module, plan.target.part) for plan in found.plans}
    return replace(
        found.report,
        faults=(*found.report.faults, *faults),
        modules_matched=len(planned - failed),
    )


def _nothing_left(report: Report) -> str:
    reasons = [fault.reason for fault in report.faults] + list(report.ignored())
    first = f" (first reason: {reasons[0]})" if reasons else ""
    return f"none of its {report.modules_total} modules can be applied{first}"
