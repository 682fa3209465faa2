"""Where `dev.py test` gets a browser from; the programs that would fetch one are stand-ins."""

from __future__ import annotations

import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from vivace.devkit import commands
from vivace.devkit.rig import browser, browser_install
from vivace.devkit.rig.layout import NEWEST, DevError

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="the stand-in is a script with a first line"
)
BROWSER = "#!/bin/sh\necho Chromium 1\n"
BROKEN = "#!/bin/sh\necho 'error while loading shared libraries: libnss3.so' >&2\nexit 127\n"
NOTHING = "#!/bin/sh\necho 'E: no route to the archive'\nexit 100\n"


class Machine:
    """A path with nothing but what a test puts there, and an empty folder for Playwright's."""

    def __init__(self, root: Path) -> None:
        self.path = root / "bin"
        self.path.mkdir()
        self.browsers = root / "browsers"
        self.python = self.path / "python"
        self.program("python", NOTHING)

    def program(self, name: str, script: str) -> None:
        (self.path / name).write_text(script)
        (self.path / name).chmod(0o755)

    def writes(self, made: Path, script: str) -> str:
        """A script that puts another one there."""
        lines = [f"/bin/mkdir -p {made.parent}", f"/bin/cat > {made} <<'END'", script + "END"]
        return "\n".join(["#!/bin/sh", *lines, f"/bin/chmod 755 {made}", ""])

    def ensure(self) -> Path:
        return Path(browser_install.ensure_browser(self.python))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setenv("PATH", str(made.path))
    monkeypatch.delenv("VIVACE_BROWSER", raising=False)
    monkeypatch.delenv("CI", raising=False)
    for module in (browser, browser_install):
        monkeypatch.setattr(module, "BROWSERS", made.browsers)
    monkeypatch.setattr(browser_install, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return made


def test_one_that_is_installed_is_taken_and_nothing_fetched(machine: Machine) -> None:
    machine.program("apt-get", machine.writes(machine.path / "touched", ""))
    machine.program("chromium", BROWSER)
    assert machine.ensure() == machine.path / "chromium"
    assert not (machine.path / "touched").exists()


def test_debians_package_where_root_may(machine: Machine) -> None:
    shell = machine.path / "chromium-headless-shell"
    machine.program("apt-get", machine.writes(shell, BROWSER))
    assert machine.ensure() == shell


def test_playwrights_where_apt_has_none(machine: Machine) -> None:
    shell = machine.browsers / "chromium_headless_shell-1" / "chrome-linux" / "headless_shell"
    machine.program("apt-get", NOTHING)
    machine.program("python", machine.writes(shell, BROWSER))
    assert machine.ensure() == shell
    machine.program("python", NOTHING)
    assert machine.ensure() == shell, "the next run has it"


def test_nobody_else_gets_packages_installed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    machine.program("sudo", '#!/bin/sh\nshift\nexec "$@"\n')
    shell = machine.path / "chromium-headless-shell"
    machine.program("apt-get", machine.writes(shell, BROWSER))
    with pytest.raises(DevError, match="apt: only root may install packages"):
        machine.ensure()
    monkeypatch.setenv("CI", "true")
    assert machine.ensure() == shell


def test_without_any_it_is_said_how_to_get_one(machine: Machine) -> None:
    shell = machine.browsers / "chromium_headless_shell-1" / "chrome-linux" / "headless_shell"
    machine.program("apt-get", NOTHING)
    machine.program("python", machine.writes(shell, BROKEN))
    with pytest.raises(DevError) as raised:
        machine.ensure()
    for part in (
        "apt: E: no route to the archive",
        "Playwright: error while loading shared libraries: libnss3.so",
        "apt install chromium-headless-shell",
        "VIVACE_BROWSER",
        "--no-browser",
    ):
        assert part in str(raised.value)
    assert not machine.browsers.exists(), "what does not start is not found the next time"


def test_one_that_does_not_start_is_refused(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.program("mine", BROKEN)
    monkeypatch.setenv("VIVACE_BROWSER", str(machine.path / "mine"))
    with pytest.raises(DevError, match=r"mine does not start: .*libnss3"):
        machine.ensure()


def arguments(**options: Any) -> Namespace:
    return Namespace(comfyui=NEWEST.version, k="something", **options)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """What `dev.py` would start: commands, each with its variables."""
    found: list[tuple[list[str], dict[str, str]]] = []

    def run(command: list[str], **given: Any) -> subprocess.CompletedProcess[str]:
        found.append((command, given["env"]))
        return subprocess.CompletedProcess(command, 0)

    prepared = (NEWEST, Path("python"), Path("comfyui"))
    monkeypatch.setattr(commands, "prepare", lambda _: prepared)
    monkeypatch.setattr(commands.subprocess, "run", run)
    return found


def test_no_tests_run_without_a_browser_unless_asked(
    started: list[tuple[list[str], dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(python: Path) -> str:
        raise DevError("no browser")

    monkeypatch.setattr(commands, "ensure_browser", none)
    with pytest.raises(DevError, match="no browser"):
        commands.test(arguments(no_browser=False), [])
    assert started == []
    assert commands.test(arguments(no_browser=True), []) == 0
    assert "--no-browser" in started[0][0]
    monkeypatch.setattr(commands, "ensure_browser", lambda _: "/usr/bin/one")
    assert commands.test(arguments(no_browser=False), []) == 0
    command, environment = started[1]
    assert "--no-browser" not in command
    assert environment["VIVACE_BROWSER"] == "/usr/bin/one"


@pytest.mark.parametrize(
    ("k", "words", "checked"),
    [
        (None, [], True),
        (None, ["-x", "-n", "2"], True),
        (None, ["tests/devkit"], False),
        (None, ["tests/devkit/test_workflows.py::test_a"], False),
        ("one", [], False),
    ],
)
def test_lint_and_types_are_for_whole_runs(
    started: list[tuple[list[str], dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
    k: str | None,
    words: list[str],
    checked: bool,
) -> None:
    checks: list[Path] = []
    monkeypatch.setattr(commands, "check_all", lambda python, _: checks.append(python) or 3)
    status = commands.test(Namespace(comfyui=NEWEST.version, k=k, no_browser=True), words)
    assert (status, len(checks)) == ((3, 1) if checked else (0, 0))
    assert set(words) <= set(started[0][0])
