"""Runs a target for a while, and keeps what came of it in files.

Each target gets a process of its own, in which `atheris` decides by coverage which inputs are worth
changing further. Without that library the seeds alone are changed, in the same process of ours.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from ..rig.layout import OUT
from .session import Finding, Session

FOLDER = OUT / "fuzz"
REGRESSIONS = Path(__file__).parent / "regressions"
_COVERED = re.compile(rb"cov: (\d+)")


@dataclass
class Outcome:
    """What came of a target so far.

    Attributes:
        coverage: edges of the pack's code that were reached; 0 where nobody counted.
        refusals: the documented errors that were met, by class and line.
        findings: faults by their place, and the file with an input of each.
    """

    target: str
    inputs: int = 0
    seconds: float = 0.0
    coverage: int = 0
    refusals: list[str] = field(default_factory=list)
    findings: dict[str, str] = field(default_factory=dict)

    def add(self, more: Mapping[str, Any]) -> None:
        """Count another run of the same target in."""
        self.inputs += more["inputs"]
        self.seconds = round(self.seconds + more["seconds"], 1)
        self.refusals = sorted({*self.refusals, *more["refusals"]})
        self.findings |= more["findings"]

    def line(self) -> str:
        """The outcome on one line."""
        rate = self.inputs / self.seconds if self.seconds else 0.0
        covered = f"{self.coverage:,} edges, " if self.coverage else ""
        return (
            f"{self.target:16} {self.inputs:10,} inputs {rate:7,.0f}/s  {covered}"
            f"{len(self.refusals)} kinds of refusals, {len(self.findings)} findings"
        )


class Recorder:
    """Counts and saves what a session does, until its time is over.

    Args:
        report: the JSON file to keep up to date; None for none.
    """

    def __init__(self, session: Session, seconds: float, report: Path | None = None) -> None:
        self.session = session
        self.outcome = Outcome(session.name)
        self._started = self._written = perf_counter()
        self._seconds = seconds
        self._report = report

    def run(self, data: bytes) -> bool:
        """Run one input; False when the time is over."""
        known = len(self.session.findings)
        finding = self.session.run(data)
        if finding is not None and len(self.session.findings) > known:
            self.outcome.findings[finding.place] = str(save(self.session.shrink(finding)))
        now = perf_counter()
        over = now - self._started >= self._seconds
        if over or now - self._written >= 1:
            self._written = now
            self.write()
        return not over

    def write(self) -> None:
        """Bring the outcome and its file up to date."""
        self.outcome.inputs = self.session.inputs
        self.outcome.seconds = round(perf_counter() - self._started, 1)
        self.outcome.refusals = sorted(self.session.refusals)
        if self._report is not None:
            part = self._report.with_suffix(".part")
            part.write_text(json.dumps(asdict(self.outcome)), encoding="utf-8")
            part.replace(self._report)


def save(finding: Finding) -> Path:
    """Write the input of a finding, and its traceback, into `FOLDER`."""
    path = FOLDER / "findings" / finding.target / finding.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(finding.data)
    path.with_name(f"{finding.name}.txt").write_text(finding.trace, "utf-8", "replace")
    return path


def is_guided() -> bool:
    """Whether inputs are chosen by coverage here."""
    return importlib.util.find_spec("atheris") is not None


def guided(outcome: Outcome, seconds: float, seed: int) -> None:
    """Run the target of an outcome in a process of its own, and add what came of it.

    Raises:
        RuntimeError: the process failed; the message has its last words.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    report, log = FOLDER / f"{outcome.target}.json", FOLDER / f"{outcome.target}.log"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", f"{__package__}.guided", outcome.target]
    command += [str(seconds), str(seed), str(report)]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stderr=stream, stdout=stream, env=_environment())
    shown = 0.0
    try:
        while process.poll() is None:
            _wait(process, 1.0)
            latest = _read(report)
            if latest is not None and latest["seconds"] >= shown + 10:
                shown = latest["seconds"]
                _show(outcome, latest, log)
    except KeyboardInterrupt:
        _wait(process, 10.0)
        raise
    finally:
        process.kill()
        outcome.coverage = max(outcome.coverage, _coverage(log))
        if (latest := _read(report)) is not None:
            outcome.add(latest)
    if process.wait() != 0:
        words = log.read_text(encoding="utf-8", errors="replace")[-2000:]
        raise RuntimeError(f"{outcome.target} ended with status {process.returncode}:\n{words}")


def _environment() -> dict[str, str]:
    # One thread computes what is this small faster than several.
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def _show(outcome: Outcome, latest: Mapping[str, Any], log: Path) -> None:
    so_far = Outcome(outcome.target, coverage=_coverage(log))
    so_far.add(latest)
    print(so_far.line(), flush=True)


def _read(report: Path) -> dict[str, Any] | None:
    return json.loads(report.read_text(encoding="utf-8")) if report.exists() else None


def _coverage(log: Path) -> int:
    found: Sequence[bytes] = _COVERED.findall(log.read_bytes())
    return int(found[-1]) if found else 0
