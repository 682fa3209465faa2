"""What a file's header, or an ``adapter_config.json`` beside it, says of scales and methods.

PEFT adapters carry their configuration in the header (``lora_adapter_metadata``, JSON, as diffusers
saves it) or beside the file. ``ss_network_alpha`` is no such statement: converters that fold alpha
into the factors leave it behind, and no reader uses it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import Unusable
from ..files.file_types import is_lora_file
from .name_patterns import NamePatterns, PatternError
from .peft_oft import OftSettings, read_settings
from .unsupported_methods import OFT_WITHOUT_SETTINGS

NAME = "adapter_config.json"
_MAX_BYTES = 4 * 2**20
_LARGEST = 2.0**127  # what float32 holds
_RANKS = {"ADALORA": "init_r"}
_METHODS = frozenset({"LORA", "ADALORA", "LOHA", "LOKR", "IA3", "OFT"})
# Initializations that change the base weight, so that W + BA is not what was trained.
_CHANGES_BASE = ("pissa", "olora", "loftq", "corda", "lora_ga")
# Fields that make of the same tensors something else than the methods here compute.
_NOT_COMPUTED = {
    "alora_invocation_tokens": "the adapter acts behind certain tokens only",
    "arrow_config": "it chooses among several adapters",
    "kasa_config": "it also changes the base weight",
    "layer_replication": "the model's layers are repeated",
    "target_parameters": "it adapts parameters, not layers",
    "use_bdlora": "its factors are block-diagonal",
    "use_qalora": "it pools its input",
}


@dataclass(frozen=True)
class AdapterConfig:
    """Scales and methods that a file states outside of its tensors.

    Attributes:
        source: where it stands, for messages; empty if there is none.
        method: peft's name of the method in capitals, None if not stated.
        alpha, rank: of modules without an own entry in the patterns.
        rslora, dora: whether alpha goes by the root of the rank, and whether weights are
            re-normalized.
        problem: why a scale cannot be known from it; for modules that have no alpha of their own.
        refusal: why nothing of the file can be computed.
        notes: what people should know about it.
        base_models: the class and the name of the model that was trained, as far as stated.
        oft: how peft's OFT rotates, or why that is not known.
    """

    source: str = ""
    method: str | None = None
    alpha: float | None = None
    rank: int | None = None
    alphas: NamePatterns = field(default_factory=NamePatterns)
    ranks: NamePatterns = field(default_factory=NamePatterns)
    rslora: bool = False
    dora: bool = False
    problem: str | None = None
    refusal: str | None = None
    notes: tuple[str, ...] = ()
    base_models: tuple[str, ...] = ()
    oft: OftSettings | str = OFT_WITHOUT_SETTINGS

    def check_rank(self, name: str, rank: int) -> None:
        """Compare the rank of a module's factors with the stated one.

        Raises:
            Unusable: they differ, so that alpha over rank is not known.
        """
        stated = self._rank_of(name)
        if stated is not None and stated != rank:
            raise Unusable(
                f"its factors have rank {rank}, but {self.source} says rank {stated:g}, so its"
                " scale is not known"
            )

    def scale(self, name: str, rank: int | None) -> float:
        """Return the scale of the module `name` (bare and dotted) with factors of this `rank`.

        A rank of None is that of a LoKr whose factors are both whole: peft scales it by alpha over
        the stated rank, LyCORIS not at all.

        Raises:
            Unusable: what is stated cannot be understood, or contradicts the factors.
        """
        if self.problem is not None:
            raise Unusable(self.problem)
        if rank is None:
            if self.method != "LOKR":
                return 1.0
            stated = self._rank_of(name)
            if stated is None:
                raise Unusable(
                    f"{self.source} states no rank, which the scale of peft's LoKr needs"
                )
            rank = int(stated)
        self.check_rank(name, rank)
        alpha = self.alphas.get(name)
        alpha = self.alpha if alpha is None else alpha
        if alpha is not None:
            return alpha / (math.sqrt(rank) if self.rslora else rank)
        if self.rank is not None or self.alphas or self.ranks:
            raise Unusable(
                f"{self.source} gives a rank and no lora_alpha, so the scale is not known"
            )
        return 1.0

    def adaptive_scale(self) -> float:
        """Return AdaLoRA's scale, ``lora_alpha / (init_r + 1e-5)`` (``adalora/layer.py``).

        Raises:
            Unusable: it is not stated.
        """
        if self.method != "ADALORA" or self.alpha is None or self.rank is None:
            raise Unusable(
                "is AdaLoRA, whose scale is known only from lora_alpha and init_r of its"
                f" {NAME}; put that beside the file"
            )
        return (self.alpha if self.alpha > 0 else self.rank) / (self.rank + 1e-5)

    def rotation(self) -> OftSettings:
        """Return how peft's OFT rotates.

        Raises:
            Unusable: it is not known.
        """
        if isinstance(self.oft, str):
            raise Unusable(self.problem or self.oft)
        return self.oft

    def _rank_of(self, name: str) -> float | None:
        stated = self.ranks.get(name)
        return self.rank if stated is None else stated


NONE = AdapterConfig()


def read_config(path: Path, metadata: Mapping[str, str]) -> AdapterConfig:
    """Return what is stated for a file: in its header, else beside it."""
    text = metadata.get("lora_adapter_metadata")
    if text is not None:
        return _parsed(text, "the header")
    beside = config_beside(path)
    if beside is not None:
        return _read_beside(beside)
    if path.with_name(NAME).is_file():
        note = f"{NAME} beside it is not used, as there are several LoRA files"
        return replace(_flat(metadata), notes=(note,))
    return _flat(metadata)


def config_beside(path: Path) -> Path | None:
    """Return the ``adapter_config.json`` that belongs to a LoRA file, None if there is none.

    It belongs to ``adapter_model.*``, and to any other file that is the only LoRA in its folder.
    """
    config = path.with_name(NAME)
    if not config.is_file():
        return None
    if path.stem == "adapter_model":
        return config
    try:
        with os.scandir(path.parent) as entries:
            others = sum(is_lora_file(entry.name) for entry in entries)
    except OSError:
        return None
    return config if others == 1 else None


def _read_beside(path: Path) -> AdapterConfig:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        problem = f"{NAME} beside the file cannot be read ({error.strerror})"
        return AdapterConfig(NAME, problem=problem)
    if len(data) > _MAX_BYTES:
        return AdapterConfig(NAME, problem=f"{NAME} beside the file is larger than 4 MiB")
    return _parsed(data.decode("utf-8-sig", errors="replace"), NAME)


def _parsed(text: str, source: str) -> AdapterConfig:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        what = f"{source} should give the scale as a JSON object, and does not"
        return AdapterConfig(source, problem=what)
    fields = _of_transformer(content)
    try:
        return _interpreted(fields, source)
    except PatternError as error:
        return AdapterConfig(source, problem=f"a pattern in {source}: {error}")
    except _FieldError as error:
        return AdapterConfig(source, problem=f"{source} has {error}, which cannot be a scale")


def _of_transformer(content: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the diffusion model; diffusers puts the name of each component before them."""
    prefix = "transformer."
    own = {k[len(prefix) :]: v for k, v in content.items() if k.startswith(prefix)}
    return own or {k: v for k, v in content.items() if isinstance(k, str)}


