"""Loading LoRA files: one open and one read each, then from the cache until the file changes."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

import torch

from ..byte_lru import ByteLru
from .errors import LoraModelError, Unusable
from .examine import (
    Examination,
    Identity,
    Seen,
    applied_bytes,
    examine,
    formats_of,
    identity,
    ranks_of,
    remember,
    settled,
)
from .factors.adapters import build
from .factors.delta import Delta
from .factors.dora import Dora
from .factors.finite import FiniteCheck
from .factors.module_plan import Fault, GroupPlan, ModulePlan
from .factors.weight_relative import Relative
from .file_report import Report
from .files.cache import default_limit
from .files.header import TensorInfo
from .files.open_file import LoraFile
from .mapping.architecture import Architecture
from .mapping.key_map import IGNORED
from .mapping.supported_models import standard
from .repeated_modules import Rival, settle
from .text_encoder_part import keep_text_encoder, text_encoder_names

logger = logging.getLogger(__name__)

# What identifies the content of a loaded file: its path, and its identity.
LoraKey = tuple[str, Identity]


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
    delta: Delta | Dora | Relative


@dataclass(frozen=True, eq=False)
class Lora:
    """A loaded file. `deltas` maps canonical module paths to what changes there.

    `key` identifies the content; `seconds` is how long loading took.
    """

    path: Path
    key: LoraKey
    architecture: Architecture
    deltas: Mapping[str, tuple[Entry, ...]] = field(repr=False)
    report: Report = field(repr=False)
    nbytes: int
    seconds: float


CACHE: ByteLru[Lora] = ByteLru(default_limit)


def load_lora(
    path: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    architectures: tuple[Architecture, ...] | None = None,
    cache: ByteLru[Lora] = CACHE,
    text_encoder: bool = False,
) -> Lora:
    """Load a LoRA file to `device`, or return it from the cache if the file has not changed.

    Modules that cannot be applied are dropped and listed in the report. `architectures` are the
    models to recognize, the published ones unless given. With `text_encoder`, what the file has for
    a text encoder is read along, for `text_encoder.read_text_encoder`.

    Raises:
        LoraFileError: the file cannot be read, or changed meanwhile.
        LoraFormatError: it is not a valid safetensors (or restricted pickle) file.
        LoraModelError: it holds nothing that can be applied to a supported model.
    """
    known = architectures or standard()
    full = Path(os.path.abspath(path))  # noqa: PTH100  (Path.resolve would follow links)
    place = torch.device(device)
    content = identity(full)

    def load() -> Lora:
        return _load(full, content, place, known, text_encoder)

    return cache.get_or_load((str(full), content, str(place), known), load)


def _load(
    path: Path,
    content: Identity,
    device: torch.device,
    known: tuple[Architecture, ...],
    text_encoder: bool,
) -> Lora:
    started = perf_counter()
    with LoraFile(path) as file:
        found = examine(file, known)
        metadata = file.header.metadata
        architecture = found.keys.architecture
        if found.report.refusal is not None or architecture is None:
            remember(path, content, known, Seen(found.report, metadata))
            raise LoraModelError(path, found.report.refusal or "", "Choose a LoRA for this model")
        plans = found.plans.plans
        names = {key for plan in plans for key in plan.keys.values()}
        small = {plan.keys[role] for plan in plans for role in _ON_HOST & plan.keys.keys()}
        check = FiniteCheck()
        tensors = file.read(names, device, on_host=small, watch=check.watch)
        if text_encoder:
            keep_text_encoder(path, content, file, text_encoder_names(found.report))
        file.check_unchanged(content.file)
    built = _Built(found, architecture, tensors, check.non_finite(tensors))
    report = built.report(file.header.tensors)
    remember(path, content, known, Seen(report, metadata))
    if not built.entries:
        raise LoraModelError(path, _nothing_left(report), "Use another version of this LoRA")
    deltas: dict[str, list[Entry]] = {}
    for entry in built.entries:
        deltas.setdefault(entry.module, []).append(entry)
    lora = Lora(
        path,
        (str(path), content),
        architecture,
        {module: tuple(items) for module, items in deltas.items()},
        report,
        sum(entry.delta.nbytes for entry in built.entries),
        perf_counter() - started,
    )
    logger.debug("%s; read in %.0f ms", report.line(), lora.seconds * 1000)
    return lora


# Scalars, which would cost a synchronization each if they were read back from a device.
_ON_HOST = {"alpha", "scaling", "on_input"}


class _Built:
    """The changes that a file makes, and what came to light when they were built.

    Args:
        bad: names of tensors that hold NaN or infinity.

    Attributes:
        entries: what is applied.
        faults: modules that are not, beside those that the header told of.
        refused, repeated: why tensors are not applied, by name; `repeated` are those that say the
            same as others.
    """

    def __init__(
        self,
        found: Examination,
        architecture: Architecture,
        tensors: dict[str, torch.Tensor],
        bad: set[str],
    ) -> None:
        self.entries: list[Entry] = []
        self.faults: list[Fault] = []
        self.refused: dict[str, str] = {}
        self.repeated: dict[str, str] = {}
        self._found = found
        self._architecture = architecture
        self._tensors = tensors
        self._bad = bad
        self._groups: list[GroupPlan] = []
        rivals = {id(group) for together in found.plans.rivals for group in together}
        for group in found.plans.groups:
            if id(group) not in rivals:
                self._add((group,))
        for together in found.plans.rivals:
            self._add(together)

    def _add(self, groups: tuple[GroupPlan, ...]) -> None:
        """Build groups that cover the same rows, all of them or none."""
        try:
            built = [Rival(group.stem, tuple(self._entries(group))) for group in groups]
            kept, dropped = (built, []) if len(built) == 1 else settle(built)
        except Unusable as error:
            for group in groups:
                self.faults.append(Fault(group.target.module, group.target.part, str(error)))
                self.refused.update(dict.fromkeys(group.keys, str(error)))
            return
        by_rival = dict(zip(map(id, built), groups, strict=True))
        for rival, reason in dropped:
            self.repeated.update(dict.fromkeys(by_rival[id(rival)].keys, reason))
        for rival in kept:
            self.entries += rival.entries
            self._groups.append(by_rival[id(rival)])

    def _entries(self, group: GroupPlan) -> list[Entry]:
        found: list[Entry] = []
        for plan in group.plans:
            if wrong := self._bad.intersection(plan.keys.values()):
                raise Unusable(f"{min(wrong)} holds NaN or infinity")
            delta = build(plan, self._tensors)
            found += _place(plan, delta, self._architecture)
        return found

    def report(self, infos: Mapping[str, TensorInfo]) -> Report:
        """The report of the header, with what was found since."""
        known = self._found.report
        if not self.faults and not self.repeated:
            return known
        keys = (settled(entry, self.refused) for entry in known.keys)
        used = {key for group in self._groups for key in group.keys}
        repeated = {key: why for key, why in self.repeated.items() if key not in used}
        keys = tuple(settled(entry, repeated, IGNORED) for entry in keys)
        plans = tuple(plan for group in self._groups for plan in group.plans)
        return replace(
            known,
            keys=keys,
            faults=(*known.faults, *self.faults),
            formats=formats_of(plans),
            ranks=ranks_of(plans),
            modules_matched=len({(g.target.module, g.target.part) for g in self._groups}),
            nbytes=applied_bytes(plans, infos),
        )


def _place(
    plan: ModulePlan, delta: Delta | Dora | Relative, architecture: Architecture
) -> list[Entry]:
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


def _nothing_left(report: Report) -> str:
    reasons = [fault.reason for fault in report.faults] + list(report.ignored())
    first = f" (first reason: {reasons[0]})" if reasons else ""
    return f"none of its {report.modules_total} modules can be applied{first}"
