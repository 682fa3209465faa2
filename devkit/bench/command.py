"""What the measuring commands share: their options, and where results go."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..rig.layout import OUT
from ..rig.machine import environment
from .harness import Result
from .models import start_comfy
from .plot import Panel, draw

THREADS = 2
Measured = tuple[list[Result], list[dict[str, Any]]]


@dataclass(frozen=True)
class Bench:
    """A command: ``python -m vivace.devkit.bench.<name>``.

    Attributes:
        name: of the module, and the start of the names of its results.
        subject: heading of the plot.
        notes: how to read the results.
        panels: of the plot.
        picture: draws the plot of a report: to a file, with a heading and panels.
    """

    name: str
    subject: str
    notes: Sequence[str]
    panels: Sequence[Panel]
    picture: Callable[[Mapping[str, Any], Path, str, Sequence[Panel]], None] = draw

    def main(self, doc: str | None, run: Callable[[str, bool], Measured]) -> list[Result]:
        """Parse the options, measure with `run(device, quick)`, and write JSON and plot."""
        prog = f"python -m vivace.devkit.bench.{self.name}"
        parser = argparse.ArgumentParser(prog=prog, description=doc)
        parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
        parser.add_argument("--quick", action="store_true", help="fewer cases and repetitions")
        parser.add_argument("--output", type=Path, help="the JSON file; the plot lies beside it")
        options = parser.parse_args()
        device, quick = str(options.device), bool(options.quick)
        if device == "cuda" and not torch.cuda.is_available():
            parser.error("torch sees no CUDA device here")
        torch.set_num_threads(THREADS)
        version = start_comfy(device)
        report: dict[str, Any] = {**environment(device, version), "quick": quick}
        results, details = run(device, quick)
        report |= {"notes": list(self.notes), "details": details}
        report["results"] = [result.as_json() for result in results]
        self._write(report, options.output or self._place(device, quick))
        return results

    def _place(self, device: str, quick: bool) -> Path:
        name = f"{self.name}-{device}.json"
        return OUT / "bench" / name if quick else Path(__file__).parent / "results" / name

    def _write(self, report: Mapping[str, Any], output: Path) -> None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        self.picture(report, output.with_suffix(".png"), self.subject, self.panels)
        print(f"Written: {output.name} and its plot.")
