"""Every tensor of a module is understood, or the module is not applied and the report names it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from support.good_module import GOOD, PLAIN, STEM, with_good
from support.lora_samples import TINY, close, load, lora, named, random, total, write
from vivace.lora.errors import LoraModelError
from vivace.lora.examine import inspect
from vivace.lora.factors.weight_relative import Relative
from vivace.lora.file_report import markdown

FP8 = torch.float8_e4m3fn
STRAY = {
    "scale": "'transformer_blocks.0.attn.to_q.scale' is not understood",
    "scaling": "to_q.scaling' is not understood",
    "network_alpha": "to_q.network_alpha' is not understood",
    "weight_scale": "to_q.weight_scale' is not understood",
    "scale_weight": "to_q.scale_weight' is not understood",
    "input_scale": "to_q.input_scale' is not understood",
    "lora_diag": "KaSA",
    "lora_magnitude": "to_q.lora_magnitude' is not understood",
    "lora_E": "AdaLoRA with a scale of its own",
    "never.heard.of": "never.heard.of' is not understood",
    "lora_down.weight_scale_inv": "weight_scale_inv' is not understood",
    "lora_mid.scale_weight": "mid_scale without the factor",
    "weight": "a full weight",
    "bias": "a full bias",
    "base_layer.bias": "a full bias",
    "hada_t1": "Tucker",
    "lokr_t2": "Tucker",
    "vera_lambda_b": "VeRA",
    "hra_u": "HRA",
    "boft_R": "BOFT of peft",
    "oft_R.weight": "OFT",
    "oft_r": "OFT of an older peft",
    "fourierft_spectrum": "FourierFT",
    "shira_weight": "SHiRA",
    "randlora_lambda": "RandLoRA",
    "road_theta": "RoAd",
    "miss_block": "MiSS",
    "glora_A.Xd": "GLoRA of peft",
    "lambda_layer": "T-LoRA",
    "bias_values": "sparse",
    "lora_a": "MLX",
    "rescale": "'transformer_blocks.0.attn.to_q.rescale' has no meaning beside tensors of LoRA",
    "set_weight": "replaces the weight",
}


@pytest.mark.parametrize("suffix", STRAY)
def test_a_tensor_beside_the_factors_refuses_its_module(suffix: str, tmp_path: Path) -> None:
    key = f"{STEM}.{suffix}"
    found = with_good({**named(STEM, PLAIN), key: random(4, 1)}, tmp_path)
    assert set(found.deltas) == {GOOD}
    faults = found.report.faults
    assert {fault.module for fault in faults} == {STEM}
    assert any(STRAY[suffix] in fault.reason for fault in faults), faults
    fates = {e.key: e.status for e in found.report.keys if e.key.startswith(f"{STEM}.")}
    assert len(fates) == 4
    assert set(fates.values()) == {"refused"}
    assert close(total(found, GOOD, (32, 32)), PLAIN.change)
    assert inspect(found.path).line().count("\n") == 0


@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [("scale_weight", FP8), ("weight_scale", torch.int8), ("weight.scale", FP8)],
)
@pytest.mark.parametrize("names", [("lora_down", "lora_up"), ("lora_A", "lora_B")])
@pytest.mark.parametrize("rows", [False, True])
def test_factors_of_8_bits_with_their_scales(
    suffix: str, dtype: torch.dtype, names: tuple[str, str], rows: bool, tmp_path: Path
) -> None:
    tensors: dict[str, torch.Tensor] = {}
    exact = []
    for name, whole in zip(names, (random(4, 32, seed=1), random(32, 4, seed=2)), strict=True):
        most = 448.0 if dtype == FP8 else 127.0
        scale = whole.abs().amax(1, keepdim=True) / most if rows else whole.abs().max() / most
        stored = (
            (whole / scale).round().to(dtype) if dtype == torch.int8 else (whole / scale).to(FP8)
        )
        tensors |= {f"{STEM}.{name}.weight": stored, f"{STEM}.{name}.{suffix}": scale}
        exact.append(stored.double() * scale.double())
    found = with_good(tensors, tmp_path)
    assert close(total(found, STEM, (32, 32)), exact[1] @ exact[0])


def test_the_mark_of_scaled_fp8_is_ignored(tmp_path: Path) -> None:
    found = with_good({"scaled_fp8": torch.zeros(2).to(FP8)}, tmp_path)
    assert set(found.deltas) == {GOOD}
    assert found.report.names("ignored") == ["scaled_fp8"]


def test_fp8_that_fills_its_range_lacks_its_scale(tmp_path: Path) -> None:
    tensors = {k: (t * 1e4).clamp(-448, 448).to(FP8) for k, t in PLAIN.tensors.items() if t.dim()}
    found = with_good(named(STEM, PLAIN) | {f"{STEM}.{k}": t for k, t in tensors.items()}, tmp_path)
    assert set(found.deltas) == {GOOD}
    assert "the scale for it is missing" in found.report.faults[0].reason


def test_numbered_parts_are_stacked(tmp_path: Path) -> None:
    stem = "layers.0.attention.qkv"
    tensors, parts = {f"{stem}.alpha": torch.tensor(2.0)}, []
    for i in range(3):
        down, up = random(4, 32, seed=i), random(32, 4, seed=10 + i)
        tensors |= {f"{stem}.lora_down.{i}.weight": down, f"{stem}.lora_up.{i}.weight": up}
        parts.append(up.double() @ down.double() * 2.0 / 4)
    found = load(write(tmp_path / "a.safetensors", tensors))
    assert close(total(found, stem, (96, 32)), torch.cat(parts))
    del tensors[f"{stem}.lora_up.1.weight"]
    with pytest.raises(LoraModelError, match=r"up\.1 is missing"):
        load(write(tmp_path / "b.safetensors", tensors))


def test_transposed_factors_are_called_so(tmp_path: Path) -> None:
    stem = "layers.0.feed_forward.w1"
    tensors = {f"{stem}.lora_A.weight": random(32, 4), f"{stem}.lora_B.weight": random(4, 48)}
    with pytest.raises(LoraModelError, match="transposed"):
        load(write(tmp_path / "a.safetensors", tensors))


def test_adalora_with_its_configuration(tmp_path: Path) -> None:
    a, b, e = random(4, 32), random(32, 4), random(4, 1)
    tensors = {f"{STEM}.lora_A": a, f"{STEM}.lora_B": b, f"{STEM}.lora_E": e}
    said = {"peft_type": "ADALORA", "lora_alpha": 8, "init_r": 6, "r": 4, "rank_pattern": {}}
    found = load(
        write(tmp_path / "a.safetensors", tensors, {"lora_adapter_metadata": json.dumps(said)})
    )
    exact = b.double() @ (a * e).double() * 8 / (6 + 1e-5)
    assert close(total(found, STEM, (32, 32)), exact)


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "ink.safetensors"])
def test_a_configuration_beside_the_file(file: str, tmp_path: Path) -> None:
    bare = lora(32, 32, torch.float32, alpha=None)
    path = write(tmp_path / file, named(f"base_model.model.{STEM}", bare))
    assert close(total(load(path), STEM, (32, 32)), bare.change)
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 16}), "utf-8")
    assert close(total(load(path), STEM, (32, 32)), bare.change * 4)
    config.write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 2}), "utf-8")
    assert close(total(load(path), STEM, (32, 32)), bare.change / 2)
    config.write_text(json.dumps({"peft_type": "LORA", "r": 8, "lora_alpha": 8}), "utf-8")
    with pytest.raises(LoraModelError, match=r"rank 4, but adapter_config\.json says rank 8"):
        load(path)
    assert inspect(path, TINY).modules_matched == 0
    # Beside several files it is that of adapter_model alone.
    write(tmp_path / "other.safetensors", {})
    report = inspect(path, TINY)
    used = file == "adapter_model.safetensors"
    assert (report.modules_matched, "not used" in report.line()) == (not used, not used)


def test_a_magnitude_that_the_header_promises_is_missed(tmp_path: Path) -> None:
    said = {"r": 4, "lora_alpha": 4, "use_dora": True}
    path = write(
        tmp_path / "a.safetensors",
        named(STEM, lora(32, 32, torch.float32, alpha=None)),
        {"lora_adapter_metadata": json.dumps(said)},
    )
    with pytest.raises(LoraModelError, match="has no magnitude, but the header says use_dora"):
        load(path)


METHODS = ["VERA", "HRA", "BOFT", "FOURIERFT", "SHIRA", "RANDLORA", "ROAD", "MISS", "XLORA"]


@pytest.mark.parametrize("method", METHODS)
def test_a_file_of_another_method_is_refused_by_its_name(method: str, tmp_path: Path) -> None:
    header = {"lora_adapter_metadata": json.dumps({"peft_type": method})}
    path = write(tmp_path / "a.safetensors", named(STEM, PLAIN), header)
    with pytest.raises(LoraModelError, match=f"it is {method} of peft"):
        load(path)
    assert inspect(path).architecture is None


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_16", "olora", "loftq", "corda", "eva"])
def test_an_initialization_that_changes_the_base_is_said(start: str, tmp_path: Path) -> None:
    said = {"r": 4, "lora_alpha": 4, "init_lora_weights": start}
    found = with_good({}, tmp_path, said)
    assert any(start in note for note in found.report.notes)
    assert start in markdown([found.report])
    assert start in found.report.line()


def test_every_ignored_tensor_is_named(tmp_path: Path) -> None:
    strays = {f"text_encoder.layers.{i}.q.{f}": random(1) for i in range(12) for f in "ab"}
    found = with_good({**strays, "bundle_emb.x": random(1)}, tmp_path)
    text = markdown([found.report])
    assert "text_encoder.layers.{0-11}.q.a, text_encoder.layers.{0-11}.q.b" in text
    assert "bundle_emb.x" in text


def test_what_contradicts_the_tensors_is_said_with_both_figures(tmp_path: Path) -> None:
    header = {"ss_network_dim": "32", "ss_network_alpha": "16"}
    path = write(
        tmp_path / "a.safetensors", named(STEM, lora(32, 32, torch.float32, alpha=None)), header
    )
    notes = " ".join(load(path).report.notes)
    assert "ss_network_dim 32, the factors have rank 4" in notes
    assert "ss_network_alpha 16 at rank 4" in notes
    own = write(
        tmp_path / "b.safetensors",
        named(STEM, PLAIN),
        {"lora_adapter_metadata": json.dumps({"r": 4, "lora_alpha": 8})},
    )
    assert "lora_alpha 8, but 1 modules have a scale of their own" in " ".join(
        load(own).report.notes
    )


def test_biases_of_both_projections(tmp_path: Path) -> None:
    down, up = random(4), random(32)
    tensors = named(STEM, PLAIN) | {f"{STEM}.lora_down.bias": down, f"{STEM}.lora_up.bias": up}
    found = with_good(tensors, tmp_path)
    exact = (PLAIN.tensors["lora_up.weight"].double() @ down.double() + up.double()) * 3.0 / 4
    assert close(total(found, STEM, (32,), "bias"), exact)


def test_oft_of_an_older_peft_is_read_by_its_own_series(tmp_path: Path) -> None:
    """Before 0.18 the last power of the series counted in full (peft 0.17, ``_cayley_batch``)."""
    upper = random(8, 6) * 0.3
    config = {"peft_type": "OFT", "oft_block_size": 4, "r": 0, "use_cayley_neumann": True}
    header = {"lora_adapter_metadata": json.dumps({**config, "num_cayley_neumann_terms": 4})}
    tensors = {f"{STEM}.oft_R.weight": upper}
    found = load(write(tmp_path / "a.safetensors", tensors, header))
    (entry,) = found.deltas[STEM]
    q = torch.zeros(8, 4, 4, dtype=torch.float64)
    for at, (i, j) in enumerate([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]):
        q[:, i, j], q[:, j, i] = upper[:, at].double(), -upper[:, at].double()
    turns = torch.eye(4) + 2 * (q + q @ q + q @ q @ q)
    weight = torch.randn(32, 32, dtype=torch.float64)
    expected = weight @ torch.block_diag(*turns).T - weight
    assert isinstance(entry.delta, Relative)
    torch.testing.assert_close(
        entry.delta.matrix(weight, torch.float64), expected, rtol=0, atol=1e-6
    )


def test_oft_that_does_not_cover_the_inputs_is_refused(tmp_path: Path) -> None:
    config = {"peft_type": "OFT", "oft_block_size": 4, "use_cayley_neumann": False}
    for shape in ((7, 6), (8, 5), (1, 6), (6,), (8, 0)):
        names = {f"{GOOD}.oft_R.weight": random(8, 6), f"{STEM}.oft_R.weight": random(*shape)}
        header = {"lora_adapter_metadata": json.dumps({**config, "r": 0})}
        found = load(write(tmp_path / "a.safetensors", names, header))
        assert set(found.deltas) == {GOOD}
        assert any("oft_R has shape" in fault.reason for fault in found.report.faults)


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"oft_block_size": 8}, "block size 4, but its configuration 8"),
        ({"oft_block_size": 0, "r": 4}, "blocks 8, but its configuration 4"),
        ({"oft_block_size": "x"}, "oft_block_size 'x'"),
        ({"r": True}, "r 'True'"),
        ({"peft_type": "LOKR", "r": 4}, "its tensors are OFT, but the header says that it is LoKr"),
    ],
)
def test_a_configuration_that_contradicts_an_oft(
    stated: dict[str, object], said: str, tmp_path: Path
) -> None:
    config = {"peft_type": "OFT", "oft_block_size": 4, "r": 0, "use_cayley_neumann": False}
    header = {"lora_adapter_metadata": json.dumps({**config, **stated})}
    tensors = {f"{GOOD}.oft_R.weight": random(8, 6)}
    with pytest.raises(LoraModelError, match=said):
        load(write(tmp_path / "a.safetensors", tensors, header))


def test_blocks_that_peft_has_fitted_to_the_layer_are_no_contradiction(tmp_path: Path) -> None:
    config = {"peft_type": "OFT", "oft_block_size": 5, "r": 0, "use_cayley_neumann": False}
    header = {"lora_adapter_metadata": json.dumps(config)}
    tensors = {f"{GOOD}.oft_R.weight": random(8, 6)}
    assert load(write(tmp_path / "a.safetensors", tensors, header)).report.modules_matched == 1


def test_a_wrapper_before_some_tensors_of_a_module_only(tmp_path: Path) -> None:
    """The module has one alpha, whichever side of the wrapper it stands on."""
    plain = named(STEM, PLAIN)
    alpha = f"{STEM}.alpha"
    moved = {
        name if name == alpha else name.replace(STEM, f"{STEM}._orig_mod"): tensor
        for name, tensor in plain.items()
    }
    assert alpha in moved
    inside = load(write(tmp_path / "a.safetensors", moved))
    wanted = total(load(write(tmp_path / "b.safetensors", plain)), STEM, (32, 32))
    assert close(total(inside, STEM, (32, 32)), wanted)
