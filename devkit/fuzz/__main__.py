"""``python -m vivace.devkit.fuzz``: see `main`."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from . import hunt
from .hunt import Outcome, Recorder
from .session import Session, inputs
from .targets import NAMES, find

_TURN = 60.0
_VERSIONS = ("atheris", "torch", "safetensors", "pillow", "aiohttp")


def main(words: Sequence[str] | None = None) -> int:
    """Give made-up input to what reads files, rows and replies; exit status 1 if anything broke.

    Without --seconds it goes on until Ctrl+C, and several targets take turns of a minute.
    """
    parser = argparse.ArgumentParser(prog="dev.py fuzz", description=main.__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--seconds", type=float, help="for each target")
    parser.add_argument("--seed", type=int, default=1, help="of the changes (default: %(default)s)")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run one saved input again")
    parser.add_argument("--log", type=Path, metavar="FILE", help="put the figures into a JSON file")
    options = parser.parse_args(words)
    if unknown := set(options.targets) - set(NAMES):
        parser.error(f"there is no {', '.join(sorted(unknown))}; choose of {', '.join(NAMES)}")
    if options.replay is not None:
        return _replay(options.replay, options.targets)
    if not hunt.is_guided():
        print("atheris is not installed: inputs are not chosen by coverage.", file=sys.stderr)
    outcomes = [Outcome(name) for name in options.targets or NAMES]
    try:
        _run(outcomes, options.seconds, options.seed)
    except KeyboardInterrupt:
        print()
    for outcome in outcomes:
        print(outcome.line())
        for place, file in outcome.findings.items():
            print(f"  {place}\n    replay: python3 dev.py fuzz --replay {file}")
    if options.log is not None:
        _log(options.log, outcomes, options.seed)
    return 1 if any(outcome.findings for outcome in outcomes) else 0


def _run(outcomes: Sequence[Outcome], seconds: float | None, seed: int) -> None:
    while True:
        for outcome in outcomes:
            (hunt.guided if hunt.is_guided() else _plain)(outcome, seconds or _TURN, seed)
        if seconds is not None:
            return
        seed += 1


def _plain(outcome: Outcome, seconds: float, seed: int) -> None:
    """Change the seeds alone, in this process."""
    target = find(outcome.target)
    session = Session(outcome.target, target.target)
    session.warm_up(target.seeds())
    recorder = Recorder(session, seconds)
    try:
        for data in inputs(target, seed):
            if not recorder.run(data):
                break
    finally:
        recorder.write()
        outcome.add(vars(recorder.outcome))


def _replay(file: Path, names: Sequence[str]) -> int:
    """Run a saved input; its folder tells the target, if the command does not."""
    name = names[0] if names else file.resolve().parent.name
    if name not in NAMES:
        print(f"Which target is it for? Name one of {', '.join(NAMES)}.", file=sys.stderr)
        return 2
    try:
        data = file.read_bytes()
    except OSError as error:
        print(f"{file} cannot be read ({error.strerror}).", file=sys.stderr)
        return 2
    target = find(name)
    session = Session(name, target.target)
    session.warm_up(target.seeds())
    finding = session.run(data)
    if finding is None:
        print(
            f"{name}: nothing wrong. {''.join(f'Refused: {p}' for p in session.refusals)}".strip()
        )
        return 0
    print(f"{finding.trace}\n{name}: {finding.place}")
    return 1


def _log(file: Path, outcomes: Sequence[Outcome], seed: int) -> None:
    """Write the figures, without paths of this machine; those of other targets stay."""
    versions = {"python": platform.python_version()}
    for name in _VERSIONS:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    known = json.loads(file.read_text(encoding="utf-8"))["results"] if file.exists() else []
    results = {one["target"]: one for one in known} | {
        outcome.target: _figures(outcome) | {"seed": seed} for outcome in outcomes
    }
    text = json.dumps({"versions": versions, "results": list(results.values())}, indent=1)
    file.write_text(text + "\n", encoding="utf-8")


def _figures(outcome: Outcome) -> dict[str, Any]:
    found = {"date": date.today().isoformat(), **vars(outcome)}
    return found | {"findings": sorted(outcome.findings)}


if __name__ == "__main__":
    sys.exit(main())
