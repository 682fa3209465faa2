"""The page of measurements says what the results say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from vivace.devkit.bench import benchmarks
from vivace.devkit.bench.curve_plot import COLORS, draw_curves
from vivace.devkit.bench.curves import CONSTANT, LINEAR, Curve, exponent, measure
from vivace.devkit.bench.harness import Timings
from vivace.devkit.commands import BENCHES
from vivace.devkit.fuzz.targets import NAMES

REPORT: dict[str, Any] = {
    "date": "2026-01-02",
    "device": "cuda",
    "hardware": {"gpu": "A GPU", "cpu": "A CPU", "cores": 4, "ram_gib": 8.0},
    "versions": {"python": "3.11", "torch": "2.0", "comfyui": "0.1"},
    "notes": [],
}


def figures(text: str) -> list[str]:
    """What the page says was measured, and on what: rows of tables, and the line above them."""
    return [line for line in text.splitlines() if line.startswith(("| ", "`python3 dev.py bench"))]


def test_the_figures_of_the_page_are_those_of_the_results() -> None:
    remedy = "run `python3 dev.py bench --page-only`"
    assert figures(benchmarks.PAGE.read_text(encoding="utf-8")) == figures(benchmarks.page()), (
        remedy
    )


def test_every_measurement_has_a_section() -> None:
    assert set(benchmarks.TITLES) == set(BENCHES)
    text = benchmarks.PAGE.read_text(encoding="utf-8")
    for name, title in benchmarks.TITLES.items():
        assert f"## {title}\n\n`python3 dev.py bench {name}`" in text
    results = (benchmarks.FOLDER / "results").glob("*.json")
    assert all(path.stem.partition("-")[0] in {*BENCHES, "fuzz", "soak"} for path in results)


def test_fuzzing_has_a_row_for_each_kind_of_input() -> None:
    text = benchmarks.PAGE.read_text(encoding="utf-8").partition("## Fuzzing\n")[2]
    report = json.loads((benchmarks.FOLDER / "results" / "fuzz.json").read_text())
    assert {one["target"] for one in report["results"]} == set(NAMES)
    for one in report["results"]:
        assert f"| {one['target']} | {one['date']} | {one['inputs']:,} |" in text
    assert not any(one["findings"] for one in report["results"]), "find out, and fix it"


def test_misses_come_first_with_their_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ratio = {"median": 2.0, "min": 1.5, "max": 3.0}
    target = {"bound": "at least", "value": 2.5}
    results = [
        {"case": "a", "measure": "fine", "ratio": ratio, "target": target, "hit": True},
        {
            "case": "b",
            "measure": "slow",
            "ratio": ratio,
            "target": target,
            "hit": False,
            "reason": "memory",
        },
        {"case": "c", "measure": "just so", "ratio": ratio},
    ]
    report = {**REPORT, "notes": ["read so"], "results": results}
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "lora-cuda.json").write_text(json.dumps(report))
    (tmp_path / "lora.py").write_text('"""A title.\n\nHow it is\nmeasured.\n"""\n')
    monkeypatch.setattr(benchmarks, "FOLDER", tmp_path)
    text = benchmarks.page()
    assert (
        "`python3 dev.py bench lora`, A GPU, 4 cores, 8.0 GiB; python 3.11, torch 2.0, comfyui 0.1,"
        in text
    )
    assert "How it is measured." in text
    assert "- read so" in text
    assert "1 of 2 targets are hit." in text
    rows = [line for line in text.splitlines() if line.startswith(("| a", "| b", "| c |"))]
    assert rows == [
        "| b | slow | 2 (1.5 .. 3) | at least 2.5 | missed: memory |",
        "| a | fine | 2 (1.5 .. 3) | at least 2.5 | hit |",
        "| c | just so | 2 (1.5 .. 3) |",
    ]


def grow(size: float, timings: Timings) -> None:
    """An operation in proportion to the size, one that does not depend on it, and a part of one."""
    seconds = {"linear": size / 1000, "constant": 0.002}
    if size > 10:
        seconds["with several"] = size**2 / 1000
    for name, value in seconds.items():
        timings.seconds.setdefault(name, []).append(value)


BOUNDS = {"linear": LINEAR, "constant": CONSTANT, "with several": LINEAR}
CURVE = Curve("files", "MB", (10, 20, 40, 80), BOUNDS, grow)


def test_exponents_are_fitted_for_what_was_measured() -> None:
    results, detail = measure(CURVE, 3)
    found = {result.measure: (result.ratio["median"], result.hit) for result in results}
    assert found == {
        "linear": (pytest.approx(1), True),
        "constant": (pytest.approx(0), True),
        "with several": (pytest.approx(2), False),
    }
    assert {result.case for result in results} == {"files, 10 .. 80 MB"}
    assert [result.reason for result in results if not result.hit] == [
        "2 over the 3 largest; 6400 ms at 80"
    ]
    several = detail["operations"][2]["milliseconds"]
    assert several[0] is None
    assert several[3]["median"] == 6400
    assert exponent((1, 10, 100), (2, 20, 200)) == pytest.approx(1)


def test_every_round_goes_through_all_sizes_and_the_first_does_not_count() -> None:
    seen: list[float] = []

    def step(size: float, timings: Timings) -> None:
        seen.append(size)
        timings.seconds.setdefault("linear", []).append(float(len(seen)))

    _, detail = measure(Curve("files", "", (1, 2, 3), {"linear": LINEAR}, step), 4)
    rounds = [seen[start : start + 3] for start in range(0, 15, 3)]
    assert all(sorted(one) == [1, 2, 3] for one in rounds)
    assert len(set(map(tuple, rounds))) > 1
    least = [found["min"] for found in detail["operations"][0]["milliseconds"]]
    assert min(least) == 4000  # the first of the second round


def test_curves_have_a_table_and_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, detail = measure(CURVE, 2)
    report = {
        **REPORT,
        "results": [result.as_json() for result in results],
        "details": [detail],
    }
    (tmp_path / "results").mkdir()
    target = tmp_path / "results" / "growth-cuda.json"
    target.write_text(json.dumps(report))
    (tmp_path / "growth.py").write_text('"""A title.\n\nHow.\n"""\n')
    draw_curves(report, target.with_suffix(".png"), "Growth")
    monkeypatch.setattr(benchmarks, "FOLDER", tmp_path)
    lines = benchmarks.page().splitlines()
    assert "![Growth](devkit/bench/results/growth-cuda.png)" in lines
    assert "| operation | 10 MB | 20 MB | 40 MB | 80 MB | exponent | from 20 MB |" in lines
    constant = "2 (2 .. 2)"
    assert f"| constant |{f' {constant} |' * 4} 0 (0 .. 0) | 0 |" in lines
    assert any(line.startswith("| with several |  | 400 (400 .. 400) |") for line in lines)
    with Image.open(target.with_suffix(".png")) as picture:
        colors = {color for _, color in picture.getcolors(2**20)}
    assert set(COLORS[:3]) <= colors
    assert COLORS[3] not in colors


def test_what_was_not_measured_yet_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmarks, "FOLDER", tmp_path)
    assert "## Growth\n\n`python3 dev.py bench growth` has not been run yet." in benchmarks.page()
