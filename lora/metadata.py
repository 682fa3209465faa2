"""Scales that a file states in its header instead of in ``.alpha`` tensors."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .plan import Unusable


@dataclass(frozen=True)
class HeaderScale:
    """The alpha that a header gives to modules without an alpha tensor.

    PEFT adapters saved by diffusers carry ``lora_adapter_metadata`` (JSON): ``lora_alpha`` over
    the rank, or over its square root with ``use_rslora``; ``alpha_pattern`` overrides alpha by
    module name. LoKr files of some trainers carry plain ``alpha`` next to ``networkType``.
    ``ss_network_alpha`` is not used: converters that fold alpha into the factors leave it behind.
    """

    alpha: float | None = None
    rslora: bool = False
    patterns: Mapping[str, float] = field(default_factory=dict)

    def scale(self, stem: str, rank: int) -> float:
        """Return the factor for the module spelled `stem` with factors of this `rank`.

        Raises:
            Unusable: a pattern of the header is a regular expression, so alpha is unknown.
        """
        alpha = self.alpha
        for pattern, value in self.patterns.items():
            name = pattern.removeprefix("^").removesuffix("$")
            if not name.replace(".", "").replace("_", "").replace("-", "").isalnum():
                raise Unusable(f"the header's alpha_pattern {pattern!r} is a regular expression")
            if stem == name or stem.endswith(f".{name}"):
                alpha = value
                break
        if alpha is None:
            return 1.0
        return alpha / (math.sqrt(rank) if self.rslora else rank)


def header_scale(metadata: Mapping[str, str]) -> HeaderScale:
    """Read the scale information of a header; malformed values count as absent."""
    adapter = json_object(metadata.get("lora_adapter_metadata"))
    prefix = "transformer." if any(name.startswith("transformer.") for name in adapter) else ""
    alpha = number(adapter.get(f"{prefix}lora_alpha", adapter.get(f"{prefix}alpha")))
    if alpha is None and "lokr" in metadata.get("networkType", "").lower():
        alpha = number(metadata.get("alpha"))
    patterns = adapter.get(f"{prefix}alpha_pattern")
    numbers = {
        name: found
        for name, value in (patterns.items() if isinstance(patterns, dict) else ())
        if (found := number(value)) is not None
    }
    return HeaderScale(alpha, adapter.get(f"{prefix}use_rslora") is True, numbers)


def json_object(text: str | None) -> dict[str, Any]:
    """Return the object of JSON text, an empty one for anything else."""
    try:
        value = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def number(value: object) -> float | None:
    """Return a finite number, or the text of one; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        result = float(value)
    except (ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None
