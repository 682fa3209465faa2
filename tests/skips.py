"""No test is skipped without notice: a reason must be in `allowed_skips.txt`, or the run fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

LIST = Path(__file__).with_name("allowed_skips.txt")
ON_CI = os.environ.get("CI", "").lower() in ("1", "true")


def places_here() -> set[str]:
    """Which of the places that the list names this is."""
    found = {"by hand": not ON_CI, "one core": (os.cpu_count() or 1) < 2, "older": _older()}
    found |= {"Windows": sys.platform == "win32", "macOS": sys.platform == "darwin"}
    found["root"] = hasattr(os, "geteuid") and os.geteuid() == 0
    cuda = _cuda()
    return {name for name, here in (found | {"CUDA": cuda, "no CUDA": not cuda}).items() if here}


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _older() -> bool:
    from vivace.devkit.rig.layout import NEWEST

    folder = Path(os.environ.get("VIVACE_COMFYUI", f"comfyui-{NEWEST.version}"))
    return sys.version_info < (3, 11) or folder.name != f"comfyui-{NEWEST.version}"


def allowed(lines: Iterable[str], here: set[str]) -> list[str]:
    """The patterns of reasons that may be in one of these places.

    Raises:
        ValueError: a line is not `where: reason`.
    """
    found = []
    for line in lines:
        places, colon, reason = line.partition(": ")
        if not line.strip() or line.startswith("#"):
            continue
        if not colon:
            raise ValueError(f"'{line.strip()}' is not `where: reason`")
        if here & {place.strip() for place in places.split(",")}:
            found.append(reason.strip())
    return found


class Skips:
    """Notes what is skipped, says what may not be, and has the run fail for it."""

    def __init__(self, list_file: Path = LIST) -> None:
        self._list = list_file
        self._skipped: list[tuple[str, str]] = []
        self._wrong: list[tuple[str, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        told = report.longrepr
        reason = told[2] if isinstance(told, (tuple, list)) else str(told)
        self._skipped.append((report.nodeid, reason.removeprefix("Skipped: ")))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not self._skipped:  # to see where this is takes torch
            return
        lines = self._list.read_text(encoding="utf-8").splitlines()
        patterns = allowed(lines, places_here())
        self._wrong = [
            (test, reason)
            for test, reason in self._skipped
            if not any(fnmatchcase(reason, pattern) for pattern in patterns)
        ]
        if self._wrong and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._wrong:
            return
        terminalreporter.section("skipped for a reason that is not allowed here", red=True)
        for test, reason in self._wrong:
            terminalreporter.write_line(f"{test}: {reason}")
        terminalreporter.write_line(f"A reason that is right belongs into tests/{LIST.name}.")
