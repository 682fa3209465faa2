"""What is known of a LoRA without reading its tensors or asking anybody: from its header, and from
the files that other tools leave beside it."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from .examine import Identity, identity, look
from .files.sidecars import Facts, Stamps, plain, read_facts, stamps, unique
from .mapping.adapter_config import json_object, number, read_config
from .mapping.supported_models import standard
from .report import Report, printable

MAX_TAGS = 200
_TOP_TAGS = 5


@dataclass(frozen=True)
class LoraInfo:
    """Whatever is None or empty is not known.

    Attributes:
        name: the file's.
        base_model: the model it was trained on, as the trainer or a sidecar file names it.
        architecture: the supported model that it fits, by the engine's own reading.
        format: adapter families, such as "LoRA" or "DoRA LoRA + bias".
        rank, rank_lowest: the largest and the smallest rank.
        alpha: as the header states it.
        modules, modules_total: how many modules can be applied, and how many the file addresses.
        trigger_words: what to write in a prompt. The words its author names; where there are none,
            the training tags as frequent as the most frequent one.
        tags: training tags and how often each was used, the most frequent first.
        size: of the file, in bytes.
        problems: why the file cannot be applied, and which sidecar files are ignored.
        warnings: which modules cannot be applied, and what in the header contradicts the tensors.
    """

    name: str
    title: str | None
    base_model: str | None
    architecture: str | None
    format: str | None
    rank: int | None
    rank_lowest: int | None
    alpha: float | None
    modules: int
    modules_total: int
    trigger_words: tuple[str, ...]
    tags: tuple[tuple[str, int], ...]
    notes: str | None
    size: int
    problems: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON values; tags are pairs of word and count."""
        lists = {"tags": [list(pair) for pair in self.tags]}
        lists |= {
            name: list(getattr(self, name)) for name in ("trigger_words", "problems", "warnings")
        }
        return {**asdict(self), **lists}


def lora_info(path: str | os.PathLike[str]) -> LoraInfo:
    """What is known of a LoRA file. Files that have not changed since are not read again.

    Raises:
        LoraError: the LoRA file itself cannot be read or is not valid.
    """
    lora = Path(path).absolute()
    return _info(lora, identity(lora), stamps(lora))


@lru_cache(maxsize=256)
def _info(path: Path, content: Identity, beside: Stamps) -> LoraInfo:
    seen = look(path)
    metadata, report = seen.metadata, seen.report
    facts, problems = read_facts(path, beside)
    facts.append(_header_facts(metadata))
    tags = training_tags(metadata)
    lowest, highest = report.ranks or (None, _whole(metadata.get("ss_network_dim")))
    if report.refusal is not None:
        problems.insert(0, f"It fits no supported model: {report.refusal}.")
    return LoraInfo(
        name=path.name,
        title=_first(facts, "title"),
        base_model=_first(facts, "base_model"),
        architecture=_title(report),
        format=" + ".join(report.formats) or None,
        rank=highest,
        rank_lowest=lowest or highest,
        alpha=_alpha(path, metadata),
        modules=report.modules_matched,
        modules_total=report.modules_total,
        trigger_words=unique(w for f in facts for w in f.trigger_words) or _most_frequent(tags),
        tags=tags[:MAX_TAGS],
        notes=_first(facts, "notes") or _first(facts, "description"),
        size=content.file.size,
        problems=tuple(map(printable, problems)),
        warnings=tuple(map(printable, _warnings(report))),
    )


def training_tags(metadata: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    """Tags and counts of kohya's `ss_tag_frequency`, over all folders, the most frequent first."""
    folders = json_object(metadata.get("ss_tag_frequency"))
    counts: Counter[str] = Counter()
    for folder in folders.values():
        for tag, count in folder.items() if isinstance(folder, dict) else ():
            if type(count) is int and count > 0 and (text := plain(tag)):
                counts[text] += count
    return tuple(counts.most_common())


def _most_frequent(tags: tuple[tuple[str, int], ...]) -> tuple[str, ...]:
    # Whole sentences each occur once; those are captions, and no trigger words.
    most = tags[0][1] if tags else 0
    return tuple(tag for tag, count in tags if count == most)[:_TOP_TAGS] if most > 1 else ()


def _header_facts(metadata: Mapping[str, str]) -> Facts:
    def first(*names: str) -> str | None:
        return next((text for name in names if (text := plain(metadata.get(name, "")))), None)

    trained_on = first("ss_base_model_version", "modelspec.architecture", "ss_sd_model_name")

    return Facts(
        title=first("modelspec.title", "ss_output_name"),
        # The last one is often a path on the trainer's machine.
        base_model=re.split(r"[\\/]", trained_on)[-1] if trained_on else None,
        trigger_words=unique([metadata.get("modelspec.trigger_phrase", "")]),
        notes=first("ss_training_comment"),
        description=first("modelspec.description"),
    )


def _first(facts: list[Facts], field: str) -> str | None:
    return next((value for item in facts if (value := getattr(item, field))), None)


def _title(report: Report) -> str | None:
    titles = {architecture.name: architecture.title for architecture in standard()}
    return titles.get(report.architecture or "")


def _warnings(report: Report) -> list[str]:
    """A sentence for each note, and one for all modules that cannot be applied."""
    found = [f"{note[0].upper()}{note[1:]}." for note in report.notes]
    if report.faults:
        first = report.faults[0]
        found.append(
            f"{len(report.faults)} of {report.modules_total} modules are not applied, the first is"
            f" {first.module}: {first.reason}."
        )
    return found


def _alpha(path: Path, metadata: Mapping[str, str]) -> float | None:
    stated = read_config(path, metadata).alpha
    return number(metadata.get("ss_network_alpha")) if stated is None else stated


def _whole(text: str | None) -> int | None:
    value = number(text)
    return int(value) if value is not None and 0 < value < 2**31 else None
