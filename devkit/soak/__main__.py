"""The command: ``python3 dev.py soak``; exit status 1 when anything grows, fails or differs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

from ..rig.layout import OUT, DevError
from . import fresh
from .files import ensure_files
from .plan import Plan
from .plot import draw
from .report import faults, lines, report, write
from .runner import Record, Runner
from .servers import running_server
from .trend import SHARE, trends
from .watch import Sample, Watch

WORK = OUT / "soak"


def main(words: Sequence[str] | None = None) -> int:
    """Run, compare, report; the words of the command line unless others are given."""
    options = _options(words)
    ensure_files(WORK / "files", options.comfyui, large=not options.small)
    start = partial(running_server, options.comfyui, WORK / "files")
    record, samples = _soak(options, start)
    print(f"Comparing {options.checkpoints} results with fresh servers ...", flush=True)
    checkpoints = fresh.choose(record.digests, options.checkpoints, options.seed)
    different = fresh.unequal(checkpoints, partial(start, WORK / "fresh"))
    judged = trends([(one.prompts, one.values) for one in samples], options.share)
    found = {
        **_circumstances(options),
        **report(record, samples, judged, checkpoints, different),
    }
    for text in lines(found):
        print(text)
    if options.log:
        write(found, options.log)
        draw(found, options.log.with_suffix(".png"))
    return 1 if faults(found) else 0


def _soak(options: argparse.Namespace, start: Any) -> tuple[Record, list[Sample]]:
    plan = Plan(options.seed, large=not options.small)
    with start(WORK / "server") as (server, client):
        runner = Runner(server, client)
        watch = Watch(server.pid, client, plan.bases())
        until = monotonic() + 60 * options.minutes
        for step in plan.steps(options.prompts):
            known = len(runner.record.unexpected)
            runner.run(step)
            for text in runner.record.unexpected[known:]:
                print(f"FAULT {text}", flush=True)
            if runner.record.prompts >= options.every * (len(watch.samples) + 1):
                _say(watch.look(runner), runner.record)
                if monotonic() > until:
                    break
        return runner.record, watch.samples


def _say(sample: Sample, record: Record) -> None:
    megabytes = sample.values["rss"] / 2**20
    print(
        f"{sample.prompts:6} prompts, {megabytes:8.0f} MB, {sample.values['objects']} objects,"
        f" {len(record.unexpected)} faults",
        flush=True,
    )


def _circumstances(options: argparse.Namespace) -> dict[str, Any]:
    from ..rig.machine import environment

    version = (
        (options.comfyui / "comfyui_version.py").read_text().rpartition("=")[2].strip("\"' \n")
    )
    return {**environment("cpu", version), "seed": options.seed, "large": not options.small}


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev.py soak", description=__doc__)
    parser.add_argument("--comfyui", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1, help="of the sequence of prompts")
    parser.add_argument("--log", type=Path, help="write JSON there, and a plot beside it")
    parser.add_argument("--every", type=int, default=25, help="prompts from sample to sample")
    parser.add_argument("--minutes", type=float, default=inf, help="stop earlier, after so many")
    parser.add_argument("--checkpoints", type=int, default=32, help="results to compare")
    parser.add_argument("--share", type=float, default=SHARE, help="of its mean, to grow by")
    parser.add_argument("--small", action="store_true", help="no model at its full width")
    return parser.parse_args(words)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DevError as problem:
        sys.exit(f"dev.py: {problem}")
