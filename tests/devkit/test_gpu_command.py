"""`dev.py gpu` without a card: all of its code runs, and what is true anywhere holds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from vivace.devkit.gpu import table
from vivace.devkit.gpu.card import Card
from vivace.devkit.gpu.claims import Claim, Measured, NotApplicableError, Outcome, Row
from vivace.devkit.gpu.session import GpuSession

MACHINE: dict[str, Any] = {
    "date": "2026-01-02",
    "device": "cuda",
    "dynamic_vram": True,
    "hardware": {"gpu": "A GPU", "cpu": "A CPU", "system": "Linux"},
    "versions": {"torch": "2.0", "comfyui": "0.1"},
}


def test_the_dry_run(comfyui_folder: Path, tmp_path: Path) -> None:
    """In a process of its own, as the command runs, with every claim."""
    command = [sys.executable, "-m", "vivace.devkit.gpu.command", "--device", "cpu"]
    command += ["--comfyui", str(comfyui_folder), "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / table.RESULTS).read_text(encoding="utf-8"))
    claims = {claim["id"]: claim for claim in report["claims"]}
    verdicts = {name: claim["verdict"] for name, claim in claims.items()}
    assert set(verdicts.values()) == {"dry run"}, verdicts
    broken = [claim for claim in claims.values() if claim["anywhere"] and not claim["held"]]
    assert not broken, broken
    assert sum(claim["anywhere"] for claim in claims.values()) >= 9
    page = (tmp_path / table.PAGE).read_text(encoding="utf-8")
    assert page in done.stdout
    assert all(f"| {claim['claim']} |" in page for claim in claims.values())
    rows = {"1", "2", "3", "4", "6", "7", "8", "9", "11", "12"}
    assert rows <= {word for c in claims.values() for word in c["about"].replace(",", "").split()}


@pytest.mark.parametrize(
    "name", ["fp8-counts", "fp8-dora", "on-device", "others-stay", "strength-leak"]
)
def test_what_is_about_dynamic_vram_holds_on_the_double_of_a_card(
    comfyui: Any, name: str, tmp_path: Path
) -> None:
    from vivace.devkit.doubles.dynamic_vram.dynamic_vram import dynamic_vram
    from vivace.devkit.doubles.dynamic_vram.second_device import DEVICE
    from vivace.devkit.gpu.every_claim import CLAIMS

    (claim,) = [claim for claim in CLAIMS if claim.id == name]
    with torch.inference_mode(), dynamic_vram():
        (row,) = GpuSession([claim], Card(DEVICE, tmp_path, dynamic=True)).run()
    assert row.outcome is Outcome.HOLDS, row.text
    if name == "on-device":
        assert row.values["dynamic"]
    if name == "fp8-counts":
        assert (row.values["stored"], row.values["used"]) == ("float32", "float8_e4m3fn")


def claim(name: str, measure: Callable[[Card], Measured], seconds: float = 1.0) -> Claim:
    return Claim(name, "a row", f"It | is {name}", measure, seconds, anywhere=False)


def good(card: Card) -> Measured:
    return Measured("3 of 3", holds=True, values={"found": 3})


def bad(card: Card) -> Measured:
    return Measured("2 of 3", holds=False)


def broken(card: Card) -> Measured:
    raise RuntimeError("CUDA error:\n no kernel image")


def elsewhere(card: Card) -> Measured:
    raise NotApplicableError("there is one card")


def outcomes(rows: list[Row]) -> list[Outcome]:
    return [row.outcome for row in rows]


@pytest.fixture
def gpu(tmp_path: Path) -> Card:
    """Nothing is computed there."""
    return Card(torch.device("cuda", 0), tmp_path, dynamic=False)


def test_a_claim_that_fails_does_not_end_the_rest(gpu: Card) -> None:
    claims = [claim("a", broken), claim("b", elsewhere), claim("c", bad), claim("d", good)]
    rows = list(GpuSession(claims, gpu).run())
    wanted = [Outcome.FAILS, Outcome.NOT_APPLICABLE, Outcome.FAILS, Outcome.HOLDS]
    assert outcomes(rows) == wanted
    assert rows[0].text.startswith("RuntimeError: CUDA error: no kernel image")
    assert [row.held for row in rows] == [None, None, False, True]
    page = table.as_markdown(MACHINE, rows)
    assert "4 claims: holds: 1; fails: 2; not applicable here: 1." in page
    assert "| a row | It / is d | 3 of 3 | holds |" in page
    assert "dry run" not in page
    assert table.as_json(MACHINE, rows)["claims"][3]["values"] == {"found": 3}


def test_what_would_take_too_long_is_not_begun(gpu: Card) -> None:
    times: Iterator[float] = iter([0.0, 0.0, 0.0, 3.0, 3.0, 4.0, 4.0, 4.5])
    claims = [claim("a", good), claim("long", good, seconds=8.0), claim("c", good)]
    session = GpuSession(claims, gpu, limit=10.0, clock=lambda: next(times))
    rows = list(session.run())
    assert outcomes(rows) == [Outcome.HOLDS, Outcome.NOT_REACHED, Outcome.HOLDS]
    assert rows[1].text == "7 s were left, it may take 8 s"
    assert rows[0].seconds == 3.0


def test_what_hangs_is_told_as_not_reached(gpu: Card) -> None:
    """The rows are asked for by another thread while a claim is measured."""
    seen: list[list[Outcome]] = []

    def hangs(_: Card) -> Measured:
        seen.append(outcomes(session.rows()))
        return good(gpu)

    session = GpuSession([claim("a", good), claim("b", hangs), claim("c", good)], gpu)
    list(session.run())
    assert seen == [[Outcome.HOLDS, Outcome.NOT_REACHED, Outcome.NOT_REACHED]]
    assert outcomes(session.rows()) == [Outcome.HOLDS] * 3


def test_without_dynamic_vram_claims_about_it_are_left_out(gpu: Card) -> None:
    with pytest.raises(NotApplicableError, match="dynamic VRAM is off"):
        gpu.needs_dynamic()
