"""What goes wrong with LoRAs on quantized models elsewhere, and must not here.

The numbers are those of the list of acceptance checks in the project's notes on SVDQuant.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.applying import adding, apply, lora_file, random, reference, relative_error
from vivace.devkit.doubles import svdquant_models as small
from vivace.devkit.doubles import tiny_models as tiny

pytestmark = pytest.mark.usefixtures("comfyui")

D = tiny.QWEN_DIM
QKV = {f"transformer_blocks.0.attn.to_{name}": (D, D) for name in "qkv"}
Q = {"transformer_blocks.0.attn.to_q": (D, D)}
MLP = {"transformer_blocks.1.img_mlp.net.2": (D, 4 * D)}
Z_QKV = {f"layers.0.attention.to_{name}": (D, D) for name in "qkv"}


def factors(model: Any) -> dict[str, torch.Tensor]:
    """All low-rank factors of nunchaku's layers."""
    state = model.model.diffusion_model.state_dict()
    return {
        name: t.clone() for name, t in state.items() if ".proj_up" in name or ".proj_down" in name
    }


def report_of(model: Any, *loras: tuple[Path, float], **options: Any) -> str:
    from vivace.wrappers.lora.apply import apply_loras

    return apply_loras(model, list(loras), **options)[1]


def on_kitchen(*changes: tuple[dict[str, torch.Tensor], float]) -> torch.Tensor:
    """Qwen-Image with comfy-kitchen weights, and the changes added by hooks."""
    return reference(lambda _: small.kitchen("qwen_image"), "", list(changes), steps=1)


def test_01_a_file_with_only_q(tmp_path: Path) -> None:
    path, deltas = lora_file(tmp_path / "q.safetensors", Q)
    got = small.sample(apply(small.nunchaku("qwen_image"), (path, 1.0), strict=True))
    assert relative_error(got, on_kitchen((deltas, 1.0))) < 1e-5


def test_02_a_file_with_fused_qkv(tmp_path: Path) -> None:
    down, up = random(4, D, seed=1) / 16, random(3 * D, 4, seed=2) / 2
    path = tmp_path / "fused.safetensors"
    stem = "diffusion_model.layers.0.attention.qkv"
    save_file({f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}, path)
    model = small.kitchen("z_image")
    layer = model.model.diffusion_model.layers[0].attention.qkv
    layer.register_forward_hook(adding(up.double() @ down.double(), slice(None)))
    wanted = small.sample(model)
    for maker in (small.nunchaku, small.kitchen):
        got = small.sample(apply(maker("z_image"), (path, 1.0), strict=True))
        assert relative_error(got, wanted) < 1e-5


def test_03_q_k_and_v_of_unequal_ranks(tmp_path: Path) -> None:
    tensors: dict[str, torch.Tensor] = {}
    deltas: dict[str, torch.Tensor] = {}
    for rank, module in zip((2, 7, 19), QKV, strict=True):
        path, found = lora_file(
            tmp_path / "part.safetensors", {module: (D, D)}, rank=rank, seed=rank
        )
        tensors |= load_file(path)
        deltas |= found
    path = tmp_path / "unequal.safetensors"
    save_file(tensors, path)
    got = small.sample(apply(small.nunchaku("qwen_image"), (path, 1.0), strict=True))
    assert relative_error(got, on_kitchen((deltas, 1.0))) < 1e-5


def test_04_w1_alone_changes_the_gate_half_only(tmp_path: Path) -> None:
    path, deltas = lora_file(tmp_path / "w1.safetensors", {"layers.0.feed_forward.w1": (512, D)})
    model = small.nunchaku("z_image")
    w13 = model.model.diffusion_model.layers[0].feed_forward.w13
    x = random(1, 3, D, seed=5)
    seen: list[torch.Tensor] = []
    base = w13(x)
    patched = apply(model, (path, 1.0))
    during(patched, lambda: seen.append(w13(x)))
    value, gate = (seen[0] - base).chunk(2, dim=-1)
    assert torch.equal(value, torch.zeros_like(value))
    wanted = x.double() @ deltas["layers.0.feed_forward.w1"].T
    assert float((gate - wanted).abs().max()) < 1e-5


def during(model: Any, action: Any) -> None:
    """Do something once while a model samples, after its LoRAs are in place."""
    calls: list[int] = []

    def hook(*_: Any) -> None:
        if not calls:
            calls.append(1)
            action()

    handle = model.model.diffusion_model.register_forward_hook(hook)
    try:
        small.sample(model)
    finally:
        handle.remove()
    assert calls


def test_05_refiner_names_are_matched(tmp_path: Path) -> None:
    modules = {
        f"{group}_refiner.0.{leaf}": (D, D)
        for group in ("noise", "context")
        for leaf in ("attention.to_q", "attention.to_out.0")
    }
    path, _ = lora_file(tmp_path / "refiners.safetensors", modules)
    for maker in (small.nunchaku, small.kitchen):
        report = report_of(maker("z_image"), (path, 1.0), strict=True)
        assert "4 of 4" in report, report


