"""The compatibility matrix: which cells there are, what its checks say, and what is written."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
from vivace.devkit import commands
from vivace.devkit.matrix import cells, environment, modules, page, processes, prompts
from vivace.devkit.matrix import run as matrix_run
from vivace.devkit.rig.client import ComfyClient
from vivace.devkit.rig.layout import MATRIX_RELEASES, ROOT, DevError
from vivace.devkit.rig.published import published_files

GUARD = {"verdict": "SAFE", "files": 3, "references": 5, "missing": [], "drifted": []}
GOOD = {"outcome": "works", "reasons": [], "versions": {"python": "3.11.7"}, "checks": []}
SAID = ["LoRA Stack: ValueError: weights are exact"]
BAD = {"outcome": "fails", "reasons": SAID, "versions": {"torch": "2.11.0"}, "checks": []}
NONE = {"outcome": "unsupported", "reasons": ["no such wheel"], "versions": {}, "checks": []}


def test_every_pair_of_versions_is_tried() -> None:
    chosen = cells.chosen(None)
    assert len(chosen) == 16
    assert len({cell.name for cell in chosen}) == 16
    packages = [(cell.comfyui, cell.python, (cell.transformers, cell.extras)) for cell in chosen]
    for one, other in combinations(range(3), 2):
        assert len({(row[one], row[other]) for row in packages}) == 16
    changes = sum(a.python != b.python for a, b in pairwise(chosen))
    assert changes == 3  # an environment is made once for each Python


def test_cells_are_chosen_by_their_names() -> None:
    assert len(cells.chosen(None, everything=True)) == 64
    found = cells.chosen("0.27.0-py3.12", everything=True)
    assert Counter((cell.transformers, cell.extras) for cell in found) == {
        ("4.57", False): 1,
        ("4.57", True): 1,
        ("5", False): 1,
        ("5", True): 1,
    }
    with pytest.raises(DevError, match=r"No cell has '0\.99' in its name; --list"):
        cells.chosen("0.99")


def test_the_names_are_listed_and_nothing_is_tried(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = Namespace(cell="py3.10", all=False, list=True, page_only=False, keep=False)
    assert commands.matrix(arguments, []) == 0
    names = capsys.readouterr().out.split()
    assert [name.partition("-")[0] for name in names] == [r.version for r in MATRIX_RELEASES]


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The files with results are in another folder."""
    monkeypatch.setattr(page, "RESULTS", tmp_path / "compatibility.json")
    monkeypatch.setattr(page, "PAGE", tmp_path / "compatibility.md")
    return tmp_path


