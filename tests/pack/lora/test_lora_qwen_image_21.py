"""What is particular about files of Qwen-Image-2.1, on models with its MLPs' input fused and not.

The files of every trainer and format are compared with their oracles in `oracle/`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.lora_samples import close, load, random, total, write
from torch import Tensor
from vivace.lora.errors import LoraModelError
from vivace.lora.examine import inspect
from vivace.lora.factors.weight_relative import Replacement
from vivace.lora.loader import Lora
from vivace.lora.mapping.architecture import Architecture
from vivace.lora.mapping.supported_models import qwen_image, qwen_image_21, z_image

H, FFN, RANK = 32, 96, 4
FORMS = {
    form: qwen_image_21(2, H, FFN, 8, 24, 16, fused_mlp=form == "fused")
    for form in ("split", "fused")
}
OTHERS = qwen_image(depth=2, hidden=H, head=8, text=24, latent=16), z_image(2, 1, H, 48, 8, 24, 16)
MLP = "transformer_blocks.1.img_mlp"
HALVES = {"gate_layer": slice(0, FFN), "proj": slice(FFN, 2 * FFN)}


def read(path: Path, form: str) -> Lora:
    """Load for a model of this form, beside the other supported ones."""
    return load(path, (FORMS[form], *OTHERS))


def swiglu(lora: Lora) -> Tensor:
    """The change of both halves of the first layer, gate_layer before proj."""
    if f"{MLP}.gate_up" in lora.architecture.modules:
        return total(lora, f"{MLP}.gate_up", (2 * FFN, H))
    return torch.cat([total(lora, f"{MLP}.{half}", (FFN, H)) for half in HALVES])


def halves() -> dict[str, Tensor]:
    """Factors of both halves, of different ranks."""
    return {
        "gate_layer.down": random(RANK, H, seed=1),
        "gate_layer.up": random(FFN, RANK, seed=2),
        "proj.down": random(3, H, seed=3),
        "proj.up": random(FFN, 3, seed=4),
    }


def product(parts: dict[str, Tensor]) -> Tensor:
    """The change that they make, gate_layer before proj."""
    return torch.cat(
        [parts[f"{half}.up"].double() @ parts[f"{half}.down"].double() for half in HALVES]
    )


@pytest.mark.parametrize("form", FORMS)
def test_a_fused_export_with_padded_ranks(form: str, tmp_path: Path) -> None:
    """Block-diagonal, each half with the same number of ranks, filled up with zeros."""
    parts, ranks = halves(), 8
    down, up = torch.zeros(2 * ranks, H), torch.zeros(2 * FFN, 2 * ranks)
    for i, (half, rows) in enumerate(HALVES.items()):
        rank = len(parts[f"{half}.down"])
        down[i * ranks : i * ranks + rank] = parts[f"{half}.down"]
        up[rows, i * ranks : i * ranks + rank] = parts[f"{half}.up"]
    stem = f"lora_unet_{MLP.replace('.', '_')}_gate_up"
    tensors = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
    path = write(
        tmp_path / "a.safetensors", {**tensors, f"{stem}.alpha": torch.tensor(2.0 * ranks)}
    )
    assert close(swiglu(read(path, form)), product(parts))


@pytest.mark.parametrize("form", FORMS)
def test_halves_of_different_ranks_and_scales(form: str, tmp_path: Path) -> None:
    parts = halves()
    named = {
        f"diffusion_model.{MLP}.{half}.lora_{letter}.weight": parts[f"{half}.{way}"]
        for half in HALVES
        for letter, way in (("A", "down"), ("B", "up"))
    }
    named[f"diffusion_model.{MLP}.proj.alpha"] = torch.tensor(1.5)
    wanted = product(parts)
    wanted[HALVES["proj"]] /= 2
    assert close(swiglu(read(write(tmp_path / "a.safetensors", named), form)), wanted)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("half", HALVES)
def test_one_half_leaves_the_other_alone(half: str, form: str, tmp_path: Path) -> None:
    diff = random(FFN, H, seed=5)
    path = write(tmp_path / "a.safetensors", {f"transformer.{MLP}.{half}.diff": diff})
    wanted = torch.zeros(2 * FFN, H, dtype=torch.float64)
    wanted[HALVES[half]] = diff.double()
    assert close(swiglu(read(path, form)), wanted)


@pytest.mark.parametrize(("form", "applied"), [("split", False), ("fused", True)])
def test_a_dora_of_columns_on_the_fused_layer(form: str, applied: bool, tmp_path: Path) -> None:
    """Its norms are those of whole columns, which a model with two layers does not have."""
    stem = f"diffusion_model.{MLP}.gate_up"
    tensors = {
        f"{stem}.lora_A.weight": random(RANK, H, seed=1),
        f"{stem}.lora_B.weight": random(2 * FFN, RANK, seed=2),
        f"{stem}.dora_scale": random(1, H, seed=3).abs() + 1,
        f"diffusion_model.{MLP}.out.diff": random(H, FFN, seed=4),
    }
    lora = read(write(tmp_path / "a.safetensors", tensors), form)
    assert (f"{MLP}.gate_up" in lora.deltas) == applied
    reasons = [fault.reason for fault in lora.report.faults]
    assert ["cannot be split" in reason for reason in reasons] == [True] * (not applied)
    assert f"{MLP}.out" in lora.deltas


# Bundles of factors and full values (PDD of VideoX-Fun)


def bundle(steps: int = 4) -> dict[str, Tensor]:
    """Factors without ``.weight``, full values of norms, and an output layer for each step."""
    found = {"proj_out.weight": random(steps, 16, H, seed=1), "txt_in.text_norm.weight": random(24)}
    for path, (out, inp) in {
        f"{MLP}.gate_layer": (FFN, H),
        f"{MLP}.proj": (FFN, H),
        f"{MLP}.out": (H, FFN),
        "transformer_blocks.0.attn.to_q": (H, H),
        "modulation.1": (4 * H, H),
        "time_text_embed.timestep_embedder.linear_1": (H, 256),
        "txt_in.out_layer": (H, H),
    }.items():
        found[f"{path}.lora_down"] = random(RANK, inp, seed=len(path))
        found[f"{path}.lora_up"] = random(out, RANK, seed=len(path) + 1)
    for block in range(2):
        for norm in ("norm_q", "norm_k"):
            name = f"transformer_blocks.{block}.attn.{norm}"
            found[f"{name}.weight"] = random(8, seed=len(found))
    return found


@pytest.mark.parametrize("form", FORMS)
def test_a_bundle_is_applied_but_for_what_changes_by_step(form: str, tmp_path: Path) -> None:
    tensors = bundle()
    lora = read(write(tmp_path / "a.safetensors", tensors), form)
    (fault,) = lora.report.faults
    assert (fault.module, fault.part) == ("proj_out", None)
    assert fault.reason == (
        "4 full weights, one for each step of a sampler that it belongs to (PDD)"
    )
    base = random(8, seed=77)
    for name, value in tensors.items():
        module, _, kind = name.rpartition(".")
        if kind == "weight" and module != "proj_out":
            (entry,) = lora.deltas[module]
            assert isinstance(entry.delta, Replacement)
            weight = base if len(value) == 8 else random(24, seed=78)
            got = weight.double() + entry.delta.scaled(0.5).matrix(weight, torch.float64)
            assert close(got, (weight.double() + value.double()) / 2)
        elif kind == "lora_up" and "img_mlp.gate" not in module and "img_mlp.proj" not in module:
            wanted = value.double() @ tensors[f"{module}.lora_down"].double()
            assert close(total(lora, module, tuple(wanted.shape)), wanted)
    parts = {
        f"{half}.{way}": tensors[f"{MLP}.{half}.lora_{way}"]
        for half in HALVES
        for way in ("down", "up")
    }
    assert close(swiglu(lora), product(parts))
    assert "LoRA + full values" in lora.report.line()


def test_norms_of_a_checkpoint_or_a_dump_are_no_changes(tmp_path: Path) -> None:
    """Without factors, or with weights beside them, full values are those of a whole model."""
    norms = {name: value for name, value in bundle().items() if name.endswith("norm_q.weight")}
    stem = "transformer_blocks.0.attn.to_q"
    factors = {f"{stem}.lora_A.weight": random(2, H), f"{stem}.lora_B.weight": random(H, 2)}
    dump = {**norms, **factors, f"{stem}.base_layer.weight": random(H, H)}
    for tensors in (norms, dump):
        with pytest.raises(LoraModelError, match="a full weight"):
            read(write(tmp_path / "a.safetensors", tensors), "split")


def test_a_full_norm_of_another_size_is_refused(tmp_path: Path) -> None:
    name = "transformer_blocks.0.attn.norm_q"
    tensors = {**bundle(), f"{name}.weight": random(9)}
    lora = read(write(tmp_path / "a.safetensors", tensors), "split")
    assert name not in lora.deltas
    assert {fault.module for fault in lora.report.faults} == {name, "proj_out"}


# Which model a file is for, at the published sizes

WIDTHS = {"qwen_image": 3072, "qwen_image_21": 4096}


def attention(width: int, blocks: int = 12) -> dict[str, Tensor]:
    """A LoRA of attention alone, whose names are those of several models."""
    found: dict[str, Tensor] = {}
    for block in range(blocks):
        for name in ("to_q", "to_k", "to_v", "to_out.0"):
            stem = f"diffusion_model.transformer_blocks.{block}.attn.{name}"
            found[f"{stem}.lora_A.weight"] = torch.zeros(1, width)
            found[f"{stem}.lora_B.weight"] = torch.zeros(width, 1)
    return found


@pytest.mark.parametrize("model", WIDTHS)
def test_attention_is_told_by_its_width(model: str, tmp_path: Path) -> None:
    report = inspect(write(tmp_path / "a.safetensors", attention(WIDTHS[model])))
    assert (report.architecture, report.modules_matched) == (model, 48)


@pytest.mark.parametrize("known", [FORMS["split"], qwen_image(), qwen_image_21()])
def test_attention_of_krea_2_is_of_none(known: Architecture, tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", attention(6144))
    report = inspect(path)
    assert report.architecture is None
    assert "made for Krea 2" in str(report.refusal)
    with pytest.raises(LoraModelError):
        load(path, (known,))