class _FieldError(ValueError):
    pass


def _interpreted(fields: Mapping[str, Any], source: str) -> AdapterConfig:
    method = fields.get("peft_type")
    method = method.upper() if isinstance(method, str) else None
    refusal = None
    if method is not None and method not in _METHODS:
        refusal = f"{source} says that it is {method} of peft, which is not computed here"
    for name, why in _NOT_COMPUTED.items():
        if fields.get(name):
            refusal = f"{source} has {name}: {why}"
    alpha = _number(fields, "lora_alpha" if "lora_alpha" in fields else "alpha")
    # In OFT, r is the number of blocks, or 0 where their size is given.
    rank = None if method == "OFT" else _number(fields, _RANKS.get(method or "", "r"))
    adaptive = method == "ADALORA"  # its rank_pattern tells which directions were kept
    return AdapterConfig(
        source=source,
        method=method,
        alpha=alpha,
        rank=None if rank is None else int(rank),
        alphas=_patterns(fields, "alpha_pattern"),
        ranks=NamePatterns() if adaptive else _patterns(fields, "rank_pattern"),
        rslora=fields.get("use_rslora") is True,
        dora=fields.get("use_dora") is True,
        refusal=refusal,
        notes=tuple(_notes(fields, source)),
        base_models=_base_models(fields),
        oft=read_settings(fields) if method == "OFT" else OFT_WITHOUT_SETTINGS,
    )