@pytest.fixture
def removed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Nothing is installed; the Pythons whose environments were removed."""
    pythons: list[str] = []
    monkeypatch.setattr(matrix_run, "check_disk", lambda: None)
    monkeypatch.setattr(matrix_run, "tool_environment", lambda *_: Path(sys.executable))
    monkeypatch.setattr(matrix_run, "pinned_comfyui", lambda release, _: Path(release.version))
    monkeypatch.setattr(matrix_run, "guard", lambda *_: GUARD)
    monkeypatch.setattr(matrix_run, "remove_environment", pythons.append)
    return pythons


def answer(monkeypatch: pytest.MonkeyPatch, of: Callable[[cells.Cell], dict[str, Any]]) -> None:
    monkeypatch.setattr(matrix_run, "try_cell", lambda cell, _: of(cell))


def test_a_failing_cell_gives_status_1(
    monkeypatch: pytest.MonkeyPatch, results: Path, removed: list[str]
) -> None:
    answer(monkeypatch, lambda cell: BAD if cell.python == "3.12" else GOOD)
    assert matrix_run.run(cells.chosen("0.30.0"), keep=False) == 1
    assert removed == list(cells.PYTHONS)
    text = (results / "compatibility.md").read_text()
    assert "4 of 64 combinations were tried (fails: 1, works: 3)." in text
    assert "- 0.30.0-py3.12-transformers5 fails: LoRA Stack: ValueError" in text
    assert text.count("not tried") == 12


def test_reasons_are_short_and_name_no_folder_of_this_machine() -> None:
    text = matrix_run.short(f"a\n  File '{ROOT}/.dev/x.py'\n" + "b " * 300 + "the end")
    assert text.startswith("... b b")
    assert text.endswith("b b the end")
    assert len(text) in (403, 404)
    assert matrix_run.short(f"in {ROOT}/a.py\nbad") == "in .../a.py bad"


def test_what_cannot_be_installed_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, results: Path, removed: list[str]
) -> None:
    answer(monkeypatch, lambda _: NONE)
    assert matrix_run.run(cells.chosen("0.16.3-py3.13"), keep=True) == 0
    assert removed == []
    assert "transformers5 unsupported: no such wheel" in (results / "compatibility.md").read_text()


def test_what_a_comfyui_lacks_gives_status_1(
    monkeypatch: pytest.MonkeyPatch, results: Path, removed: list[str]
) -> None:
    answer(monkeypatch, lambda _: GOOD)
    lacking = {**GUARD, "verdict": "WILL BREAK", "missing": ["comfy.gone"]}
    monkeypatch.setattr(matrix_run, "guard", lambda *_: lacking)
    assert matrix_run.run(cells.chosen("0.16.3-py3.13"), keep=False) == 1
    text = (results / "compatibility.md").read_text()
    assert "| 0.16.3 | 3 | 5 | comfy.gone | none | will break |" in text


def test_a_result_replaces_the_one_before(results: Path) -> None:
    first, second = cells.default_cells()[:2]
    for cell, result in ((first, BAD), (second, GOOD), (first, GOOD)):
        page.record(cell, {"date": "2026-01-02", **result})
    kept = json.loads((results / "compatibility.json").read_text())["cells"]
    assert {name: result["outcome"] for name, result in kept.items()} == {
        first.name: "works",
        second.name: "works",
    }


def findings(text: str) -> set[str]:
    """What the page says of combinations and releases: rows of tables, and reasons."""
    return {line for line in text.splitlines() if line.startswith(("| ", "- 0"))}


def test_the_page_says_what_was_found() -> None:
    remedy = "run `python3 dev.py matrix --page-only`"
    found = findings(page.page(page.load()))
    assert len(found) > len(page.load()["cells"])
    assert findings(page.PAGE.read_text(encoding="utf-8")) == found, remedy
    assert page.load()["import_guard"].keys() == {release.version for release in MATRIX_RELEASES}


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        ("error: No solution found: no wheels", environment.UnsupportedError, "no wheels"),
        ("error: Failed to fetch: `x`", DevError, "cannot be reached. Go online"),
    ],
)
def test_the_network_is_told_from_the_requirements(
    said: str, error: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(environment, "FOLDER", tmp_path)
    with pytest.raises(error, match=words):
        environment.ask_uv(sys.executable, "-c", f"raise SystemExit({said!r})")


def test_every_module_of_the_pack_is_imported(comfyui_folder: Path) -> None:
    files = [name for name in published_files() if name.endswith(".py")]
    scripts = ("__init__", "__main__", "ask_packages", "ask_torch")
    single = [name for name in files if Path(name).stem not in scripts]
    packages = [name for name in files if name.endswith("/__init__.py")]
    assert len(list(modules.names())) == len(single) + len(packages)
    assert processes.modules(comfyui_folder).startswith(f"{len(single) + len(packages)} modules")


def test_the_checks_hold_in_this_environment(client: ComfyClient) -> None:
    assert "6 of 6 saved weights changed" in prompts.lora_stack(client)
    assert prompts.small_nodes(client)
    assert prompts.nodes(client) == f"{len(prompts.our_nodes())} nodes"


def test_the_checks_can_fail(client: ComfyClient, tmp_path: Path) -> None:
    class Lacking(ComfyClient):
        def get_json(self, path: str) -> Any:
            info = super().get_json(path)
            del info["VivaceLoraStack"]
            info["VivaceQwenVL"]["description"] = "It cannot be imported."
            return info

    with pytest.raises(ValueError, match=r"missing: \['VivaceLoraStack'\]; broken: .'VivaceQwenVL"):
        prompts.nodes(Lacking(client.url))
    log = tmp_path / "server.log"
    trace = "fine\nTraceback (most recent call last):\n  File '{}/a.py', line 3\nKeyError: 'x'\n"
    log.write_text(trace.format("app/assets") + "the route of ComfyUI-Vivace\n")
    assert prompts.log(log)
    log.write_text(trace.format("app/assets") + trace.format("custom_nodes/ComfyUI-Vivace"))
    with pytest.raises(ValueError, match=r"(?s)1 tracebacks.*KeyError: 'x'"):
        prompts.log(log)
    log.write_text("0.0 seconds (IMPORT FAILED): ComfyUI-Vivace\n")
    with pytest.raises(ValueError, match="import failed"):
        prompts.log(log)
