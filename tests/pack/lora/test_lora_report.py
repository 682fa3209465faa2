"""Reports and the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.lora_samples import key_cases, lora, named, random, write
from vivace.cli.main import main
from vivace.lora.examine import inspect
from vivace.lora.report import markdown

ROOT = Path(__file__).parents[4]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    stem = "diffusion_model.transformer_blocks.0.attn"
    tensors = named(f"{stem}.to_q", lora(3072, 3072, torch.float16, rank=2))
    tensors |= named(f"{stem}.to_k", lora(3072, 3072, torch.float16, rank=8))
    tensors |= {f"{stem}.to_v.lora_A.weight": random(2, 3072).half()}
    tensors |= {f"{stem}.to_out.0.oft_blocks": random(2, 2, 2), "lora_te_a.alpha": random(1)}
    tensors |= {f"unheard.of.{i}.lora_A.weight": random(1) for i in range(5)}
    label = {"ss_base_model_version": "qwen_image"}
    return write(tmp_path / "mixed.safetensors", tensors, label)


def test_line(mixed: Path) -> None:
    line = inspect(mixed).line()
    assert "\n" not in line
    assert line.startswith(f"{mixed}: qwen_image LoRA rank 2-8; 2 of 9 modules; ")
    assert (
        "1 tensor ignored: text encoder: only the diffusion model is patched (lora_te_a.a" in line
    )
    assert "5 unmatched: unheard.of.0.lora_A.weight, " in line
    assert "and 2 more" in line
    assert "2 modules dropped: transformer_blocks.0.attn.to_out.0 oft_blocks has shape" in line
    assert "transformer_blocks.0.attn.to_v up is missing" in line
    assert line.endswith("; 122.9 kB") or line.endswith("; 123 kB")


def test_every_tensor_has_a_fate(mixed: Path) -> None:
    report = inspect(mixed)
    fates = ("mapped", "refused", "ignored", "unmatched")
    counts = [len(report.names(status)) for status in fates]
    assert counts == [6, 2, 1, 5]
    assert sum(counts) == len(report.keys)


def test_markdown(mixed: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.safetensors", {"x.lora_A.weight": random(1)})
    text = markdown([inspect(mixed), inspect(other)])
    lines = text.splitlines()
    assert len({line.count("|") for line in lines[:4]}) == 1
    assert "| 2 of 9 | 1 | 5 | 2 |" in lines[2]
    assert "| not applied | 0 of 1 | 0 | 1 | 0 |" in lines[3]
    assert any("`transformer_blocks.0.attn.to_v` dropped: up is missing" in line for line in lines)
    assert any("not applied, no supported model" in line for line in lines)


def test_hostile_names_stay_on_one_printable_line(tmp_path: Path) -> None:
    nasty = "x\n\x1b[31m`|\u202e" + "y" * 5000 + ".lora_A.weight"
    stem = "transformer_blocks.0.attn.to_q"
    tensors = {nasty: random(1), **named(stem, lora(3072, 3072, torch.float16, rank=1))}
    report = inspect(write(tmp_path / "a.safetensors", tensors))
    line = report.line()
    assert line.isprintable()
    assert len(line) < 1000
    assert all(part.isprintable() for part in markdown([report]).splitlines())
    keys = json.loads(json.dumps(report.to_json()))["keys"]
    assert nasty in [entry["key"] for entry in keys], "programs get the name as it is"


def other_model(case: dict) -> bool:
    """Whether a case is one of another model, which a file cannot have beside its own."""
    return "other model" in case["producer"] or "look-alike" in case["producer"]


def test_json_of_collected_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = {
        family: [c for c in key_cases() if c["family"] == family and not other_model(c)]
        for family in ("qwen_image", "z_image")
    }
    paths = [
        write(tmp_path / f"{family}.safetensors", {c["key"]: random(2, 2) for c in found})
        for family, found in cases.items()
    ]
    assert main(["lora", "inspect", *map(str, paths), "--json"]) == 0
    output = json.loads(capsys.readouterr().out)
    for path, (family, found), result in zip(paths, cases.items(), output, strict=True):
        assert (result["file"], result["architecture"]) == (str(path), family)
        keys = {entry["key"]: entry for entry in result["keys"]}
        assert all(
            set(e) == {"key", "module", "part", "role", "status", "reason"} for e in keys.values()
        )
        for case in found:
            expect = case["expect"]
            entry = keys[case["key"]]
            assert [entry[k] for k in ("module", "part", "role")] == [
                expect[k] for k in ("module", "part", "role")
            ]


@pytest.mark.parametrize(
    "case", [c for c in key_cases() if not other_model(c)], ids=lambda c: c["id"]
)
def test_json_of_single_key_files(
    case: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "a.safetensors", {case["key"]: random(2, 2)})
    assert main(["lora", "inspect", str(path), "--json"]) == 0
    ((result,),) = (json.loads(capsys.readouterr().out),)
    (entry,) = result["keys"]
    expect = case["expect"]
    assert [entry[k] for k in ("module", "part", "role")] == [
        expect[k] for k in ("module", "part", "role")
    ]
    assert result["architecture"] == (case["family"] if expect["module"] else None)


def test_broken_files_do_not_stop_the_others(mixed: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"")
    arguments = ["-m", "vivace", "lora", "inspect", str(broken), str(tmp_path / "none"), str(mixed)]
    plain = run(*arguments)
    assert plain.returncode == 1
    lines = plain.stdout.splitlines()
    assert [str(broken) in lines[0], "no such file" in lines[1], "rank 2-8" in lines[2]] == [
        True
    ] * 3
    assert not plain.stderr
    output = run(*arguments, "--json")
    assert output.returncode == 1
    first, second, third = json.loads(output.stdout)
    assert "empty" in first["error"]
    assert (second["architecture"], second["keys"]) == (None, [])
    assert third["architecture"] == "qwen_image"


def test_usage_errors() -> None:
    assert run("-m", "vivace", "lora").returncode == 2
    assert run("-m", "vivace", "lora", "inspect").returncode == 2


def test_inspecting_imports_neither_torch_nor_safetensors(mixed: Path) -> None:
    code = (
        "import sys; from vivace.cli.main import main;"
        f"main(['lora', 'inspect', {str(mixed)!r}]);"
        "print([m for m in ('torch', 'numpy', 'safetensors') if m in sys.modules])"
    )
    result = run("-c", code)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr
