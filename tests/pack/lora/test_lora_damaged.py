"""A fault in a module of a file drops that module, is reported, and harms no other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.lora_samples import (
    close,
    load,
    lora,
    named,
    random,
    total,
    write,
)
from vivace.lora.errors import LoraModelError

GOOD = "transformer_blocks.0.attn.to_k"
BAD = "transformer_blocks.0.attn.to_q"


def both(bad: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**named(GOOD, lora(32, 32, torch.float32)), **bad}


def plain(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    tensors = {"lora_down.weight": random(4, 32), "lora_up.weight": random(32, 4)}
    tensors["alpha"] = torch.tensor(2.0)
    tensors |= {name.replace("__", "."): t for name, t in changes.items() if t is not None}
    for name, value in changes.items():
        if value is None:
            del tensors[name.replace("__", ".")]
    return {f"{BAD}.{name}": t for name, t in tensors.items()}


def poisoned(value: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    tensor = random(32, 4).to(dtype)
    tensor.view(torch.uint8 if dtype.itemsize == 1 else dtype)[3, 2] = (
        0x7F if dtype.itemsize == 1 else value
    )
    return tensor


FAULTS: dict[str, tuple[dict[str, torch.Tensor], str]] = {
    "NaN": (plain(lora_up__weight=poisoned(float("nan"))), "NaN or infinity"),
    "infinity": (plain(lora_up__weight=poisoned(float("inf"))), "NaN or infinity"),
    "minus infinity bf16": (
        plain(lora_up__weight=poisoned(float("-inf"), torch.bfloat16)),
        "NaN or infinity",
    ),
    "NaN fp16": (plain(lora_up__weight=poisoned(float("nan"), torch.float16)), "NaN or infinity"),
    "NaN fp8": (plain(lora_up__weight=poisoned(0, torch.float8_e4m3fn)), "NaN or infinity"),
    "NaN alpha": (plain(alpha=torch.tensor(float("nan"))), "NaN or infinity"),
    "no up": (plain(lora_up__weight=None), "up is missing"),
    "no down": (plain(lora_down__weight=None), "down is missing"),
    "alpha alone": (plain(lora_up__weight=None, lora_down__weight=None), "only alpha"),
    "alpha of two": (plain(alpha=torch.ones(2)), "alpha has shape [2]"),
    "rank mismatch": (plain(lora_up__weight=random(32, 5)), "rank 5"),
    "rank 0": (plain(lora_up__weight=random(32, 0), lora_down__weight=random(0, 32)), "rank 0"),
    "wrong input": (plain(lora_down__weight=random(4, 33)), "32x33 weight"),
    "wrong output": (plain(lora_up__weight=random(31, 4)), "31x32 weight"),
    "one-dimensional": (plain(lora_up__weight=random(32)), "two dimensions"),
    "convolution": (plain(lora_down__weight=random(4, 32, 3, 3)), "convolution"),
    "integers": (plain(lora_up__weight=torch.ones(32, 4, dtype=torch.int8)), "I8"),
    "wide core": (plain(lora_mid__weight=random(4, 4, 3, 3)), "convolution"),
    "odd core": (plain(lora_mid__weight=random(4, 5)), "cannot be folded"),
    "alpha of an odd type": (
        plain(alpha=torch.ones(1, dtype=torch.uint16)),
        "alpha is stored as U16",
    ),
    "full change with a magnitude": (
        {f"{BAD}.diff": random(32, 32), f"{BAD}.dora_scale": torch.ones(32, 1)},
        "magnitude without",
    ),
    "two families": (plain(lokr_w1=random(4, 4), lokr_w2=random(8, 8)), "tensors of LoRA and LoKr"),
    "two magnitudes": (plain(dora_scale=torch.ones(32), magnitude=torch.ones(32)), "two DoRA"),
    "wrong magnitude": (plain(dora_scale=torch.ones(31)), "magnitude of shape [31]"),
    "column magnitude by a row name": (plain(magnitude=torch.ones(1, 32)), "magnitude of shape"),
    "kronecker sizes": (
        {f"{BAD}.lokr_w1": random(4, 4), f"{BAD}.lokr_w2": random(9, 8)},
        "36x32 weight",
    ),
    "kronecker half": ({f"{BAD}.lokr_w1": random(4, 4)}, "lokr_w2_a is missing"),
    "kronecker twice": (
        {
            f"{BAD}.lokr_w1": random(4, 4),
            f"{BAD}.lokr_w1_a": random(4, 4),
            f"{BAD}.lokr_w2": random(8, 8),
        },
        "both whole and as factors",
    ),
    "kronecker vector": (
        {f"{BAD}.lokr_w1": random(4), f"{BAD}.lokr_w2": random(8, 8)},
        "shape [4]",
    ),
    "half a LoHa": ({f"{BAD}.hada_w1_a": random(32, 2)}, "hada_w1_b is missing"),
    "uneven LoHa": (
        {
            f"{BAD}.hada_w1_a": random(32, 2),
            f"{BAD}.hada_w1_b": random(2, 32),
            f"{BAD}.hada_w2_a": random(32, 2),
            f"{BAD}.hada_w2_b": random(2, 31),
        },
        "differ in shape",
    ),
    "full change of wrong shape": ({f"{BAD}.diff": random(32, 31)}, "diff has shape"),
    "bias change of wrong shape": ({f"{BAD}.diff_b": random(31)}, "diff_b has shape"),
    "LoRA on a norm": (
        {
            "transformer_blocks.0.attn.norm_q.lora_A.weight": random(1, 8),
            "transformer_blocks.0.attn.norm_q.lora_B.weight": random(8, 1),
        },
        "weights of shape [8]",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_drops_its_module_only(case: str, tmp_path: Path) -> None:
    bad, reason = FAULTS[case]
    found = load(write(tmp_path / "a.safetensors", both(bad)))
    assert set(found.deltas) == {GOOD}
    (fault,) = found.report.faults
    assert reason in fault.reason
    assert (found.report.modules_matched, found.report.modules_total) == (1, 2)
    assert close(total(found, GOOD, (32, 32)), lora(32, 32, torch.float32).change)
    assert reason in found.report.line()


def test_huge_finite_values_are_not_taken_for_infinity(tmp_path: Path) -> None:
    a = torch.full((4, 32), 3e38)
    tensors = {f"{GOOD}.lora_A.weight": a, f"{GOOD}.lora_B.weight": torch.full((32, 4), 1e-38)}
    found = load(write(tmp_path / "a.safetensors", tensors))
    assert not found.report.faults
    assert set(found.deltas) == {GOOD}


def test_a_layer_without_bias_gets_one(tmp_path: Path) -> None:
    stem, module = "layers.0.attention.to_out.0", "layers.0.attention.out"
    sample, bias = lora(32, 32, torch.float32), random(32)
    found = load(write(tmp_path / "a.safetensors", {**named(stem, sample), f"{stem}.diff_b": bias}))
    assert close(total(found, module, (32, 32)), sample.change)
    assert close(total(found, module, (32,), "bias"), bias)


def test_a_norm_without_bias_is_refused_with_its_bias(tmp_path: Path) -> None:
    norm = "layers.0.attention_norm1"
    tensors = {f"{norm}.w_norm": random(32), f"{norm}.b_norm": random(32)}
    tensors |= named("layers.0.attention.out", lora(32, 32, torch.float32))
    found = load(write(tmp_path / "a.safetensors", tensors))
    assert set(found.deltas) == {"layers.0.attention.out"}
    assert "no bias" in found.report.faults[0].reason


def test_bias_of_a_missing_projection(tmp_path: Path) -> None:
    tensors = both({f"{BAD}.lora_B.bias": random(32)})
    found = load(write(tmp_path / "a.safetensors", tensors))
    assert set(found.deltas) == {GOOD}
    assert len(found.report.faults) == 1


def test_column_magnitude_cannot_be_cut(tmp_path: Path) -> None:
    stem = "layers.0.feed_forward.net.0.proj"
    tensors = named(stem, lora(96, 32, torch.float32)) | {f"{stem}.dora_scale": torch.ones(1, 32)}
    tensors |= named("layers.0.attention.out", lora(32, 32, torch.float32))
    found = load(write(tmp_path / "a.safetensors", tensors))
    assert set(found.deltas) == {"layers.0.attention.out"}
    assert "cannot be split" in found.report.faults[0].reason


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", plain(lora_up__weight=None))
    with pytest.raises(LoraModelError, match=r"none of its 1 modules.*up is missing"):
        load(path)
    oft = {f"{BAD}.oft_R.weight": random(2, 6), f"{BAD}.alpha": torch.tensor(1.0)}
    with pytest.raises(LoraModelError, match="OFT"):
        load(write(tmp_path / "b.safetensors", oft))


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float16, torch.float64])
def test_alpha_of_any_number_type(dtype: torch.dtype, tmp_path: Path) -> None:
    found = load(write(tmp_path / "a.safetensors", plain(alpha=torch.tensor(2).to(dtype))))
    expected = random(32, 4).double() @ random(4, 32).double() * 2 / 4
    assert close(total(found, BAD, (32, 32)), expected)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_sparse_tensors_of_a_pickle_are_dropped(tmp_path: Path) -> None:
    torch.save(both(plain(lora_up__weight=random(32, 4).to_sparse())), tmp_path / "a.pt")
    found = load(tmp_path / "a.pt")
    assert set(found.deltas) == {GOOD}
    assert "sparse" in found.report.faults[0].reason
