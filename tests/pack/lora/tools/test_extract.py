"""LoRAs out of two checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.lora_samples import TINY, Z_IMAGE, close, load, random, write
from torch import Tensor
from vivace.lora.errors import LoraError
from vivace.lora.factors.delta import Delta
from vivace.lora.mapping.architecture import Architecture
from vivace.lora.tools.checkpoint import ModelCheckpoint
from vivace.lora.tools.derived_file import Made
from vivace.lora.tools.extract import extract
from vivace.lora.tools.leading_singular_values import EXACT_SIDE, reduce
from vivace.lora.tools.lower_rank import Limit
from vivace.lora.tools.name_styles import names, parts

CHANGED = "layers.0.attention.qkv"


def model(seed: int = 0) -> dict[str, Tensor]:
    """A Z-Image under ComfyUI's names."""
    found: dict[str, Tensor] = {}
    for path, module in Z_IMAGE.modules.items():
        found[module.parameter_name()] = random(*module.shape, seed=seed)
        if module.bias:
            found[f"{path}.bias"] = random(module.shape[0], seed=seed)
    return found


def changed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """With a change of rank 4 in a fused layer, and a norm and a bias changed."""
    a, b = random(4, 32, seed=3), random(96, 4, seed=4)
    more = {
        f"{CHANGED}.weight": tensors[f"{CHANGED}.weight"] + b @ a,
        "layers.1.ffn_norm1.weight": tensors["layers.1.ffn_norm1.weight"] + 0.5,
        "x_embedder.bias": tensors["x_embedder.bias"] + 0.25,
    }
    return tensors | more


def in_diffusers(tensors: dict[str, Tensor], folder: Path) -> Path:
    """The same model under diffusers' names, in two files of a folder."""
    found: dict[str, Tensor] = {}
    for path, module in Z_IMAGE.modules.items():
        for part in parts("peft", Z_IMAGE, path):
            start, stop = Z_IMAGE.rows(path, part)
            stem = names("peft", Z_IMAGE, path, part).stem.removeprefix("transformer.")
            name = stem if module.kind == "parameter" else f"{stem}.weight"
            found[name] = tensors[module.parameter_name()][start:stop]
            if module.bias:
                found[f"{stem}.bias"] = tensors[f"{path}.bias"]
    folder.mkdir()
    keys = sorted(found)
    half = len(keys) // 2
    write(folder / "model-00001-of-00002.safetensors", {k: found[k] for k in keys[:half]})
    write(folder / "model-00002-of-00002.safetensors", {k: found[k] for k in keys[half:]})
    return folder


def run(tuned: Path, base: Path, output: Path, limit: Limit, **options: object) -> Made:
    with ModelCheckpoint(tuned, TINY) as first, ModelCheckpoint(base, TINY) as second:
        return extract(first, second, output, limit=limit, **options)  # type: ignore[arg-type]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    tensors = {f"model.diffusion_model.{name}": t for name, t in model().items()}
    return write(tmp_path / "base.safetensors", tensors)


def total(path: Path, module: str, architecture: Architecture = Z_IMAGE) -> Tensor:
    shape = architecture.modules[module].shape
    result = torch.zeros(shape, dtype=torch.float64)
    for entry in load(path).deltas[module]:
        assert isinstance(entry.delta, Delta)
        if entry.parameter == "weight":
            result[entry.start : entry.stop] += entry.delta.matrix(torch.float64)
    return result


@pytest.mark.parametrize("diffusers", [False, True])
@pytest.mark.parametrize("style", ["comfyui", "kohya"])
def test_what_was_changed_is_found(tmp_path: Path, base: Path, diffusers: bool, style: str) -> None:
    after = changed(model())
    if diffusers:
        tuned = in_diffusers(after, tmp_path / "tuned")
    else:
        tuned = write(tmp_path / "tuned.safetensors", after)
    made = run(tuned, base, tmp_path / "out.safetensors", Limit(rank=4), style=style)
    found = load(made.path)
    assert set(found.deltas) == {CHANGED, "layers.1.ffn_norm1", "x_embedder"}
    wanted = after[f"{CHANGED}.weight"].double() - model()[f"{CHANGED}.weight"].double()
    assert close(total(made.path, CHANGED), wanted, 1e-5)
    assert made.error < 1e-5
    assert made.ranks == (4, 4)
    norm = after["layers.1.ffn_norm1.weight"] - model()["layers.1.ffn_norm1.weight"]
    assert torch.equal(total(made.path, "layers.1.ffn_norm1"), norm.double())


def test_a_lower_rank_leaves_out_the_least(tmp_path: Path, base: Path) -> None:
    after = changed(model())
    tuned = write(tmp_path / "tuned.safetensors", after)
    made = run(tuned, base, tmp_path / "out.safetensors", Limit(rank=2), linear_only=True)
    assert set(load(made.path).deltas) == {CHANGED}
    difference = after[f"{CHANGED}.weight"].double() - model()[f"{CHANGED}.weight"].double()
    values = torch.linalg.svdvals(difference)
    assert made.error == pytest.approx(float(values[2:].norm() / values.norm()), rel=1e-4)


def test_large_matrices_come_near_the_least_error() -> None:
    side = EXACT_SIDE + 100
    u, v = (torch.linalg.qr(random(side, side, seed=seed))[0] for seed in (1, 2))
    values = torch.logspace(0, -3, side, dtype=torch.float32)
    matrix = (u * values) @ v
    for rank in (8, 64):
        found = reduce(matrix, Limit(rank=rank))
        least = values[rank:].norm()
        assert found.rank == rank
        assert (matrix.double() - found.matrix(torch.float64)).norm() < 1.001 * least
    found = reduce(matrix, Limit(error=0.2))
    lost = (matrix.double() - found.matrix(torch.float64)).norm() / values.norm()
    wanted = next(k for k in range(side) if values[k:].norm() <= 0.2 * values.norm())
    assert lost <= 0.2 * 1.0001
    assert wanted <= found.rank <= wanted + 1


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda t: t, "is equal to base.safetensors"),
        (lambda t: {k: v for k, v in t.items() if "qkv" not in k}, "has no .*qkv"),
        (
            lambda t: {**t, f"{CHANGED}.weight": torch.zeros(96, 32).to(torch.float8_e4m3fn)},
            "quant",
        ),
        (lambda t: {**t, f"{CHANGED}.weight": torch.zeros(90, 32)}, "shape"),
        (lambda t: {"transformer_blocks.0.attn.to_q.weight": torch.zeros(32, 32)}, "Qwen-Image"),
        (lambda t: {"a.weight": torch.zeros(2)}, "no module of a supported model"),
    ],
)
def test_what_cannot_be_compared(tmp_path: Path, base: Path, edit, words: str) -> None:
    tuned = write(tmp_path / "tuned.safetensors", edit(model()))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(LoraError, match=words):
        run(tuned, base, tmp_path / "out.safetensors", Limit(rank=4))
    assert sorted(tmp_path.iterdir()) == before


def test_peft_has_no_place_for_norms(tmp_path: Path, base: Path) -> None:
    tuned = write(tmp_path / "tuned.safetensors", changed(model()))
    output = tmp_path / "out.safetensors"
    with pytest.raises(LoraError, match="--linear-only"):
        run(tuned, base, output, Limit(rank=4), style="peft")
    made = run(tuned, base, output, Limit(rank=4), style="peft", linear_only=True)
    assert made.modules == 3  # Q, K and V
