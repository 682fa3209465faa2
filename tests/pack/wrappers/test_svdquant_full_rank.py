"""Changes of full rank on what Nunchaku computes fused, or as copies of blocks (check 12)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.applying import adding, apply, lora_file, random, relative_error, untouched
from torch import Tensor
from torch.nn import functional
from vivace.devkit.doubles import svdquant_models as small
from vivace.devkit.doubles import tiny_models as tiny

pytestmark = pytest.mark.usefixtures("comfyui")

D = tiny.QWEN_DIM
FIRST, SECOND = "img_mlp.net.0.proj", "img_mlp.net.2"
SHAPES = {FIRST: (4 * D, D), SECOND: (D, 4 * D), "attn.to_q": (D, D)}
Hook = Callable[..., Tensor]


def differences(folder: Path, modules: dict[str, tuple[int, int]]) -> tuple[Path, dict[str, Any]]:
    """A file of full differences, and these in float64."""
    diffs = {m: random(*shape, seed=i) / 64 for i, (m, shape) in enumerate(modules.items())}
    path = folder / "difference.safetensors"
    save_file({f"diffusion_model.{module}.diff": diff for module, diff in diffs.items()}, path)
    return path, {module: diff.double() for module, diff in diffs.items()}


def unrounded(module: str, delta: Tensor | None = None) -> Hook:
    """The product of the second linear of an MLP that runs unfused: its input is not rounded."""
    dense = small.checkpoint("qwen_image").dense
    weight, bias = (dense[f"{module}.{name}"].double() for name in ("weight", "bias"))
    weight = weight if delta is None else weight + delta

    def hook(_: Any, inputs: tuple[Tensor, ...], y: Tensor) -> Tensor:
        return functional.linear(inputs[0].double(), weight, bias).to(y.dtype)

    return hook


def with_hooks(family: str, hooks: dict[str, Hook]) -> Tensor:
    model = small.kitchen(family)
    for module, hook in hooks.items():
        model.model.diffusion_model.get_submodule(module).register_forward_hook(hook)
    return small.sample(model)


@pytest.mark.parametrize("offload", [False, True], ids=["whole", "offloaded"])
@pytest.mark.parametrize("block", [0, 1])
@pytest.mark.parametrize("leaf", SHAPES)
def test_12_full_differences_are_exact(
    leaf: str, block: int, offload: bool, tmp_path: Path
) -> None:
    module = f"transformer_blocks.{block}.{leaf}"
    path, deltas = differences(tmp_path, {module: SHAPES[leaf]})
    whole = lambda delta: adding(delta, slice(None))  # noqa: E731
    hooks = {module: whole(0.7 * deltas[module])}
    second = f"transformer_blocks.{block}.{SECOND}"
    if leaf == FIRST:
        hooks[second] = unrounded(second)
    elif leaf == SECOND:
        hooks[second] = unrounded(second, 0.7 * deltas[module])
    model = small.nunchaku("qwen_image", offload=offload)
    base = small.sample(model)
    got = small.sample(apply(model, (path, 0.7), strict=True))
    assert relative_error(got, with_hooks("qwen_image", hooks)) < 1e-5
    assert untouched(model)
    assert torch.equal(small.sample(model), base)


def test_12_ranks_and_a_full_difference_add_up(tmp_path: Path) -> None:
    modules = {f"transformer_blocks.{b}.{leaf}": SHAPES[leaf] for leaf in SHAPES for b in (0, 1)}
    lora, low = lora_file(tmp_path / "lora.safetensors", modules)
    changed = {f"transformer_blocks.1.{leaf}": SHAPES[leaf] for leaf in SHAPES}
    path, full = differences(tmp_path, changed)
    hooks = {
        module: adding(0.5 * delta + 0.7 * full.get(module, 0.0), slice(None))
        for module, delta in low.items()
    }
    second = f"transformer_blocks.1.{SECOND}"
    hooks[second] = unrounded(second, 0.5 * low[second] + 0.7 * full[second])
    for offload in (False, True):
        model = small.nunchaku("qwen_image", offload=offload)
        got = small.sample(apply(model, (lora, 0.5), (path, 0.7), strict=True))
        assert relative_error(got, with_hooks("qwen_image", hooks)) < 1e-5


def test_12_copies_made_during_a_run_keep_nothing_of_it(tmp_path: Path) -> None:
    from vivace.wrappers.lora.branch_set import install, remove

    path, _ = differences(tmp_path, {f"transformer_blocks.0.{FIRST}": SHAPES[FIRST]})
    model = small.nunchaku("qwen_image", offload=True)
    patched = apply(model, (path, 0.7))
    install(patched)
    network = model.model.diffusion_model
    network.set_offload(False)
    network.set_offload(True, num_blocks_on_gpu=1)
    assert not untouched(model)
    remove(patched)
    assert untouched(model)


def dora_file(folder: Path, module: str, shape: tuple[int, int]) -> tuple[Path, Tensor, Tensor]:
    """A file, its low-rank delta, and the magnitudes ``[out, 1]``."""
    out, inp = shape
    down, up = random(4, inp, seed=1) / 32, random(out, 4, seed=2) / 2
    magnitude = random(out, 1, seed=3).abs() + 0.5
    stem = f"diffusion_model.{module}"
    path = folder / "dora.safetensors"
    tensors = {"lora_A.weight": down, "lora_B.weight": up, "dora_scale": magnitude}
    save_file({f"{stem}.{name}": tensor for name, tensor in tensors.items()}, path)
    return path, up.double() @ down.double(), magnitude.double()


@pytest.mark.parametrize("offload", [False, True], ids=["whole", "offloaded"])
@pytest.mark.parametrize("leaf", [FIRST, SECOND])
def test_12_dora_of_fused_layers_is_exact(leaf: str, offload: bool, tmp_path: Path) -> None:
    module, second = (f"transformer_blocks.1.{name}" for name in (leaf, SECOND))
    path, delta, magnitude = dora_file(tmp_path, module, SHAPES[leaf])
    dense = small.checkpoint("qwen_image").dense
    weight = dense[f"{module}.weight"].double()
    gain = magnitude / (weight + delta).norm(dim=1, keepdim=True)

    def scaled(layer: Any, inputs: tuple[Tensor, ...], y: Tensor) -> Tensor:
        product = y.double() - layer.bias.double()  # of the rounded input, as the layer has it
        change = (gain.T - 1) * product + gain.T * (inputs[0].double() @ delta.T)
        return y + (0.7 * change).to(y.dtype)

    full = 0.7 * (gain * (weight + delta) - weight)
    hooks = {second: unrounded(second, full if leaf == SECOND else None)}
    if leaf == FIRST:
        hooks[module] = scaled
    model = small.nunchaku("qwen_image", offload=offload)
    got = small.sample(apply(model, (path, 0.7), strict=True))
    assert relative_error(got, with_hooks("qwen_image", hooks)) < 1e-5


@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_12_full_differences_of_fused_qkv_are_exact(name: str, tmp_path: Path) -> None:
    path, deltas = differences(tmp_path, {f"layers.1.attention.to_{name}": (D, D)})
    start = D * "qkv".index(name)
    hook = adding(0.7 * next(iter(deltas.values())), slice(start, start + D))
    model = small.nunchaku("z_image")
    got = small.sample(apply(model, (path, 0.7), strict=True))
    assert relative_error(got, with_hooks("z_image", {"layers.1.attention.qkv": hook})) < 1e-5
    assert untouched(model)


def test_12_the_report_says_what_runs_unfused(tmp_path: Path) -> None:
    from vivace.wrappers.lora.apply import apply_loras

    path, _ = differences(tmp_path, {f"transformer_blocks.0.{SECOND}": (D, 4 * D)})
    _, report = apply_loras(small.nunchaku("qwen_image"), [(path, 1.0)], strict=True)
    assert "1 fused operations run layer by layer" in report
    assert "approximation" not in report


def test_12_what_cannot_be_unfused_is_approximated_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vivace.wrappers.lora.apply import apply_loras
    from vivace.wrappers.targets import nunchaku_fused
    from vivace.wrappers.targets.nunchaku_svdq import NunchakuSvdq

    monkeypatch.setattr(nunchaku_fused, "STOCK", "another.loader.")
    module = f"transformer_blocks.0.{SECOND}"
    path, delta, magnitude = dora_file(tmp_path, module, SHAPES[SECOND])
    weight = small.checkpoint("qwen_image").dense[f"{module}.weight"].double()
    changed = weight + delta
    full = magnitude * changed / changed.norm(dim=1, keepdim=True) - weight
    patched, report = apply_loras(small.nunchaku("qwen_image"), [(path, 1.0)])
    # 256 outputs: every change has a form of rank 256.
    wanted = with_hooks("qwen_image", {module: adding(full, slice(None))})
    assert relative_error(small.sample(patched), wanted) < 1e-4
    assert "approximation" not in report
    thin = small.nunchaku("qwen_image")
    monkeypatch.setattr(NunchakuSvdq, "limit", 64)
    _, report = apply_loras(thin, [(path, 1.0)])
    with pytest.raises(ValueError, match="low-rank approximation"):
        apply_loras(thin, [(path, 1.0)], strict=True)
    assert "1 layers take this stack only as a low-rank approximation" in report
