"""The change of every format equals a float64 reference worked out in another way."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.lora_samples import (
    DTYPES,
    FAMILIES,
    PLACES,
    QWEN,
    TINY,
    Z_IMAGE,
    Sample,
    close,
    load,
    lora,
    named,
    random,
    total,
    write,
)
from vivace.lora.compose import Composer
from vivace.lora.errors import LoraModelError
from vivace.lora.factors.branch import Branch
from vivace.lora.factors.delta import Delta, LowRank
from vivace.lora.loader import Lora
from vivace.lora.mapping.architecture import Architecture, Target
from vivace.lora.mapping.module_names import find, spellings
from vivace.lora.stack import LoraSet

QUICK = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def target_of(stem: str) -> Target:
    owners = find(stem, spellings(TINY))
    assert owners is not None
    return owners[0].target


def assembled(found: Lora, architecture: Architecture, target: Target) -> torch.Tensor:
    """The change of a target, put together from canonical modules."""
    pieces = []
    for block in target.blocks:
        module = architecture.modules[block.module]
        start, stop = architecture.rows(block.module, block.part)
        pieces.append(total(found, block.module, module.shape)[start:stop])
    return torch.cat(pieces)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("family", FAMILIES)
def test_matrix(family: str, place: str, dtype: str, tmp_path: Path) -> None:
    stem, architecture = PLACES[place]
    target = target_of(stem)
    out, inp = target.shape
    sample = FAMILIES[family](out, inp, DTYPES[dtype])
    found = load(write(tmp_path / "a.safetensors", named(stem, sample)))
    assert not found.report.faults
    assert found.architecture is architecture
    assert close(assembled(found, architecture, target), sample.change)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_form_of_a_delta_agrees(family: str, place: str, tmp_path: Path) -> None:
    stem, _ = PLACES[place]
    out, inp = target_of(stem).shape
    sample = FAMILIES[family](out, inp, torch.float32)
    found = load(write(tmp_path / "a.safetensors", named(stem, sample)))
    x = random(3, 5, inp, seed=9)
    fine = 1e-6 if family == "lora mid" else 1e-14  # the core of LoCon is folded in float32
    start = 0
    for entry in sorted(
        (e for entries in found.deltas.values() for e in entries),
        key=lambda e: (
            ["w3", "to_q", "to_k", "w1", "to_v"].index(e.module.rpartition(".")[2])
            if len(found.deltas) > 1
            else 0
        ),
    ):
        delta = entry.delta
        assert isinstance(delta, Delta)
        stop = start + entry.stop - entry.start
        expected = sample.change[start:stop]
        start = stop
        assert delta.shape == tuple(expected.shape)
        assert close(delta.matrix(), expected)
        assert close(delta.matrix(torch.float64), expected, fine)
        assert close(delta.apply(x), x.double() @ expected.T)
        assert close(delta.scaled(-2.5).scaled(2.0).matrix(), expected * -5.0)
        assert close(delta.to(dtype=torch.float64).matrix(torch.float64), expected, fine)
        whole = delta.shape[0]
        assert close(delta.rows(0, whole).matrix(), expected)
        low = delta.low_rank()
        if low is not None:
            assert close(low.matrix(), expected)
            assert low.rank * sum(low.shape) < math.prod(low.shape) or isinstance(delta, LowRank)
    assert start == out


@pytest.mark.parametrize("expand", [0, 4, 1000])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("family", FAMILIES)
def test_branch(family: str, place: str, expand: int, tmp_path: Path) -> None:
    stem, architecture = PLACES[place]
    target = target_of(stem)
    out, inp = target.shape
    sample = FAMILIES[family](out, inp, torch.float32)
    found = load(write(tmp_path / "a.safetensors", named(stem, sample)))
    fusions = [target.module] if target.module in architecture.fusions else []
    composer = Composer(architecture, fusions, expand_rank=expand)
    (branch,) = composer.compose(LoraSet([(found, 0.75)])).values()
    rows = slice(0, out)
    if target.part is not None:
        rows = slice(*architecture.rows(target.module, target.part))
    expected = torch.zeros(branch.shape, dtype=torch.float64)
    expected[rows] = sample.change * 0.75
    x = random(4, inp, seed=3)
    assert close(branch.matrix(), expected)
    assert close(branch.apply(x), x.double() @ expected.T)


def test_factors_are_not_copied_or_rounded_by_alpha(tmp_path: Path) -> None:
    stem, _ = PLACES["qwen to_q"]
    sample = lora(32, 32, torch.bfloat16, rank=3, alpha=0.7)
    found = load(write(tmp_path / "a.safetensors", named(stem, sample)))
    ((entry,),) = found.deltas.values()
    assert isinstance(entry.delta, LowRank)
    assert torch.equal(entry.delta.A, sample.tensors["lora_down.weight"])
    assert torch.equal(entry.delta.B, sample.tensors["lora_up.weight"])
    assert entry.delta.scale == pytest.approx(0.7 / 3)
    again = entry.delta.scaled(2.0)
    assert again.A.data_ptr() == entry.delta.A.data_ptr()
    assert again.B.data_ptr() == entry.delta.B.data_ptr()


# Biases, norms, and other parameters


def test_bias_norm_and_token_changes(tmp_path: Path) -> None:
    up_bias, diff_b = random(32, seed=1), random(192, seed=2)
    q, mod = "transformer_blocks.0.attn.to_q", "transformer_blocks.0.img_mod.1"
    norm = random(8, seed=3)
    sample = lora(32, 32, torch.float32, rank=4, alpha=3.0)
    tensors = {**named(q, sample), f"{q}.lora_B.bias": up_bias, f"{q}.diff_b": random(32, seed=4)}
    tensors |= {f"{mod}.diff_b": diff_b, "transformer_blocks.0.attn.norm_q.w_norm": norm}
    found = load(write(tmp_path / "a.safetensors", tensors))
    expected = random(32, seed=4).double() + up_bias.double() * 0.75
    assert close(total(found, q, (32,), "bias"), expected)
    assert close(total(found, mod, (192,), "bias"), diff_b)
    assert close(total(found, "transformer_blocks.0.attn.norm_q", (8,)), norm)
    branches = Composer(QWEN).compose(LoraSet([(found, 2.0)]))
    x = random(3, 32, seed=5)
    assert close(branches[q].apply(x), x.double() @ sample.change.T * 2 + expected * 2)
    assert close(branches[mod].apply(x), (diff_b.double() * 2).expand(3, 192))
    assert close(branches["transformer_blocks.0.attn.norm_q"].matrix(), norm.double() * 2)
    with pytest.raises(ValueError, match="not a linear map"):
        branches["transformer_blocks.0.attn.norm_q"].terms[0].delta.apply(x)  # type: ignore[call-arg]


def test_token_change(tmp_path: Path) -> None:
    change = random(1, 32, seed=1)
    tensors = {"diffusion_model.x_pad_token.diff": change}
    found = load(write(tmp_path / "a.safetensors", tensors))
    assert close(total(found, "x_pad_token", (1, 32)), change)
    assert Z_IMAGE.modules["x_pad_token"].parameter_name() == "x_pad_token"


# Scales stated in the header


def scale_of(found: Lora, module: str) -> float:
    (entry,) = found.deltas[module]
    assert isinstance(entry.delta, LowRank)
    return entry.delta.scale


def adapter(**values: object) -> dict[str, str]:
    table = {f"transformer.{name}": value for name, value in values.items()}
    return {"lora_adapter_metadata": json.dumps(table)}


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, 1.0),
        (adapter(r=4, lora_alpha=2), 0.5),
        (adapter(r=4, lora_alpha=8, use_rslora=True), 4.0),
        (adapter(r=4, lora_alpha=2, alpha_pattern={"attn.to_q": 6}), 1.5),
        (adapter(r=4, lora_alpha=2, alpha_pattern={"to_k": 6}), 0.5),
        (adapter(r=4, lora_alpha=2, alpha_pattern={"^transformer_blocks.0.attn.to_q$": 1}), 0.25),
        ({"lora_adapter_metadata": json.dumps({"r": 4, "lora_alpha": 2})}, 0.5),
        ({"lora_adapter_metadata": "{broken"}, None),
        ({"lora_adapter_metadata": "[1]"}, None),
        ({"ss_network_alpha": "1", "ss_network_dim": "4"}, 1.0),
        (adapter(r=4), None),
        (adapter(r=8, lora_alpha=8), None),
        (adapter(r=4, lora_alpha="many"), None),
        (adapter(r=4, lora_alpha=math.nan), None),
        (adapter(r=4, lora_alpha=2, alpha_pattern={"to_q": "many"}), None),
        (adapter(r=4, lora_alpha=2, alpha_pattern=["to_q"]), None),
        (adapter(r=8, lora_alpha=2, rank_pattern={"to_q": 4}), 0.5),
        ({"lora_alpha": "2", "lora_rank": "4", "model_type": "zimage"}, 0.5),
    ],
)
def test_alpha_from_the_header(
    metadata: dict[str, str], expected: float | None, tmp_path: Path
) -> None:
    stem = "transformer_blocks.0.attn.to_q"
    tensors = named(f"transformer.{stem}", lora(32, 32, torch.float32, alpha=None))
    path = write(tmp_path / "a.safetensors", tensors, metadata)
    if expected is None:
        with pytest.raises(LoraModelError, match="header"):
            load(path)
    else:
        assert scale_of(load(path), stem) == pytest.approx(expected)
    tensors[f"transformer.{stem}.alpha"] = torch.tensor(3.0)
    found = load(write(tmp_path / "b.safetensors", tensors, metadata))
    assert scale_of(found, stem) == pytest.approx(0.75), "an alpha tensor wins"


@pytest.mark.parametrize("pattern", ["(a+)+$", "to_(q", ".*.*.*.*.*x", "a?" * 40, "x" * 300 + "|y"])
def test_patterns_that_cannot_be_matched_drop_the_module(pattern: str, tmp_path: Path) -> None:
    stem = "transformer_blocks.0.attn.to_q"
    tensors = named(stem, lora(32, 32, torch.float32, alpha=None))
    tensors |= named("transformer_blocks.0.attn.to_k", lora(32, 32, torch.float32))
    metadata = adapter(r=4, lora_alpha=2, alpha_pattern={pattern: 6})
    found = load(write(tmp_path / "a.safetensors", tensors, metadata))
    assert set(found.deltas) == {"transformer_blocks.0.attn.to_k"}
    assert "pattern" in found.report.faults[0].reason


def test_lokr_alpha_from_the_header(tmp_path: Path) -> None:
    sample = FAMILIES["lokr whole, low, no alpha"](32, 32, torch.float32)
    metadata = {"networkType": "lokr", "alpha": "6", "rank": "3"}
    tensors = named("layers.0.attention.to_q", sample)
    found = load(write(tmp_path / "a.safetensors", tensors, metadata))
    qkv = total(found, "layers.0.attention.qkv", (96, 32))
    assert close(qkv[:32], sample.change * 6 / 3)


# Properties


def normal(value: float) -> bool:
    """Whether a scale is far from float32's subnormal range."""
    return abs(value) > 1e-12


