"""LoRA files for small models, what they must do to them by other means, and comparing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from vivace.devkit.doubles import tiny_models as tiny

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


QWEN_21_MODULES = {
    "transformer_blocks.0.attn.to_q": (D, D),
    "transformer_blocks.1.attn.to_out.0": (D, D),
    "transformer_blocks.0.img_mlp.gate_layer": (3 * D, D),
    "transformer_blocks.1.img_mlp.proj": (3 * D, D),
    "modulation.1": (4 * D, D),
    "txt_in.in_layer": (D, tiny.TEXT),
    "proj_out": (64, D),
}


FUSED_ROWS = {  # where split names lie in ComfyUI's fused ones
    "transformer_blocks.0.img_mlp.gate_layer": (
        "transformer_blocks.0.img_mlp.gate_up",
        slice(0, 3 * D),
    ),
    "transformer_blocks.1.img_mlp.proj": (
        "transformer_blocks.1.img_mlp.gate_up",
        slice(3 * D, 6 * D),
    ),
    "layers.0.attention.to_k": ("layers.0.attention.qkv", slice(D, 2 * D)),
    "layers.1.attention.to_out.0": ("layers.1.attention.out", slice(None)),
    "noise_refiner.0.attention.to_q": ("noise_refiner.0.attention.qkv", slice(0, D)),
    "context_refiner.0.attention.to_q": ("context_refiner.0.attention.qkv", slice(0, D)),
}


MAKERS: dict[str, tuple[Callable[[str], Any], dict[str, tuple[int, int]]]] = {
    "qwen_image": (tiny.qwen_image, QWEN_MODULES),
    "qwen_image_21": (tiny.qwen_image_21, QWEN_21_MODULES),
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
    maker: Callable[[str], Any],
    kind: str,
    changes: list[tuple[dict[str, torch.Tensor], float]],
    steps: int = 2,
) -> torch.Tensor:
    """The latent of a fresh model with the changes made by other means: see `changed_by_hand`."""
    return tiny.sample(changed_by_hand(maker, kind, changes), steps=steps)


def changed_by_hand(
    maker: Callable[[str], Any], kind: str, changes: list[tuple[dict[str, torch.Tensor], float]]
) -> Any:
    """A fresh model with the changes made by other means.

    Dense weights are changed by hand, in float64. Quantized layers keep what they do, which may
    include rounding their input, and a hook adds the input times the change.
    """
    model = maker(kind)
    for deltas, strength in changes:
        for path, delta in deltas.items():
            name, rows = FUSED_ROWS.get(path, (path, slice(None)))
            module = model.model.diffusion_model.get_submodule(name)
            # With dynamic VRAM the weight is as the file has it, and rounded where it is used.
            dtype = getattr(module, "weight_comfy_model_dtype", None) or module.weight.dtype
            if dtype == torch.float32 and type(module.weight.data) is torch.Tensor:
                weight = module.weight.data
                weight[rows] = (weight[rows].double() + strength * delta).float()
            else:
                module.register_forward_hook(adding(strength * delta, rows))
    return model


def adding(change: torch.Tensor, rows: slice) -> Callable[..., torch.Tensor]:
    def hook(_: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        added = (inputs[0].double() @ change.T.to(inputs[0].device)).to(output.dtype)
        output[..., rows] += added
        return output

    return hook


def relative_error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((got - wanted).double().norm() / wanted.double().norm())


def untouched(model: Any) -> bool:
    """Whether nothing of ours is left on the shared modules."""
    from vivace.wrappers.lora.branch_set import CHANGED, RUN
    from vivace.wrappers.targets.layered_class import CALL, MARK

    network = model.model.diffusion_model
    manager = getattr(network, "offload_manager", None)
    copies = torch.nn.ModuleList(manager.buffer_blocks if manager else ())
    return network.__dict__.keys().isdisjoint((CHANGED, RUN)) and not any(
        not module.__dict__.keys().isdisjoint((CALL, MARK)) or "__call__" in type(module).__dict__
        for module in (*network.modules(), *copies.modules())
        if isinstance(module, torch.nn.Module) and type(module).__module__.startswith("comfy")
    )


def apply(model: Any, *loras: tuple[Path, float], mode: str = "auto", **options: Any) -> Any:
    from vivace.wrappers.lora.apply import apply_loras

    return apply_loras(model, loras, mode, **options)[0]  # pyright: ignore[reportArgumentType]


_LOHA = {"hada_w1_a": (D, 3), "hada_w1_b": (3, D), "hada_w2_a": (D, 3), "hada_w2_b": (3, D)}


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
