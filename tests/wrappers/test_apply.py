"""LoRA stacks on running models: exact, apart from each other, and gone when they are gone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support import tiny_models as tiny

pytestmark = pytest.mark.usefixtures("comfyui")
D = tiny.QWEN_DIM

QWEN_MODULES = {
    "transformer_blocks.0.attn.to_q": (D, D),
    "transformer_blocks.1.attn.add_v_proj": (D, D),
    "transformer_blocks.0.img_mlp.net.2": (D, 4 * D),
    "transformer_blocks.1.txt_mod.1": (6 * D, D),
    "img_in": (D, 64),
}
Z_MODULES = {
    "layers.0.attention.to_k": (D, D),
    "layers.1.attention.to_out.0": (D, D),
    "layers.1.feed_forward.w3": (512, D),
    "noise_refiner.0.attention.to_q": (D, D),
}
Z_ROWS = {  # where the split names lie in ComfyUI's fused ones
    "layers.0.attention.to_k": ("layers.0.attention.qkv", slice(D, 2 * D)),
    "layers.1.attention.to_out.0": ("layers.1.attention.out", slice(None)),
    "noise_refiner.0.attention.to_q": ("noise_refiner.0.attention.qkv", slice(0, D)),
}
MAKERS: dict[str, tuple[Callable[[str], Any], dict[str, tuple[int, int]]]] = {
    "qwen_image": (tiny.qwen_image, QWEN_MODULES),
    "z_image": (tiny.z_image, Z_MODULES),
}


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def lora_file(
    path: Path,
    modules: dict[str, tuple[int, int]],
    rank: int = 4,
    alpha: float | None = 2.0,
    seed: int = 1,
) -> tuple[Path, dict[str, torch.Tensor]]:
    """A LoRA file, and its deltas in float64 by another way than the engine's."""
    tensors, deltas = {}, {}
    for index, (module, (out, inp)) in enumerate(modules.items()):
        down = random(rank, inp, seed=seed * 100 + index) / inp**0.5
        up = random(out, rank, seed=seed * 100 + 50 + index) / rank**0.5
        tensors[f"diffusion_model.{module}.lora_A.weight"] = down
        tensors[f"diffusion_model.{module}.lora_B.weight"] = up
        if alpha is not None:
            tensors[f"diffusion_model.{module}.alpha"] = torch.tensor(alpha)
        scale = 1.0 if alpha is None else alpha / rank
        deltas[module] = scale * up.double() @ down.double()
    save_file(tensors, path)
    return path, deltas


def reference(
    maker: Callable[[str], Any], kind: str, changes: list[tuple[dict[str, torch.Tensor], float]]
) -> torch.Tensor:
    """The latent of a fresh model with the changes made by other means.

    Dense weights are changed by hand, in float64. Quantized layers keep what they do, which may
    include rounding their input, and a hook adds the input times the change.
    """
    model = maker(kind)
    for deltas, strength in changes:
        for path, delta in deltas.items():
            name, rows = Z_ROWS.get(path, (path, slice(None)))
            module = model.model.diffusion_model.get_submodule(name)
            if module.weight.dtype == torch.float32 and type(module.weight.data) is torch.Tensor:
                weight = module.weight.data
                weight[rows] = (weight[rows].double() + strength * delta).float()
            else:
                module.register_forward_hook(adding(strength * delta, rows))
    return tiny.sample(model)


