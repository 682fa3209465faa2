"""The page of measurements says what the results say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from vivace.bench import benchmarks
from vivace.devkit.commands import BENCHES


def test_the_page_is_that_of_the_results() -> None:
    remedy = "run `python3 dev.py bench --page-only`"
    assert benchmarks.PAGE.read_text(encoding="utf-8") == benchmarks.page(), remedy


def test_every_measurement_has_a_section() -> None:
    assert set(benchmarks.TITLES) == set(BENCHES)
    text = benchmarks.PAGE.read_text(encoding="utf-8")
    for name, title in benchmarks.TITLES.items():
        assert f"## {title}\n\n`python3 dev.py bench {name}`" in text
    results = (benchmarks.FOLDER / "results").glob("*.json")
    assert all(path.stem.partition("-")[0] in BENCHES for path in results)


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
    report = {
        "date": "2026-01-02",
        "device": "cuda",
        "hardware": {"gpu": "A GPU", "cpu": "A CPU", "cores": 4, "ram_gib": 8.0},
        "versions": {"python": "3.11"},
        "notes": ["read so"],
        "results": results,
    }
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "lora-cuda.json").write_text(json.dumps(report))
    (tmp_path / "lora.py").write_text('"""A title.\n\nHow it is\nmeasured.\n"""\n')
    monkeypatch.setattr(benchmarks, "FOLDER", tmp_path)
    text = benchmarks.page()
    assert "`python3 dev.py bench lora`, A GPU, 4 cores, 8.0 GiB; python 3.11, 2026-01-02." in text
    assert "How it is measured." in text
    assert "- read so" in text
    assert "1 of 2 targets are hit." in text
    rows = [line for line in text.splitlines() if line.startswith(("| a", "| b", "| c |"))]
    assert rows == [
        "| b | slow | 2 (1.5 .. 3) | at least 2.5 | missed: memory |",
        "| a | fine | 2 (1.5 .. 3) | at least 2.5 | hit |",
        "| c | just so | 2 (1.5 .. 3) |",
    ]
