"""Together with other nodes, other packs and what ComfyUI does to models."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from support.applying import (
    QWEN_MODULES,
    D,
    adding,
    apply,
    lora_file,
    reference,
    relative_error,
    special_file,
    untouched,
)
from vivace.devkit.doubles import tiny_models as tiny

pytestmark = pytest.mark.usefixtures("comfyui")


@pytest.mark.parametrize("mode", ["merge", "branch"])
def test_chained_stacks_add_up(mode: str, tmp_path: Path) -> None:
    a, first = lora_file(tmp_path / "a.safetensors", QWEN_MODULES)
    b, second = lora_file(tmp_path / "b.safetensors", QWEN_MODULES, rank=7, seed=3)
    model = tiny.qwen_image()
    one = apply(model, (a, 0.5), mode=mode)
    both = apply(one.clone(), (b, 0.25), (a, 0.25), mode=mode)
    wanted = reference(tiny.qwen_image, "fp32", [(first, 0.75), (second, 0.25)])
    assert relative_error(tiny.sample(both), wanted) < 2e-5
    wanted = reference(tiny.qwen_image, "fp32", [(first, 0.5)])
    assert relative_error(tiny.sample(one), wanted) < 2e-5


@pytest.mark.parametrize("order", ["stock first", "ours first"])
@pytest.mark.parametrize("mode", ["merge", "branch"])
@pytest.mark.parametrize("stock", ["load", "bypass"])
def test_other_lora_nodes_before_and_after(
    mode: str, order: str, stock: str, tmp_path: Path
) -> None:
    import comfy.sd
    import comfy.utils

    a, first = lora_file(tmp_path / "a.safetensors", QWEN_MODULES)
    b, second = lora_file(tmp_path / "b.safetensors", QWEN_MODULES, rank=7, seed=3)
    name = {"load": "load_lora_for_models", "bypass": "load_bypass_lora_for_models"}[stock]
    loader = getattr(comfy.sd, name, None)
    if loader is None:
        pytest.skip(f"this ComfyUI has no {name}")

    def load_stock(model: Any) -> Any:
        return loader(model, None, comfy.utils.load_torch_file(str(b)), 0.5, 0.0)[0]

    model = tiny.qwen_image()
    if order == "stock first":
        patched = apply(load_stock(model), (a, 0.5), mode=mode)
    else:
        patched = load_stock(apply(model, (a, 0.5), mode=mode))
    base = tiny.sample(model)
    wanted = reference(tiny.qwen_image, "fp32", [(first, 0.5), (second, 0.5)])
    assert relative_error(tiny.sample(patched), wanted) < 2e-5
    assert torch.equal(tiny.sample(model), base)


def test_merged_patches_survive_how_comfyui_moves_them(comfyui: ModuleType, tmp_path: Path) -> None:
    """Low-VRAM loading rebuilds adapters from their tensors."""
    import comfy.lora

    model = tiny.qwen_image()
    for kind in ("dora", "lokr", "loha"):
        path, parameter, wanted = special_file(tmp_path, kind, model)
        patched = apply(model, (path, 0.7), mode="merge")
        key = f"diffusion_model.{parameter}"
        (patch,) = patched.patches[key]
        adapter = type(patch[1])(patch[1].loaded_keys, patch[1].weights)
        weight = tiny.weight_of(model, parameter)
        moved = comfy.lora.calculate_weight([(patch[0], adapter, *patch[2:])], weight, key)
        assert relative_error(moved, wanted) < 1e-6
        if hasattr(comfy.lora, "prefetch_prepared_value"):
            fetched = comfy.lora.prefetch_prepared_value(adapter, [0], None, None, False)
            weight = tiny.weight_of(model, parameter)
            moved = comfy.lora.calculate_weight([(patch[0], fetched, *patch[2:])], weight, key)
            assert relative_error(moved, wanted) < 1e-6


def test_model_merging_keeps_both(tmp_path: Path) -> None:
    path, _ = lora_file(tmp_path / "a.safetensors", QWEN_MODULES)
    model, name = tiny.qwen_image(), "transformer_blocks.0.attn.to_q.weight"
    other = apply(model, (path, 1.0), mode="merge")
    merged = model.clone()
    merged.add_patches({f"diffusion_model.{name}": other.get_key_patches("diffusion_model.")[
        f"diffusion_model.{name}"]}, 0.5, 0.5)  # fmt: skip
    halfway = (tiny.weight_of(model, name) + tiny.weight_of(other, name)) / 2
    assert torch.allclose(tiny.weight_of(merged, name), halfway, atol=1e-6)


class PackedWeight(torch.Tensor):
    """A weight in the storage format of another pack: nothing can be calculated with it."""

    FORBIDDEN = frozenset(
        ("linear", "matmul", "mm", "addmm", "add", "add_", "sub", "mul", "mul_", "norm", "float")
    )

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in cls.FORBIDDEN:
            raise NotImplementedError(f"{func} on a packed weight")
        return super().__torch_function__(func, types, args, kwargs or {})


class PackedLinear(torch.nn.Linear):
    """A linear layer as packs such as GGUF make it: the weight is unpacked in `forward` only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight.data.as_subclass(torch.Tensor).float() / 64
        return torch.nn.functional.linear(x, weight, self.bias)


def pack(linear: Any) -> PackedLinear:
    packed = PackedLinear(linear.in_features, linear.out_features, linear.bias is not None)
    numbers = (linear.weight.data * 64).round().to(torch.int8)
    packed.weight = torch.nn.Parameter(numbers.as_subclass(PackedWeight), requires_grad=False)
    packed.bias = linear.bias
    return packed


def test_weights_of_other_packs_get_a_branch(tmp_path: Path) -> None:
    path, deltas = lora_file(tmp_path / "a.safetensors", QWEN_MODULES)
    inside = "transformer_blocks.0.attn.to_q"

    def packed_model() -> Any:
        model = tiny.qwen_image()
        attention = model.model.diffusion_model.transformer_blocks[0].attn
        attention.to_q = pack(attention.to_q)
        return model

    model = packed_model()
    base = tiny.sample(model)
    got = tiny.sample(apply(model, (path, 1.0)))
    expected = packed_model()
    network = expected.model.diffusion_model
    for name, delta in deltas.items():
        if name == inside:
            network.get_submodule(name).register_forward_hook(adding(delta, slice(None)))
        else:
            network.get_submodule(name).weight.data += delta.float()
    assert relative_error(got, tiny.sample(expected)) < 2e-5
    assert torch.equal(tiny.sample(model), base)
    assert untouched(model)


@pytest.mark.own_loading
@pytest.mark.parametrize("kind", ["dora", "lokr", "loha", "diff", "bias"])
def test_low_vram_loading_patches_while_it_runs(kind: str, tmp_path: Path) -> None:
    """Weights that stay in host memory are patched each time they are used."""
    import comfy.ops

    model = tiny.qwen_image()
    path, parameter, wanted = special_file(tmp_path, kind, model)
    patched = apply(model, (path, 0.7), mode="merge")
    patched.load(tiny.CPU, lowvram_model_memory=1)
    try:
        module = patched.model.diffusion_model.get_submodule(parameter.rpartition(".")[0])
        assert module.weight_function or module.bias_function
        like = torch.zeros(1, D)
        weight, bias = comfy.ops.cast_bias_weight(module, like)[:2]
        assert relative_error(bias if kind == "bias" else weight, wanted) < 1e-6
    finally:
        patched.detach()