def test_06_a_changed_strength_equals_a_fresh_stack_in_any_order(tmp_path: Path) -> None:
    one, _ = lora_file(tmp_path / "one.safetensors", {**QKV, **MLP}, seed=1)
    two, _ = lora_file(tmp_path / "two.safetensors", {**Q, **MLP}, rank=20, seed=2)
    model = small.nunchaku("qwen_image")
    small.sample(apply(model, (one, 1.0), (two, 1.0)))
    changed = small.sample(apply(model, (one, 1.0), (two, 0.3)))
    fresh = small.sample(apply(small.nunchaku("qwen_image"), (one, 1.0), (two, 0.3)))
    other = small.sample(apply(small.nunchaku("qwen_image"), (two, 0.3), (one, 1.0)))
    assert torch.equal(changed, fresh)
    assert relative_error(other, fresh) < 1e-6


@pytest.mark.parametrize("maker", [small.nunchaku, small.kitchen])
def test_a_run_does_only_what_has_changed(maker: Any, tmp_path: Path) -> None:
    from vivace.wrappers.lora.running_model import RunningModel

    one, _ = lora_file(tmp_path / "one.safetensors", {**QKV, **MLP}, seed=1)
    two, _ = lora_file(tmp_path / "two.safetensors", MLP, rank=20, seed=2)
    model = maker("qwen_image")
    ranks = RunningModel.of(model).ranks

    def changes(patched: Any) -> tuple[int, int, int]:
        before = ranks.appended, ranks.rescaled, ranks.cut
        small.sample(patched)
        after = ranks.appended, ranks.rescaled, ranks.cut
        return after[0] - before[0], after[1] - before[1], after[2] - before[2]

    first = apply(model, (one, 1.0))
    assert changes(first) == (2, 0, 0)
    assert changes(first) == (0, 0, 0)
    assert changes(first.clone()) == (0, 0, 0)
    assert changes(apply(model, (one, 0.5))) == (0, 2, 0)
    assert changes(apply(model, (one, 0.5), (two, 1.0))) == (1, 0, 1)
    assert changes(apply(model, (one, 0.5))) == (1, 0, 1)
    assert changes(model) == (0, 0, 2)
    assert changes(model) == (0, 0, 0)


@pytest.mark.parametrize("maker", [small.nunchaku, small.kitchen])
def test_07_strength_zero_is_the_base(maker: Any, tmp_path: Path) -> None:
    path, _ = lora_file(tmp_path / "one.safetensors", {**QKV, **MLP})
    model = maker("qwen_image")
    base = small.sample(model)
    assert torch.equal(small.sample(apply(model, (path, 0.0))), base)
    small.sample(apply(model, (path, 1.0)))
    assert torch.equal(small.sample(apply(model, (path, 0.0))), base)


