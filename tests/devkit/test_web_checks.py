"""The checks of `web/` that `dev.py test` runs find what they are for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import missing
from vivace.devkit import web_checks
from vivace.devkit.rig.layout import ROOT, DevError

PYTHON = Path(sys.executable)


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    try:
        web_checks.ensure_web_tools(PYTHON)
    except DevError as error:
        missing(str(error))


def run(command: list[str], text: str | None = None) -> tuple[int, str]:
    finished = subprocess.run(
        command, cwd=ROOT, input=text, capture_output=True, encoding="utf-8", check=False
    )
    return finished.returncode, finished.stdout + finished.stderr


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("let one = 1;\nexport const two = one;\n", "prefer-const"),
        ("const unused = 1;\n", "no-unused-vars"),
        ("export const same = (/** @type {any} */ one) => one == null;\n", "eqeqeq"),
        (
            "export const show = (/** @type {HTMLElement} */ place) => {\n"
            "  place.innerHTML = location.hash;\n};\n",
            "no-restricted-syntax",
        ),
    ],
)
def test_eslint_finds_what_is_wrong_in_a_module(source: str, rule: str) -> None:
    command = web_checks.eslint_command(PYTHON)
    for filename in ("web/broken.js", "web/rows/broken.js"):
        status, output = run([*command, "--stdin", "--stdin-filename", filename], source)
        assert status == 1, output
        assert rule in output
    status, output = run([*command, "--stdin", "--stdin-filename", "web/fine.js"], "export {};\n")
    assert (status, output) == (0, "")


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("export const f = (value) => value;\n", "implicitly has an 'any' type"),
        ("app.graphs.clear();\n", "Property 'graphs' does not exist on type 'App'"),
        ("app.canvas.processMouseWheel('up');\n", "not assignable to parameter of type"),
        ("nothing();\n", "Cannot find name 'nothing'"),
    ],
)
def test_the_type_checker_finds_what_is_wrong_in_a_module(
    tmp_path: Path, source: str, problem: str
) -> None:
    def check(text: str) -> tuple[int, str]:
        head = 'import { app } from "../../scripts/app.js";\n\nexport const canvas = app.canvas;\n'
        (tmp_path / "module.js").write_text(head + text)
        return run(web_checks.tsc_command(PYTHON, tmp_path))

    folder = web_checks.CONFIG_FOLDER
    config = {
        "extends": os.fspath(folder / "tsconfig.json"),
        "include": ["module.js", os.fspath(folder / "editor.d.ts")],
    }
    (tmp_path / "tsconfig.json").write_text(json.dumps(config))
    assert check("") == (0, "")
    status, output = check(source)
    assert status != 0
    assert "module.js(4," in output
    assert problem in output


def test_a_registry_that_is_out_of_reach_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(web_checks, "TOOLS_FOLDER", tmp_path / "node")
    monkeypatch.setattr(web_checks, "NPM", "raise SystemExit(7)")
    with pytest.raises(DevError, match=r"`npm ci` failed \(exit status 7.*go online"):
        web_checks.ensure_web_tools(PYTHON)
    assert not (tmp_path / "node" / "vivace.stamp").exists()
