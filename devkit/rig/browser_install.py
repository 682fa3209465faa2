"""A Chromium for the editor's tests and pictures, fetched where none is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from .browser import BROWSERS, browser_program
from .layout import CACHE, DevError, child_environment, say

PACKAGE = "chromium-headless-shell"
SECONDS = 600
"""How long a download may take; one that hangs must not hold up a run for ever."""


def ensure_browser(python: Path) -> str:
    """The program of a Chromium that starts; the first way to get one that works is taken.

    Args:
        python: the environment's Python, whose Playwright may have to fetch it.

    Raises:
        DevError: there is none and none can be had; the message says how to get one.
    """
    found = browser_program()
    if found:
        problem = _problem(found)
        if problem:
            raise DevError(f"{found} does not start: {problem}. {_remedy()}")
        return found
    problems = []
    for name, install in (("apt", _by_apt), ("Playwright", lambda: _by_playwright(python))):
        problem = install()
        found = browser_program()
        if found and not problem:
            problem = _problem(found)
        if found and not problem:
            return found
        problems.append(f"{name}: {problem or 'no program came of it'}")
    shutil.rmtree(BROWSERS, ignore_errors=True)  # what does not start here would be found again
    raise DevError(f"No Chromium, and none could be fetched ({'; '.join(problems)}). {_remedy()}")


def _remedy() -> str:
    return (
        f"Install one (on Debian: apt install {PACKAGE}; elsewhere Chromium or Google Chrome), name"
        " its program in VIVACE_BROWSER, or leave out the tests in the browser with --no-browser."
    )


def _by_apt() -> str | None:
    """Install Debian's package; what is in the way, or None. Only root may, or sudo on CI."""
    if not shutil.which("apt-get"):
        return "there is no apt-get"
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if root and not (os.environ.get("CI") and shutil.which("sudo")):
        return "only root may install packages"
    say(f"Installing {PACKAGE} ...")
    environment = child_environment() | {"DEBIAN_FRONTEND": "noninteractive"}
    # Lists may be there already, and some mirror may be away: what counts is the package.
    _run([*root, "apt-get", "update", "-qq"], environment)
    return _run([*root, "apt-get", "install", "-y", "-qq", PACKAGE], environment)


def _by_playwright(python: Path) -> str | None:
    """Have Playwright fetch its own into `.dev/`; what is in the way, or None."""
    say(f"Fetching a Chromium into {BROWSERS} ...")
    environment = child_environment() | {"PLAYWRIGHT_BROWSERS_PATH": str(BROWSERS)}
    return _run([str(python), "-m", "playwright", "install", PACKAGE], environment)


def _problem(program: str) -> str | None:
    """Why a browser does not start, such as a library that is missing; None if it does."""
    if os.name == "nt":
        return None  # there, it opens a window instead of printing its version
    return _run([program, "--version"], child_environment())


def _run(command: list[str], environment: Mapping[str, str]) -> str | None:
    """Run a command; the last line that it said if it failed, or None."""
    try:
        done = subprocess.run(
            command,
            cwd=CACHE.parent,
            env=dict(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"`{command[0]}` was not done after {SECONDS} s"
    except OSError as error:
        return str(error)
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    told = [line for line in lines if "rror" in line or line.startswith("E:")] or lines
    return told[0] if told else f"exit status {done.returncode}"
