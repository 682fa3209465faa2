"""What a soak found, as JSON and in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .fresh import Checkpoint
from .runner import Record
from .trend import MB, Trend
from .watch import Sample

KEPT_SAMPLES = 100
# Few samples cannot rule growth out: shorter runs find what grows, and prove no more.
PROOF = 500
BYTES = ("rss", "own_memory", "tensor_bytes", "lora_bytes", "image_bytes", "prompt_bytes")


def report(
    record: Record,
    samples: Sequence[Sample],
    trends: Mapping[str, Trend],
    checkpoints: Sequence[Checkpoint],
    unequal: Sequence[str],
) -> dict[str, Any]:
    """Everything that is known of a run, as plain tables."""
    thin = max(1, -(-len(samples) // KEPT_SAMPLES))
    return {
        "prompts": record.prompts,
        "kinds": dict(sorted(record.kinds.items())),
        "fates": dict(sorted(record.fates.items())),
        "repeated": record.repeated,
        "unexpected": record.unexpected,
        "checkpoints": len(checkpoints),
        "unequal": list(unequal),
        "trends": {name: _trend(found) for name, found in trends.items()},
        "samples": [{"prompts": one.prompts, **one.values} for one in samples[::thin]],
    }


def _trend(found: Trend) -> dict[str, Any]:
    figures = {
        "mean": found.mean,
        "slope": found.slope,
        "low": found.low,
        "high": found.high,
        "growth": found.growth,
        "allowed": found.allowed,
    }
    short = {name: float(f"{value:.4g}") for name, value in figures.items()}
    return {**short, "span": found.span, "verdict": found.verdict}


def faults(found: Mapping[str, Any]) -> list[str]:
    """Why a soak is not passed, a line each; empty if it is.

    From `PROOF` prompts on, a series has to be flat beyond doubt.
    """
    proves = found["prompts"] >= PROOF
    grown = [
        f"{name} is not flat but {trend['verdict']}: {line(name, trend)}"
        for name, trend in found["trends"].items()
        if trend["verdict"] == "grows" or (trend["verdict"] != "flat" and proves)
    ]
    return [*found["unexpected"], *found["unequal"], *grown]


def line(name: str, trend: Mapping[str, Any]) -> str:
    """A trend in words."""
    growth, low, high, allowed, mean = (
        figure(name, value)
        for value in (
            trend["growth"],
            trend["low"] * trend["span"],
            trend["high"] * trend["span"],
            trend["allowed"],
            trend["mean"],
        )
    )
    return f"{growth} ({low} .. {high}) of {mean} in {trend['span']} prompts; {allowed} is allowed"


def figure(name: str, value: float) -> str:
    """A value with its unit."""
    return f"{value / MB:.1f} MB" if name in BYTES else f"{value:.4g}"


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The outcome for a terminal."""
    for title in ("kinds", "fates"):
        yield f"{title}: " + ", ".join(f"{name} {count}" for name, count in found[title].items())
    for name, trend in found["trends"].items():
        yield f"{name:>14}: {trend['verdict']:8} {line(name, trend)}"
    yield (
        f"{found['prompts']} prompts; {found['repeated']} results were had before, and"
        f" {found['checkpoints']} were compared with fresh servers."
    )
    yield from (f"FAULT {fault}" for fault in faults(found))


def write(found: Mapping[str, Any], path: Path) -> None:
    """Write the JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
