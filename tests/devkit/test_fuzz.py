"""Fuzzing in bounds: some inputs of every kind, and those that once broke something.

``python3 dev.py fuzz`` runs any number of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from vivace.devkit.fuzz import hunt
from vivace.devkit.fuzz.lora_samples import ARCHITECTURES, samples
from vivace.devkit.fuzz.session import Session, inputs
from vivace.devkit.fuzz.targets import NAMES, find
from vivace.devkit.fuzz.valued_files import valued_file
from vivace.lora import repeated_modules
from vivace.lora.factors import adapters
from vivace.lora.loader import load_lora
from vivace.lora.mapping import key_map as mapping
from vivace.lora.mapping.adapter_config import AdapterConfig
from vivace.lora.mapping.key_map import IGNORED, MAPPED

SEED = 20
# Inputs of each kind, and how many different refusals these meet at least.
BOUNDS = {
    "safetensors_file": (300, 14),
    "lora_keys": (150, 3),
    "lora_tampered": (90, 2),
    "svdquant_file": (60, 6),
    "lora_rows": (120, 10),
    "prompt_text": (300, 5),
    "workflow_file": (120, 2),
    "prompt_library": (60, 6),
    "server_reply": (150, 1),
    "image_file": (150, 8),
}
REGRESSIONS = sorted(path for path in hunt.REGRESSIONS.glob("*/*"))


@pytest.mark.parametrize("name", NAMES)
def test_made_up_input_is_taken_or_refused(name: str) -> None:
    target = find(name)
    session = Session(name, target.target)
    session.warm_up(target.seeds())
    count, kinds = BOUNDS[name]
    for data in islice(inputs(target, SEED), count):
        finding = session.run(data)
        assert finding is None, f"{finding.trace}\n{finding.data!r}"
    assert session.inputs == count
    assert len(session.refusals) >= kinds


# How many of the seeds are taken without any refusal; others are valid in one reading of several.
TAKEN = {
    "safetensors_file": 3,
    "lora_keys": 18,
    "lora_tampered": 27,
    "svdquant_file": 3,
    "prompt_text": 4,
}


@pytest.mark.parametrize("name", TAKEN)
def test_valid_input_is_taken(name: str) -> None:
    target = find(name)
    taken = 0
    for data in target.seeds():
        session = Session(name, target.target)
        assert session.run(data) is None
        taken += not session.refusals
    assert taken == TAKEN[name]


def test_every_sample_of_a_lora_is_applied_whole(tmp_path: Path) -> None:
    for number, sample in enumerate(samples()):
        file = valued_file(sample)
        assert file is not None
        folder = tmp_path / str(number)
        folder.mkdir()
        report = load_lora(file.write(folder), architectures=ARCHITECTURES).report
        assert not report.faults
        assert {key.status for key in report.keys} <= {MAPPED, IGNORED}


def _scales_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "SCALE_OF", {})


def _alpha_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "usable_number", lambda name, tensor: 1.0)


def _stated_scale_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AdapterConfig, "scale", lambda *_: 1.0)


def _repetition_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated_modules, "require_same", lambda *_: None)


def _forget_names() -> None:
    mapping.resolve_names.cache_clear()
    mapping.map_key_set.cache_clear()


def _unknown_tensors_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "find_inside", lambda *_: None)


@pytest.mark.parametrize(
    "defect",
    [
        _scales_left_out,
        _alpha_left_out,
        _stated_scale_left_out,
        _repetition_not_compared,
        _unknown_tensors_left_out,
    ],
)
def test_a_tensor_that_is_left_out_is_a_finding(
    defect: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    defect(monkeypatch)
    _forget_names()
    first, *others = samples()
    to_q = "transformer_blocks.0.attn.to_q"
    down, up = ["F32", [2, 32], 7], ["F32", [32, 2], 8]
    made = [
        {**first["tensors"], f"transformer.{to_q}.x": ["F32", []]},
        {**first["tensors"], f"{to_q}.lora_A.weight": down, f"{to_q}.lora_B.weight": up},
    ]
    session = Session("planted", find("lora_tampered").target)
    for sample in (*({**first, "tensors": tensors} for tensors in made), *others):
        if session.run(json.dumps(sample).encode()) is not None:
            break
    _forget_names()
    assert session.findings


@pytest.mark.parametrize("path", REGRESSIONS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_once_broke_something_does_no_more(path: Path) -> None:
    name = path.parent.name
    finding = Session(name, find(name).target).run(path.read_bytes())
    assert finding is None, finding.trace


def test_there_are_bounds_and_seeds_for_every_target() -> None:
    assert BOUNDS.keys() == set(NAMES)
    assert {path.parent.name for path in REGRESSIONS} <= set(NAMES)
    for name in NAMES:
        target = find(name)
        assert sum(map(len, target.seeds())) < 96 * 2**10
        assert list(islice(inputs(target, 3), 5)) == list(islice(inputs(target, 3), 5))
