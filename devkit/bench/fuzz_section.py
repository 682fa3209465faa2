"""The section of ``BENCHMARKS.md`` about fuzzing, from what ``dev.py fuzz --log`` has written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def fuzz_section(report: Mapping[str, Any]) -> Iterator[str]:
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    yield "## Fuzzing\n"
    yield f"`python3 dev.py fuzz`; {versions}.\n"
    yield (
        "Changed inputs of each kind; those that reach new code are changed further. Edges are of"
        " the pack's own code. A refusal is a documented error, told from others by the line that"
        " raises it; whatever else is raised, takes too long or too much memory is a finding.\n"
    )
    yield "| kind of input | day | inputs | seconds | edges | refusals | findings |"
    yield "|---|---|---:|---:|---:|---:|---:|"
    for one in report["results"]:
        yield (
            f"| {one['target']} | {one['date']} | {one['inputs']:,} | {one['seconds']:.0f} |"
            f" {one['coverage']:,} | {len(one['refusals'])} | {len(one['findings'])} |"
        )
    yield ""
