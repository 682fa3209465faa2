"""What a file says twice of a module is applied once if it agrees, and refused if it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.good_module import GOOD, PLAIN, STEM, with_good
from support.lora_samples import FAMILIES, close, load, lora, named, random, total, write

TWICE = ("diffusion_model." + STEM, STEM)


def test_a_module_given_twice_is_applied_once_if_both_say_the_same(tmp_path: Path) -> None:
    tensors = named(TWICE[0], PLAIN) | named(TWICE[1], PLAIN)
    found = with_good(tensors, tmp_path)
    assert close(total(found, STEM, (32, 32)), PLAIN.change)
    assert sum(e.status == "ignored" for e in found.report.keys) == 3
    assert any("says the same as" in (e.reason or "") for e in found.report.keys)


def test_a_module_given_twice_with_a_difference_is_refused(tmp_path: Path) -> None:
    other = {k: t * 1.1 if t.dim() else t for k, t in PLAIN.tensors.items()}
    tensors = named(TWICE[0], PLAIN) | {f"{TWICE[1]}.{k}": t for k, t in other.items()}
    found = with_good(tensors, tmp_path)
    assert set(found.deltas) == {GOOD}
    assert all("they differ" in fault.reason for fault in found.report.faults)
    assert sum(e.status == "refused" for e in found.report.keys) == 6


def test_two_adapter_slots_that_differ_are_refused(tmp_path: Path) -> None:
    tensors = {
        f"{STEM}.lora_{f}.{slot}.weight": random(*shape, seed=i)
        for i, slot in enumerate(("default", "turbo"))
        for f, shape in (("A", (4, 32)), ("B", (32, 4)))
    }
    found = with_good(tensors, tmp_path)
    assert set(found.deltas) == {GOOD}
    assert "they differ" in found.report.faults[0].reason


def test_half_a_second_spelling_refuses_both(tmp_path: Path) -> None:
    tensors = {**named(TWICE[0], PLAIN), f"{TWICE[1]}.alpha": torch.tensor(1.0)}
    found = with_good(tensors, tmp_path)
    assert set(found.deltas) == {GOOD}
    reasons = [fault.reason for fault in found.report.faults]
    assert "only alpha, without the tensors that it belongs to" in reasons
    assert f"the file also gives it as {TWICE[1]}, which cannot be used" in reasons


@pytest.mark.parametrize("agrees", [True, False])
def test_fused_beside_split(agrees: bool, tmp_path: Path) -> None:
    block = "context_refiner.0.attention"
    tensors: dict[str, torch.Tensor] = {}
    downs, ups = [], []
    for i, part in enumerate("qkv"):
        sample = lora(32, 32, torch.float32, alpha=None)
        down, up = random(4, 32, seed=20 + i), random(32, 4, seed=30 + i)
        assert sample.tensors.keys() == {"lora_down.weight", "lora_up.weight"}
        tensors |= {f"{block}.to_{part}.lora_down.weight": down}
        tensors |= {f"{block}.to_{part}.lora_up.weight": up}
        downs.append(down)
        ups.append(up)
    fused = {"lora_down.weight": torch.cat(downs), "lora_up.weight": torch.block_diag(*ups)}
    if not agrees:
        fused["lora_up.weight"] = fused["lora_up.weight"] * 2
    tensors |= {f"{block}.qkv.{name}": tensor for name, tensor in fused.items()}
    tensors |= named("layers.0.attention.out", lora(32, 32, torch.float32))
    found = load(write(tmp_path / "a.safetensors", tensors))
    if agrees:
        exact = torch.cat([u.double() @ d.double() for u, d in zip(ups, downs, strict=True)])
        assert close(total(found, f"{block}.qkv", (96, 32)), exact)
        assert not found.report.faults
    else:
        assert set(found.deltas) == {"layers.0.attention.out"}
        assert len(found.report.faults) == 4


def test_placeholders_of_zeros_beside_a_fused_module(tmp_path: Path) -> None:
    fused = lora(96, 32, torch.float32)
    tensors = named("transformer_blocks.0.attn.to_qkv", fused)
    for part in "qkv":
        stem = f"transformer_blocks.0.attn.to_{part}"
        tensors |= {
            f"{stem}.lora_A.weight": random(4, 32),
            f"{stem}.lora_B.weight": torch.zeros(32, 4),
        }
    found = load(write(tmp_path / "a.safetensors", tensors))
    for i, part in enumerate("qkv"):
        rows = fused.change[32 * i : 32 * i + 32]
        assert close(total(found, f"transformer_blocks.0.attn.to_{part}", (32, 32)), rows)


def test_a_lora_and_a_full_change_of_one_module_add_up(tmp_path: Path) -> None:
    full = FAMILIES["diff"](32, 32, torch.float32)
    found = with_good(named(STEM, PLAIN) | named(STEM, full), tmp_path)
    assert close(total(found, STEM, (32, 32)), PLAIN.change + full.change)
