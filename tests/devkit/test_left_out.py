"""What a run leaves out: skipped tests need a reason that is allowed, and a browser its option."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from skips import LIST, allowed
from vivace.devkit.rig.layout import ROOT

TESTS = LIST.parent
CONFTEST = """from pathlib import Path
import pytest, skips
from skips import Skips
from without_browser import WithoutBrowser


def pytest_configure(config):
    skips.places_here = lambda: {{"here"}}
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Skips(Path({list_file!r})))
    if config.getoption("no_browser"):
        config.pluginmanager.register(WithoutBrowser())


def pytest_addoption(parser):
    parser.addoption("--no-browser", action="store_true")


@pytest.fixture
def browser():
    pytest.fail("started")


@pytest.fixture
def page(browser):
    pass
"""
LINES = "# why\n\nhere, there: no * today\nelsewhere: not here\n"


def run_pytest(folder: Path, tests: str, *words: str) -> tuple[int, str]:
    """Exit status and output of pytest on a file with these tests."""
    (folder / "allowed.txt").write_text(LINES)
    list_file = str(folder / "allowed.txt")
    (folder / "conftest.py").write_text(CONFTEST.format(list_file=list_file))
    (folder / "pytest.ini").write_text("[pytest]")
    (folder / "test_it.py").write_text(f"import pytest\n\n\ndef test_good(): pass\n\n\n{tests}\n")
    return started(folder, *words)


def started(folder: Path, *words: str) -> tuple[int, str]:
    environment = {key: value for key, value in os.environ.items() if "PYTEST" not in key}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


PROCESSES = pytest.mark.parametrize("processes", [(), ("-n", "2")], ids=["alone", "shared"])


WRONG = """
def test_new(): pytest.skip("something new")
def test_elsewhere(): pytest.skip("not here")
@pytest.mark.skip(reason="something new")
def test_mark(): pass
@pytest.mark.skipif(True, reason="something new")
def test_condition(): pass
@pytest.mark.parametrize("one", [])
def test_no_values(one): pass
"""


@PROCESSES
def test_a_skip_that_is_not_allowed_fails_the_run(
    tmp_path: Path, processes: tuple[str, ...]
) -> None:
    (tmp_path / "test_whole_file.py").write_text("import pytest\npytest.importorskip('no_such')\n")
    status, said = run_pytest(tmp_path, WRONG, *processes)
    assert status == 1, said
    told = said.partition("skipped for a reason that is not allowed here")[2]
    names = ("new", "elsewhere", "mark", "condition", "no_values", "whole_file")
    assert [name for name in names if f"test_{name}" not in told] == []
    assert "1 passed, 6 skipped" in told


@PROCESSES
def test_a_reason_of_the_list_is_allowed(tmp_path: Path, processes: tuple[str, ...]) -> None:
    tests = "def test_skips(): pytest.skip('no sun today')"
    tests += "\n\n\n@pytest.mark.xfail\ndef test_expected(): assert False"
    status, said = run_pytest(tmp_path, tests, *processes)
    assert status == 0, said
    assert "not allowed" not in said
    assert "1 passed, 1 skipped, 1 xfailed" in said


@PROCESSES
def test_a_browser_is_left_out_by_its_option_only(
    tmp_path: Path, processes: tuple[str, ...]
) -> None:
    tests = "def test_a(browser): pass\n\n\ndef test_b(page): pass"
    status, said = run_pytest(tmp_path, tests, *processes)
    assert status == 1
    assert "1 passed, 2 errors" in said
    status, said = run_pytest(tmp_path, tests, "--no-browser", *processes)
    assert status == 0, said
    assert "Tests left out by --no-browser: 2" in said


def test_a_line_of_the_list_says_where(tmp_path: Path) -> None:
    assert allowed(LINES.splitlines(), {"there"}) == ["no * today"]
    with pytest.raises(ValueError, match="'no place' is not"):
        allowed(["no place"], set())


def reasons_in(path: Path) -> Iterator[str]:
    """What the calls that skip in a file say, with * for what is put in, and "" for none."""
    for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(call, ast.Call):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        if isinstance(call.func, ast.Name) and call.func.id == "missing":
            name = "skip"
        if name in ("skip", "skipif", "importorskip"):
            told = [word.value for word in call.keywords if word.arg == "reason"]
            told += call.args if name == "skip" else []
            yield _pattern(told[0]) if told else ""


def _pattern(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    parts = node.values if isinstance(node, ast.JoinedStr) else ()
    return "".join(_pattern(part) for part in parts) or "*"


def test_list_and_tests_have_the_same_reasons() -> None:
    places = {"by hand", "one core", "older", "root", "CUDA", "no CUDA", "Windows", "macOS"}
    lines = LIST.read_text(encoding="utf-8").splitlines()
    for line in lines:
        if line.strip() and not line.startswith("#"):
            assert {place.strip() for place in line.partition(": ")[0].split(",")} <= places, line
    of_tests = {
        reason
        for path in TESTS.rglob("*.py")
        if path != Path(__file__)
        for reason in reasons_in(path)
    }
    listed = set(allowed(lines, places))
    # What is missing for the checks of `web/` is told by an error of theirs.
    assert of_tests - {"*"} == listed - {"`npm ci` failed *"}
    assert "`npm ci` failed" in (ROOT / "devkit" / "web_checks.py").read_text(encoding="utf-8")


def test_the_tests_of_this_checkout_are_watched(tmp_path: Path) -> None:
    """Its own `conftest.py` does what the one above does."""
    (tmp_path / "test_it.py").write_text(
        "import pytest\n\n\ndef test_new(): pytest.skip('something new')\n"
        "\n\ndef test_shown(browser): pass\n"
    )
    words = ("-c", str(ROOT / "pyproject.toml"), "-p", "conftest", str(tmp_path / "test_it.py"))
    status, said = started(ROOT, *words, "--no-browser")
    assert status == 1, said
    assert "test_new: something new" in said
    assert "Tests left out by --no-browser: 1" in said