def adding(change: torch.Tensor, rows: slice) -> Callable[..., torch.Tensor]:
    def hook(_: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        added = (inputs[0].double() @ change.T).to(output.dtype)
        output[..., rows] += added
        return output

    return hook


def relative_error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((got - wanted).double().norm() / wanted.double().norm())


def untouched(model: Any) -> bool:
    """Whether nothing of ours is left on the shared modules."""
    network = model.model.diffusion_model
    return "_vivace_branch" not in network.__dict__ and not any(
        "_vivace_branch" in module.__dict__ or "__call__" in type(module).__dict__
        for module in network.modules()
        if isinstance(module, torch.nn.Module) and type(module).__module__.startswith("comfy")
    )


def apply(model: Any, *loras: tuple[Path, float], mode: str = "auto", **options: Any) -> Any:
    from vivace.wrappers.apply import apply_loras

    return apply_loras(model, loras, mode, **options)[0]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("mode", ["merge", "branch"])
@pytest.mark.parametrize("family", MAKERS)
def test_dense_models_equal_a_model_changed_by_hand(family: str, mode: str, tmp_path: Path) -> None:
    maker, modules = MAKERS[family]
    first, deltas = lora_file(tmp_path / "a.safetensors", modules)
    second, more = lora_file(tmp_path / "b.safetensors", modules, rank=3, alpha=None, seed=2)
    model = maker("fp32")
    base = tiny.sample(model)
    patched = apply(model, (first, 0.8), (second, -0.5), mode=mode)
    got = tiny.sample(patched)
    wanted = reference(maker, "fp32", [(deltas, 0.8), (more, -0.5)])
    assert relative_error(base, wanted) > 0.01
    assert relative_error(got, wanted) < 2e-5
    assert torch.equal(tiny.sample(model), base)
    assert untouched(model)


@pytest.mark.parametrize("kind", ["fp8 cast", "fp8 quantized"])
@pytest.mark.parametrize("family", MAKERS)
def test_auto_is_exact_on_quantized_models(family: str, kind: str, tmp_path: Path) -> None:
    maker, modules = MAKERS[family]
    path, deltas = lora_file(tmp_path / "a.safetensors", modules)
    model = maker(kind)
    base = tiny.sample(model)
    weights = {n: p.clone() for n, p in model.model.diffusion_model.named_parameters()}
    got = tiny.sample(apply(model, (path, 1.0)))
    wanted = reference(maker, kind, [(deltas, 1.0)])
    assert relative_error(base, wanted) > 0.01
    assert relative_error(got, wanted) < 2e-5
    merged = tiny.sample(apply(model, (path, 1.0), mode="merge"))
    assert relative_error(merged, wanted) > 1e-4, "merging into fp8 rounds: the branch is needed"
    assert torch.equal(tiny.sample(model), base)
    for name, parameter in model.model.diffusion_model.named_parameters():
        before = weights[name]
        if hasattr(before, "dequantize"):
            before, parameter = before.dequantize(), parameter.dequantize()
        assert torch.equal(before.float(), parameter.float()), name


def test_bf16_is_within_rounding(tmp_path: Path) -> None:
    path, deltas = lora_file(tmp_path / "a.safetensors", QWEN_MODULES)
    wanted = reference(tiny.qwen_image, "bf16", [(deltas, 1.0)])
    for mode in ("merge", "branch"):
        got = tiny.sample(apply(tiny.qwen_image("bf16"), (path, 1.0), mode=mode))
        assert relative_error(got, wanted) < 2e-2


@pytest.mark.parametrize("mode", ["merge", "branch"])
def test_alternation_equals_fresh_runs(mode: str, tmp_path: Path) -> None:
    a, _ = lora_file(tmp_path / "a.safetensors", QWEN_MODULES)
    b, _ = lora_file(tmp_path / "b.safetensors", QWEN_MODULES, rank=7, seed=3)

    def fresh(*loras: tuple[Path, float]) -> torch.Tensor:
        return tiny.sample(apply(tiny.qwen_image(), *loras, mode=mode))

    model = tiny.qwen_image()
    with_a, with_b = (apply(model, (path, 1.0), mode=mode) for path in (a, b))
    expected = [fresh((a, 1.0)), fresh((b, 1.0)), fresh((a, 1.0)), fresh()]
    got = [tiny.sample(patcher) for patcher in (with_a, with_b, with_a, model)]
    for one, other in zip(got, expected, strict=True):
        assert torch.equal(one, other)
    assert untouched(model)


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


class Interrupted(BaseException):
    """What ComfyUI's interrupt is: no `Exception`."""


@pytest.mark.parametrize("error", [RuntimeError, Interrupted])
def test_an_error_while_sampling_leaves_nothing_behind(
    error: type[BaseException], tmp_path: Path
) -> None:
    path, _ = lora_file(tmp_path / "a.safetensors", QWEN_MODULES)
    model = tiny.qwen_image()
    base = tiny.sample(model)
    patched = apply(model, (path, 1.0), mode="branch")
    expected = tiny.sample(patched)

    def fail(*_: Any) -> None:
        assert not untouched(model), "the branches are there while it runs"
        raise error("now")

    with pytest.raises(error):
        tiny.sample(patched, callback=fail)
    assert untouched(model)
    assert torch.equal(tiny.sample(model), base)
    assert torch.equal(tiny.sample(patched), expected)


@pytest.mark.parametrize("mode", ["merge", "branch"])
@pytest.mark.parametrize("kind", ["dora", "lokr", "loha", "diff", "bias", "norm", "lokr qkv"])
def test_other_formats_change_the_weight_as_they_say(kind: str, mode: str, tmp_path: Path) -> None:
    model = tiny.z_image() if kind == "lokr qkv" else tiny.qwen_image()
    path, parameter, wanted = special_file(tmp_path, kind, model)
    base = tiny.weight_of(model, parameter)
    patched = apply(model, (path, 0.7), mode="merge")
    error = relative_error(tiny.weight_of(patched, parameter), wanted)
    assert error < 1e-6
    assert relative_error(base, wanted) > 1e-3
    latent = tiny.sample(patched)
    assert relative_error(tiny.sample(apply(model, (path, 0.7), mode=mode)), latent) < 2e-5


def special_file(folder: Path, kind: str, model: Any) -> tuple[Path, str, torch.Tensor]:
    """A file of a format, the parameter it changes, and that parameter at strength 0.7."""
    module = "transformer_blocks.0.attn.to_q"
    parameter = {
        "bias": f"{module}.bias",
        "norm": "transformer_blocks.0.attn.norm_q.weight",
        "lokr qkv": "layers.0.attention.qkv.weight",
    }.get(kind, f"{module}.weight")
    weight = tiny.weight_of(model, parameter).double()
    tensors: dict[str, torch.Tensor] = {}
    if kind == "dora":
        down, up = random(4, D, seed=1) / 16, random(D, 4, seed=2) / 2
        magnitude = random(D, 1, seed=3).abs() + 0.5
        tensors = {"lora_A.weight": down, "lora_B.weight": up, "dora_scale": magnitude}
        changed = weight + up.double() @ down.double()
        changed = magnitude.double() * changed / changed.norm(dim=1, keepdim=True)
        wanted = weight + 0.7 * (changed - weight)
    elif kind in ("lokr", "lokr qkv"):
        w1, w2 = random(8, 8, seed=1) / 8, random(D // 8, D // 8, seed=2) / 6
        tensors = {"lokr_w1": w1, "lokr_w2": w2, "alpha": torch.tensor(1e10)}
        delta = 0.7 * torch.kron(w1.double(), w2.double())
        wanted = weight.clone()
        wanted[-D:] += delta
    elif kind == "loha":
        parts = {n: random(*s, seed=i) / 4 for i, (n, s) in enumerate(_LOHA.items())}
        tensors = {**parts, "alpha": torch.tensor(2.0)}
        one = parts["hada_w1_a"].double() @ parts["hada_w1_b"].double()
        two = parts["hada_w2_a"].double() @ parts["hada_w2_b"].double()
        wanted = weight + 0.7 * (2.0 / 3) * one * two
    else:
        diff = random(*weight.shape, seed=1) / 8
        tensors = {"diff_b" if kind == "bias" else "diff": diff}
        wanted = weight + 0.7 * diff.double()
    stem = parameter.rpartition(".")[0]
    if kind == "lokr qkv":
        stem = "layers.0.attention.to_v"
    path = folder / f"{kind}.safetensors"
    save_file({f"diffusion_model.{stem}.{n}": t for n, t in tensors.items()}, path)
    return path, parameter, wanted


_LOHA = {"hada_w1_a": (D, 3), "hada_w1_b": (3, D), "hada_w2_a": (D, 3), "hada_w2_b": (3, D)}


def test_a_changed_strength_rescales_and_reads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import vivace.lora.loader as loader
    from vivace.wrappers.running_model import RunningModel

    opened: list[Path] = []
    original = loader.LoraFile

    def counting(path: Path) -> Any:
        opened.append(path)
        return original(path)

    monkeypatch.setattr(loader, "LoraFile", counting)
    a, _ = lora_file(tmp_path / "a.safetensors", QWEN_MODULES)
    b, _ = lora_file(tmp_path / "b.safetensors", {"img_in": (D, 64)}, seed=9)
    model = tiny.qwen_image()
    apply(model, (a, 1.0), mode="branch")
    composer = RunningModel.of(model).composer
    assert (len(opened), composer.recomposed, composer.rescaled) == (1, len(QWEN_MODULES), 0)
    apply(model, (a, 0.3), mode="branch")
    assert (len(opened), composer.recomposed) == (1, len(QWEN_MODULES))
    assert composer.rescaled == len(QWEN_MODULES)
    apply(model, (a, 0.3), (b, 1.0), mode="branch")
    assert (len(opened), composer.recomposed) == (2, len(QWEN_MODULES) + 1)
    apply(model, (b, 1.0), (a, 0.3), mode="branch")
    assert (len(opened), composer.recomposed) == (2, len(QWEN_MODULES) + 1)


def test_a_replaced_file_is_read_again(tmp_path: Path) -> None:
    path, _ = lora_file(tmp_path / "a.safetensors", QWEN_MODULES)
    model = tiny.qwen_image()
    first = tiny.sample(apply(model, (path, 1.0), mode="branch"))
    _, deltas = lora_file(path, QWEN_MODULES, rank=5, seed=4)
    second = tiny.sample(apply(model, (path, 1.0), mode="branch"))
    assert relative_error(second, reference(tiny.qwen_image, "fp32", [(deltas, 1.0)])) < 2e-5
    assert relative_error(second, first) > 1e-3


@pytest.mark.parametrize("mode", ["auto", "merge", "branch"])
def test_no_active_lora_is_the_model_itself(mode: str) -> None:
    model = tiny.qwen_image()
    assert apply(model, mode=mode) is model


def test_models_are_freed(tmp_path: Path) -> None:
    import gc
    import weakref

    import comfy.model_management

    path, _ = lora_file(tmp_path / "a.safetensors", QWEN_MODULES)
    model = tiny.qwen_image()
    patched = apply(model, (path, 1.0), mode="branch")
    tiny.sample(patched)
    alive = weakref.ref(model.model)
    del model, patched
    comfy.model_management.unload_all_models()
    gc.collect()
    assert alive() is None


def test_factors_are_counted_by_comfyui(tmp_path: Path) -> None:
    path, _ = lora_file(tmp_path / "a.safetensors", QWEN_MODULES, rank=16)
    patched = apply(tiny.qwen_image(), (path, 1.0), mode="branch")
    (holder,) = patched.get_nested_additional_models()
    numbers = sum(16 * (out + inp) + 16 for out, inp in QWEN_MODULES.values())
    assert holder.model_size() == 4 * numbers


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


def test_torch_compile_sees_the_branches(tmp_path: Path) -> None:
    """Both ways of the same compiled model are right, and only a new rank compiles again."""
    import torch._dynamo
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    path, deltas = lora_file(tmp_path / "a.safetensors", QWEN_MODULES)
    wider, _ = lora_file(tmp_path / "b.safetensors", QWEN_MODULES, rank=9, seed=5)
    torch._dynamo.reset()
    graphs: list[Any] = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    model = tiny.qwen_image()
    base = tiny.sample(model)
    compiled = model.clone()
    set_torch_compile_wrapper(compiled, backend=backend)  # pyright: ignore[reportArgumentType]
    assert relative_error(tiny.sample(compiled), base) < 1e-5
    wanted = reference(tiny.qwen_image, "fp32", [(deltas, 1.0)])
    got = tiny.sample(apply(compiled, (path, 1.0), mode="branch"))
    assert relative_error(got, wanted) < 2e-5
    after_first = len(graphs)
    assert after_first > 0
    wanted = reference(tiny.qwen_image, "fp32", [(deltas, 0.4)])
    got = tiny.sample(apply(compiled, (path, 0.4), mode="branch"))
    assert relative_error(got, wanted) < 2e-5
    assert relative_error(tiny.sample(compiled), base) < 1e-5
    assert len(graphs) == after_first, "a changed strength must not compile again"
    tiny.sample(apply(compiled, (wider, 1.0), mode="branch"))
    assert len(graphs) > after_first
    torch._dynamo.reset()


def test_refusals_name_file_and_remedy(tmp_path: Path) -> None:
    qwen, _ = lora_file(tmp_path / "qwen.safetensors", QWEN_MODULES)
    model = tiny.qwen_image()
    z, _ = lora_file(tmp_path / "z.safetensors", Z_MODULES)
    with pytest.raises(ValueError, match=r"z\.safetensors"):
        apply(model, (qwen, 1.0), (z, 1.0))
    deep, _ = lora_file(
        tmp_path / "deep.safetensors", {"transformer_blocks.40.img_mod.1": (6 * D, D)}
    )
    with pytest.raises(ValueError, match=r"deep\.safetensors"):
        apply(model, (deep, 1.0))
    assert model.patches == {}
    assert untouched(model)


def test_strict_names_what_cannot_be_applied(tmp_path: Path) -> None:
    path, deltas = lora_file(tmp_path / "a.safetensors", QWEN_MODULES)
    from safetensors.torch import load_file

    tensors = load_file(path)
    tensors["diffusion_model.transformer_blocks.0.attn.nothing.lora_A.weight"] = random(
        4, D, seed=1
    )
    odd = tmp_path / "odd.safetensors"
    save_file(tensors, odd)
    model = tiny.qwen_image()
    with pytest.raises(ValueError, match=r"odd\.safetensors: 1 tensors.*attn\.nothing"):
        apply(model, (odd, 1.0), strict=True)
    lenient = tiny.sample(apply(model, (odd, 1.0)))
    assert relative_error(lenient, reference(tiny.qwen_image, "fp32", [(deltas, 1.0)])) < 2e-5
    apply(model, (path, 1.0), strict=True)


def test_a_model_of_another_kind_is_refused() -> None:
    class Other:
        model = type("SDXL", (), {"diffusion_model": torch.nn.Linear(1, 1)})()

    with pytest.raises(ValueError, match=r"SDXL.*neither a Qwen-Image nor a Z-Image"):
        apply(Other(), (Path("any.safetensors"), 1.0))


def test_the_report_says_what_was_applied(tmp_path: Path) -> None:
    from vivace.wrappers.apply import apply_loras

    path, _ = lora_file(tmp_path / "a.safetensors", QWEN_MODULES)
    _, report = apply_loras(tiny.qwen_image("fp8 quantized"), [(path, 0.5)])
    assert "| a.safetensors | qwen_image LoRA rank 4 | 5 of 5 |" in report
    assert "strength 0.5: 2 modules merged, 3 as a runtime branch" in report


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


def test_a_second_pass_on_the_result_of_the_first(tmp_path: Path) -> None:
    """A hires-fix chain: one stack samples, another goes on from its latent."""
    import comfy.sample

    a, _ = lora_file(tmp_path / "a.safetensors", QWEN_MODULES)
    b, _ = lora_file(tmp_path / "b.safetensors", QWEN_MODULES, rank=7, seed=3)

    def chain(first: Any, second: Any) -> torch.Tensor:
        latent = tiny.sample(first)
        text = [[random(1, 6, tiny.TEXT, seed=8), {}]]
        noise = random(*latent.shape, seed=9)
        return comfy.sample.sample(
            second, noise, 2, 1.0, "euler", "simple", text, text, latent,
            denoise=0.5, disable_pbar=True, seed=4,
        )  # fmt: skip

    model = tiny.qwen_image()
    shared = chain(apply(model, (a, 1.0), mode="branch"), apply(model, (b, 1.0), mode="branch"))
    apart = chain(
        apply(tiny.qwen_image(), (a, 1.0), mode="branch"),
        apply(tiny.qwen_image(), (b, 1.0), mode="branch"),
    )
    assert torch.equal(shared, apart)