@pytest.mark.parametrize("family", small.FAMILIES)
def test_08_without_the_node_every_bit_is_back(family: str, tmp_path: Path) -> None:
    modules = QKV if family == "qwen_image" else Z_QKV
    path, _ = lora_file(tmp_path / "one.safetensors", modules, rank=20)
    model = small.nunchaku(family)
    before = factors(model)
    base = small.sample(model)
    assert not torch.equal(small.sample(apply(model, (path, 1.0))), base)
    assert torch.equal(small.sample(model), base)
    after = factors(model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not model.model.diffusion_model._forward_pre_hooks


@pytest.mark.parametrize("maker", [small.nunchaku, small.kitchen])
def test_09_alternating_clones_equal_fresh_runs(maker: Any, tmp_path: Path) -> None:
    one, _ = lora_file(tmp_path / "one.safetensors", {**QKV, **MLP}, seed=1)
    two, _ = lora_file(tmp_path / "two.safetensors", {**Q, **MLP}, rank=40, seed=2)
    model = maker("qwen_image")
    base = small.sample(model)
    a, b = apply(model, (one, 0.7)), apply(model, (two, -1.2))
    fresh_a = small.sample(apply(maker("qwen_image"), (one, 0.7)))
    fresh_b = small.sample(apply(maker("qwen_image"), (two, -1.2)))
    for clone, wanted in ((a, fresh_a), (b, fresh_b), (a, fresh_a), (model, base), (b, fresh_b)):
        assert torch.equal(small.sample(clone), wanted)


def test_10_offloaded_blocks_have_equal_ranks(tmp_path: Path) -> None:
    modules = {**Q, **MLP, "transformer_blocks.1.txt_mod.1": (6 * D, D)}
    one, deltas = lora_file(tmp_path / "one.safetensors", modules, seed=1)
    two, more = lora_file(tmp_path / "two.safetensors", QKV, rank=40, seed=2)
    model = small.nunchaku("qwen_image", offload=True)
    network = model.model.diffusion_model
    base = small.sample(model)
    managers = [network.offload_manager]
    for loras, wanted in (
        ([(one, 1.0)], on_kitchen((deltas, 1.0))),
        ([(one, 1.0), (two, 0.5)], on_kitchen((deltas, 1.0), (more, 0.5))),
    ):
        assert relative_error(small.sample(apply(model, *loras)), wanted) < 1e-5
        assert network.offload_manager not in managers
        managers.append(network.offload_manager)
    rescaled = small.sample(apply(model, (one, 0.4), (two, 0.5)))
    assert network.offload_manager is managers[-1]
    assert relative_error(rescaled, on_kitchen((deltas, 0.4), (more, 0.5))) < 1e-5
    assert torch.equal(small.sample(model), base)


def test_11_modulation_rows_are_interleaved(tmp_path: Path) -> None:
    modules = {"transformer_blocks.0.img_mod.1": (6 * D, D)}
    path, deltas = lora_file(tmp_path / "mod.safetensors", modules)
    wanted = on_kitchen((deltas, 1.0))
    for model in (small.nunchaku("qwen_image"), small.kitchen("qwen_image")):
        assert relative_error(small.sample(apply(model, (path, 1.0))), wanted) < 1e-5


def test_13_unmatched_names_are_counted_and_shown(tmp_path: Path) -> None:
    ours = {**Q, "transformer_blocks.0.img_mod.1": (6 * D, D)}  # in no other model
    path, _ = lora_file(tmp_path / "one.safetensors", ours)
    tensors = load_file(path)
    tensors["diffusion_model.transformer_blocks.0.attn.nonsense.lora_A.weight"] = torch.zeros(4, D)
    tensors["diffusion_model.transformer_blocks.0.attn.nonsense.lora_B.weight"] = torch.zeros(D, 4)
    save_file(tensors, path)
    report = report_of(small.nunchaku("qwen_image"), (path, 1.0))
    assert "nonsense" in report
    with pytest.raises(ValueError, match="nonsense"):
        apply(small.nunchaku("qwen_image"), (path, 1.0), strict=True)


def test_15_more_ranks_than_the_kernels_take(tmp_path: Path) -> None:
    model = small.nunchaku("qwen_image")
    files = [
        lora_file(tmp_path / f"{i}.safetensors", Q, rank=256, alpha=None, seed=i) for i in range(5)
    ]
    stack = [(path, 0.3) for path, _ in files]
    got = small.sample(apply(model, *stack))
    wanted = on_kitchen(*((deltas, 0.3) for _, deltas in files))
    # 1280 ranks on a layer of 256 inputs have an exact form of rank 256.
    assert relative_error(got, wanted) < 1e-5
    assert max(t.shape[1] for t in factors(model).values()) <= 1024
    assert "approximation" not in report_of(model, *stack)


def test_16_the_report_tells_how_much_the_model_grows(tmp_path: Path) -> None:
    path, _ = lora_file(tmp_path / "one.safetensors", {**QKV, **MLP}, rank=24)
    model = small.nunchaku("qwen_image")
    before = sum(tensor.nbytes for tensor in factors(model).values())
    patched = apply(model, (path, 1.0))
    small.sample(patched)
    grown = sum(tensor.nbytes for tensor in factors(model).values()) - before
    # Q, K and V of rank 24 in a block-diagonal factor of 72, padded to 80; 24 padded to 32.
    assert grown == 4 * (80 * (D + 3 * D) + 32 * (4 * D + D))
    report = report_of(model, (path, 1.0))
    assert f"grows by {grown / 2**20:.1f} MiB" in report
    assert "4 as ranks of 4-bit layers" in report


def test_18_native_loras_are_stacked_upon_and_never_applied_twice(tmp_path: Path) -> None:
    path, _ = lora_file(tmp_path / "one.safetensors", Z_QKV)
    native = random(16, D, seed=7) / 16, random(3 * D, 16, seed=8) / 4
    model = small.nunchaku("z_image")
    before = factors(model)
    base = small.sample(model)
    theirs = model.clone()
    theirs.add_native("layers.0.attention.qkv", *native)
    wanted = small.kitchen("z_image")
    layer = wanted.model.diffusion_model.layers[0].attention.qkv
    layer.register_forward_hook(adding(native[1].double() @ native[0].double(), slice(None)))
    assert relative_error(small.sample(theirs), small.sample(wanted)) < 1e-5
    both, expected = (
        small.sample(apply(theirs, (path, 1.0))),
        small.sample(apply(wanted, (path, 1.0))),
    )
    assert relative_error(both, expected) < 1e-5
    theirs.detach()
    assert torch.equal(small.sample(model), base)
    model.detach()
    after = factors(model)
    assert all(torch.equal(before[name], after[name]) for name in before)