def _notes(fields: Mapping[str, Any], source: str) -> list[str]:
    found = []
    start = fields.get("init_lora_weights")
    if isinstance(start, str) and start.lower() == "eva":
        found.append(f"{source} says init_lora_weights: eva, which leaves the base weight alone")
    elif isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        found.append(
            f"{source} says init_lora_weights: {start}. That training starts from another base"
            " weight, so the base plus these factors is not the model that was trained, unless"
            " the file was converted to plain LoRA"
        )
    saved = fields.get("modules_to_save")
    if isinstance(saved, list) and saved:
        shown = ", ".join(map(str, saved[:5]))
        found.append(f"{source} says that these modules were trained in full: {shown}")
    if fields.get("fan_in_fan_out") is True:
        found.append(f"{source} says fan_in_fan_out, which means nothing for these layers")
    return found


def _base_models(fields: Mapping[str, Any]) -> tuple[str, ...]:
    mapping = fields.get("auto_mapping")
    named = mapping.get("base_model_class") if isinstance(mapping, dict) else None
    values = (named, fields.get("base_model_name_or_path"))
    return tuple(value[:200] for value in values if isinstance(value, str) and value)


def _number(fields: Mapping[str, Any], name: str) -> float | None:
    value = fields.get(name)
    if value is None:
        return None
    found = number(value)
    if found is None or (name in ("r", "init_r") and not _is_rank(found)):
        raise _FieldError(f"{name} {str(value)[:40]!r}")
    return found


def _is_rank(value: float) -> bool:
    return value >= 1 and value == int(value)


def _patterns(fields: Mapping[str, Any], name: str) -> NamePatterns:
    value = fields.get(name)
    if value is None:
        return NamePatterns()
    if not isinstance(value, dict):
        raise _FieldError(f"{name} {str(value)[:40]!r}")
    found = {}
    for pattern, one in value.items():
        figure = number(one)
        if figure is None or (name == "rank_pattern" and not _is_rank(figure)):
            raise _FieldError(f"{name} {pattern[:40]!r}: {str(one)[:40]!r}")
        found[pattern] = figure
    return NamePatterns.parse(found)


def _flat(metadata: Mapping[str, str]) -> AdapterConfig:
    """Scales that some trainers put into the header one by one."""
    alpha, rank = number(metadata.get("lora_alpha")), number(metadata.get("lora_rank"))
    if alpha is not None and rank is not None and _is_rank(rank):
        return AdapterConfig("the header", alpha=alpha, rank=int(rank))
    if "lora_alpha" in metadata and "lora_rank" in metadata:
        problem = "the header has lora_alpha and lora_rank that are no numbers of a scale"
        return AdapterConfig("the header", problem=problem)
    if "lokr" in metadata.get("networkType", "").lower():
        return AdapterConfig("the header", alpha=number(metadata.get("alpha")))
    return NONE


def number(value: object) -> float | None:
    """Return a finite number, or the text of one; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        result = float(value)
    except (ValueError, OverflowError):
        return None
    return result if abs(result) < _LARGEST else None


def json_object(text: str | None) -> dict[str, Any]:
    """Return the object of JSON text, an empty one for anything else."""
    try:
        value = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