@QUICK
@given(
    ranks=st.lists(st.integers(0, 6), min_size=3, max_size=3),
    alphas=st.lists(st.none() | st.floats(-8, 8, width=32).filter(normal), min_size=3, max_size=3),
    dtype=st.sampled_from(sorted(DTYPES)),
    strength=st.floats(-1e6, 1e6).filter(normal) | st.sampled_from([0.0, 1e-3, -1.0, 1e30]),
    qwen=st.booleans(),
    shared=st.booleans(),
)
def test_partial_and_unequal_projections_fuse_exactly(
    ranks: list[int],
    alphas: list[float | None],
    dtype: str,
    strength: float,
    qwen: bool,
    shared: bool,
    tmp_path: Path,
) -> None:
    architecture = QWEN if qwen else Z_IMAGE
    stem = "transformer_blocks.1.attn.to_" if qwen else "lora_unet_layers_1_attention_to_"
    fused = "transformer_blocks.1.attn.to_qkv" if qwen else "layers.1.attention.qkv"
    if shared:
        ranks = [ranks[0]] * 3
    tensors: dict[str, torch.Tensor] = {}
    expected = torch.zeros(96, 32, dtype=torch.float64)
    for i, (letter, rank, alpha) in enumerate(zip("qkv", ranks, alphas, strict=True)):
        if rank == 0:
            continue
        a = random(rank, 32, seed=0 if shared else i).to(DTYPES[dtype])
        b = random(32, rank, seed=7 + i).to(DTYPES[dtype])
        part = Sample({"lora_A.weight": a, "lora_B.weight": b}, b.double() @ a.double())
        scale = 1.0 if alpha is None else alpha / rank
        expected[32 * i : 32 * i + 32] = part.change * scale
        tensors |= named(stem + letter, part)
        if alpha is not None:
            tensors[f"{stem}{letter}.alpha"] = torch.tensor(alpha)
    if not tensors:
        return
    found = load(write(tmp_path / "a.safetensors", tensors))
    composer = Composer(architecture, [fused] if qwen else [])
    branches = composer.compose(LoraSet([(found, strength)]))
    if strength == 0.0:
        assert branches == {}
        return
    branch = branches[fused]
    assert isinstance(branch, Branch)
    assert branch.rank == (ranks[0] if shared else sum(ranks))
    assert close(branch.matrix(dtype=torch.float64), expected * strength)
