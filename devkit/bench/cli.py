"""``python -m vivace.devkit.bench.cli``: how long the command line takes, beside Python itself.

Each command is a process of its own, started as the installed script `vivace` starts it. They run
by turns with ``python -c pass`` of the same Python, and are compared with the one of their round.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from ..doubles.demo_models import LORAS, lora_state_dict, save
from ..rig.machine import environment
from .files import scratch
from .harness import Result, Target, Timings, spread

RESULTS = Path(__file__).parent / "results" / "cli.json"
BARE = "python -c pass"
SCRIPT = "import sys; from vivace.cli.main import main; sys.exit(main())"
MODULE = "python -m vivace --help"
HELP_RATIO = Target("at most", 2.0)
HELP_SECONDS = Target("at most", 0.15)
COMMANDS: Mapping[str, Sequence[str]] = {
    "--help": ("--help",),
    "lora merge --help": ("lora", "merge", "--help"),
    "completion": ("__complete", "lora", "merge", "=--"),
    "argument error": ("lora", "merge", "--qwertz"),
    "lora inspect": ("lora", "inspect", LORAS[0].filename),
}
NOTES = [
    "ratio: median, least and greatest of the ratios to the python -c pass of the same round.",
    "processor time: over the median of python -c pass; other work on the machine changes it less.",
    "load_average: processes that were running when the measurement began, its own not among them.",
    "Byte code is there, as it is after the first use.",
    f"{MODULE} also starts runpy; the others start as the installed script does.",
    "lora inspect reads the header of a LoRA of 4 modules, and imports no torch.",
]


class Measured:
    """Wall clock and processor time, by name and round."""

    def __init__(self) -> None:
        self.wall = Timings("cpu")
        self.cpu: dict[str, list[float]] = {}


def measure(rounds: int, home: Path) -> Measured:
    """Start every command once in each round, after two rounds that do not count."""
    variables = _environment(home)
    started = {BARE: [sys.executable, "-c", "pass"], MODULE: [sys.executable, "-m", "vivace", "-h"]}
    started |= {name: [sys.executable, "-c", SCRIPT, *words] for name, words in COMMANDS.items()}
    measured = Measured()
    for count in range(rounds + 2):
        into = measured if count >= 2 else Measured()
        for name, command in started.items():
            before = _children_seconds()
            done = into.wall.time(name, lambda c=command: _run(c, home, variables), fresh=False)
            into.cpu.setdefault(name, []).append(_children_seconds() - before)
            _check(name, done)
    return measured


def _environment(home: Path) -> dict[str, str]:
    """Ours, with this package, byte code in a folder of its own, and no configuration."""
    dropped = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONPATH")
    kept = {
        key: text
        for key, text in os.environ.items()
        if key not in dropped and not key.startswith("VIVACE_")
    }
    kept["PYTHONPATH"] = str(Path(__file__).parents[3])
    return {**kept, "PYTHONPYCACHEPREFIX": str(home / "pycache"), "XDG_CONFIG_HOME": str(home)}


def _children_seconds() -> float:
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


def _run(
    command: Sequence[str], home: Path, variables: Mapping[str, str]
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command, cwd=home, env=variables, capture_output=True, stdin=subprocess.DEVNULL, check=False
    )


def _check(name: str, done: subprocess.CompletedProcess[bytes]) -> None:
    """A command that did something else than it should must not count."""
    wanted = {"argument error": (2, b""), BARE: (0, b"")}.get(name, (0, None))
    if done.returncode != wanted[0] or (wanted[1] is None) != bool(done.stdout):
        raise RuntimeError(f"{name}: {done.returncode}, {done.stdout!r}, {done.stderr!r}")


def results(measured: Measured) -> list[Result]:
    """Ratios to the bare Python, and seconds, with the targets for help."""
    found: list[Result] = []
    bare = median(measured.cpu[BARE])
    for name in (*COMMANDS, MODULE):
        is_help = name.endswith("--help") and name != MODULE
        ratio = spread(measured.wall.ratios(name, BARE))
        found.append(Result(name, f"over {BARE}", ratio, HELP_RATIO if is_help else None))
        seconds = spread(measured.wall.seconds[name])
        found.append(Result(name, "seconds", seconds, HELP_SECONDS if is_help else None))
        cpu = spread([value / bare for value in measured.cpu[name]])
        found.append(Result(name, f"processor time over {BARE}", cpu))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m vivace.devkit.bench.cli", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--output", type=Path, default=RESULTS, help="the JSON file")
    options = parser.parse_args()
    with scratch() as home:
        save(lora_state_dict(LORAS[0]), home / LORAS[0].filename)
        load = os.getloadavg()[0]
        measured = measure(options.rounds, home)
    lines = results(measured)
    report: dict[str, Any] = environment("cpu", "not used")
    report |= {
        "notes": NOTES,
        "load_average": round(load, 1),
        "milliseconds": measured.wall.summary(),
        "results": [one.as_json() for one in lines],
    }
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for one in lines:
        print(one.line())


if __name__ == "__main__":
    main()
