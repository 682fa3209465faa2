"""Which tests run, and on which process, by real runs of pytest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from vivace.devkit.rig.layout import ROOT

TESTS = Path(__file__).parents[1]
CONFTEST = """import sys
sys.path.insert(0, {tests!r})
from scheduling import Scheduling


def pytest_xdist_make_scheduler(config, log):
    return Scheduling(config, log)
"""
TEST = """import os, time, pathlib


def test_it():
    time.sleep(0.3)
    name = os.environ["PYTEST_XDIST_WORKER"]
    pathlib.Path({file!r}).write_text(name)
"""
WAIT = (
    "browser/test_a",
    "devkit/test_a",
    "server/commands/test_a",
    "server/commands/test_b",
    "server/test_a",
)
COMPUTE = ("pack/lora/test_a", "pack/vlm/test_a", "pack/vlm/test_b")


def run_pytest(folder: Path, *words: str) -> str:
    """What pytest says, which has to succeed."""
    environment = {key: value for key, value in os.environ.items() if "PYTEST" not in key}
    command = [sys.executable, "-m", "pytest", *words]
    run = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def workers(folder: Path, processes: int, *names: str) -> dict[str, str]:
    """Which process ran each of these files, when so many shared them."""
    (folder / "conftest.py").write_text(CONFTEST.format(tests=str(TESTS)))
    for name in names:
        path = folder / "tests" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(TEST.format(file=str(path.with_suffix(".ran"))))
    (folder / "pytest.ini").write_text("[pytest]")
    run_pytest(folder, "-n", str(processes), "--dist=loadfile", "tests")
    return {name: (folder / "tests" / f"{name}.ran").read_text() for name in names}


def test_one_of_three_computes_while_the_others_wait(tmp_path: Path) -> None:
    ran = workers(tmp_path, 3, *WAIT, *COMPUTE)
    waiting = {ran[name] for name in WAIT}
    assert len(waiting) == 2
    assert {"gw0", "gw1", "gw2"} - waiting <= {ran[name] for name in COMPUTE}
    assert ran["server/commands/test_a"] == ran["server/commands/test_b"]


def test_two_share_everything(tmp_path: Path) -> None:
    ran = workers(tmp_path, 2, *WAIT)
    assert set(ran.values()) == {"gw0", "gw1"}
    assert ran["server/commands/test_a"] == ran["server/commands/test_b"]


@pytest.mark.parametrize("options", [[], ["--long"]])
def test_long_tests_are_for_those_who_ask(options: list[str]) -> None:
    found = run_pytest(ROOT, "--collect-only", "-q", "tests/server/test_startup.py", *options)
    assert "::test_import_is_three_modules_of_ours_and_none_of_others" in found
    assert ("::test_a_slow_pack_is_found_out" in found) == bool(options)
