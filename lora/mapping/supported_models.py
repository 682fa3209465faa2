"""The supported models, generated from a few sizes.

Canonical paths and shapes are those of ComfyUI's own classes (``comfy/ldm/qwen_image/model.py``,
``comfy/ldm/qwen_image21/model.py`` and ``comfy/ldm/lumina/model.py``), without the prefix
``diffusion_model.``; where ComfyUI fuses what files have in parts, either form has a name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from .architecture import Architecture, Module, RowBlock, by_path, linear, stacked


def _qwen_block(b: str, hidden: int, head: int) -> Iterator[Module]:
    for stream in ("img", "txt"):
        yield linear(f"{b}.{stream}_mod.1", 6 * hidden, hidden)
        yield linear(f"{b}.{stream}_mlp.net.0.proj", 4 * hidden, hidden)
        yield linear(f"{b}.{stream}_mlp.net.2", hidden, 4 * hidden)
    for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
        yield Module(f"{b}.attn.{name}", "norm", (head,))
    names = ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj")
    for name in (*names, "to_out.0", "to_add_out"):
        yield linear(f"{b}.attn.{name}", hidden, hidden)


@lru_cache(maxsize=16)
def qwen_image(
    depth: int = 60, hidden: int = 3072, head: int = 128, text: int = 3584, latent: int = 64
) -> Architecture:
    """Return Qwen-Image (also Edit, Edit-2509, Edit-2511, Layered) with `depth` blocks.

    The Layered variant alone has ``time_text_embed.addition_t_embedding``. Fused names are those
    of SVDQuant checkpoints; their rows are in the order q, k, v.
    """
    steps = "time_text_embed.timestep_embedder"
    modules = [
        linear(f"{steps}.linear_1", hidden, 256),
        linear(f"{steps}.linear_2", hidden, hidden),
        Module("time_text_embed.addition_t_embedding", "embedding", (2, hidden), optional=True),
        Module("txt_norm", "norm", (text,)),
        linear("img_in", hidden, latent),
        linear("txt_in", hidden, text),
        linear("norm_out.linear", 2 * hidden, hidden),
        linear("proj_out", latent, hidden),
    ]
    fusions: dict[str, tuple[RowBlock, ...]] = {}
    aliases: dict[str, tuple[str, str | None]] = {}
    for i in range(depth):
        b = f"transformer_blocks.{i}"
        modules.extend(_qwen_block(b, hidden, head))
        for fused, members in (
            ("to_qkv", ("to_q", "to_k", "to_v")),
            ("add_qkv_proj", ("add_q_proj", "add_k_proj", "add_v_proj")),
        ):
            paths = [(f"{b}.attn.{member}", None) for member in members]
            fusions[f"{b}.attn.{fused}"] = stacked(paths, hidden)
        aliases[f"{b}.attn.to_added_qkv"] = (f"{b}.attn.add_qkv_proj", None)
        aliases[f"{b}.attn.to_out"] = (f"{b}.attn.to_out.0", None)
    depths = {"transformer_blocks": depth}
    table = by_path(modules)
    return Architecture(
        "qwen_image", "Qwen-Image", hidden, depths, table, fusions=fusions, aliases=aliases
    )


_SWIGLU = ("gate_layer", "proj")


def _qwen_21_block(b: str, hidden: int, ffn: int, head: int, fused: bool) -> Iterator[Module]:
    for name in ("to_q", "to_k", "to_v", "to_out.0"):
        yield linear(f"{b}.attn.{name}", hidden, hidden, bias=False)
    for name in ("norm_q", "norm_k"):
        yield Module(f"{b}.attn.{name}", "norm", (head,))
    if fused:
        yield linear(f"{b}.img_mlp.gate_up", 2 * ffn, hidden, bias=False)
    else:
        yield linear(f"{b}.img_mlp.gate_layer", ffn, hidden, bias=False)
        yield linear(f"{b}.img_mlp.proj", ffn, hidden, bias=False)
    yield linear(f"{b}.img_mlp.out", hidden, ffn, bias=False)


@lru_cache(maxsize=16)
def qwen_image_21(
    depth: int = 32,
    hidden: int = 4096,
    ffn: int = 12288,
    head: int = 128,
    text: int = 4096,
    latent: int = 64,
    fused_mlp: bool = False,
) -> Architecture:
    """Return Qwen-Image-2.1 with `depth` single-stream blocks; none of its layers has a bias.

    Checkpoints have the input of the SwiGLU either in two layers or, as ComfyUI repacks it
    (`fused_mlp`), in one: ``img_mlp.gate_up``, whose rows are **gate_layer, then proj**. Files may
    have either form for both. ``attn.to_qkv`` has the rows q, k, v.
    """
    steps = "time_text_embed.timestep_embedder"
    modules = [
        linear(f"{steps}.linear_1", hidden, 256, bias=False),
        linear(f"{steps}.linear_2", hidden, hidden, bias=False),
        Module("txt_in.text_norm", "norm", (text,)),
        linear("txt_in.in_layer", hidden, text, bias=False),
        linear("txt_in.out_layer", hidden, hidden, bias=False),
        linear("img_in", hidden, latent, bias=False),
        linear("modulation.1", 4 * hidden, hidden, bias=False),
        linear("norm_out.linear", hidden, hidden, bias=False),
        linear("proj_out", latent, hidden, bias=False),
    ]
    parts: dict[str, tuple[RowBlock, ...]] = {}
    fusions: dict[str, tuple[RowBlock, ...]] = {}
    aliases: dict[str, tuple[str, str | None]] = {}
    for i in range(depth):
        b = f"transformer_blocks.{i}"
        modules.extend(_qwen_21_block(b, hidden, ffn, head, fused_mlp))
        attention = [(f"{b}.attn.{name}", None) for name in ("to_q", "to_k", "to_v")]
        fusions[f"{b}.attn.to_qkv"] = stacked(attention, hidden)
        whole = f"{b}.img_mlp.gate_up"
        if fused_mlp:
            parts[whole] = stacked([(whole, name) for name in _SWIGLU], ffn)
            aliases.update({f"{b}.img_mlp.{name}": (whole, name) for name in _SWIGLU})
        else:
            fusions[whole] = stacked([(f"{b}.img_mlp.{name}", None) for name in _SWIGLU], ffn)
        aliases[f"{b}.attn.to_out"] = (f"{b}.attn.to_out.0", None)
    depths = {"transformer_blocks": depth}
    table = by_path(modules)
    return Architecture(
        "qwen_image_21", "Qwen-Image-2.1", hidden, depths, table, parts, fusions, aliases
    )


def _z_block(b: str, hidden: int, ffn: int, head: int, modulated: bool) -> Iterator[Module]:
    yield linear(f"{b}.attention.qkv", 3 * hidden, hidden, bias=False)
    yield linear(f"{b}.attention.out", hidden, hidden, bias=False)
    for name in ("q_norm", "k_norm"):
        yield Module(f"{b}.attention.{name}", "norm", (head,))
    yield linear(f"{b}.feed_forward.w1", ffn, hidden, bias=False)
    yield linear(f"{b}.feed_forward.w2", hidden, ffn, bias=False)
    yield linear(f"{b}.feed_forward.w3", ffn, hidden, bias=False)
    for name in ("attention_norm1", "ffn_norm1", "attention_norm2", "ffn_norm2"):
        yield Module(f"{b}.{name}", "norm", (hidden,))
    if modulated:
        yield linear(f"{b}.adaLN_modulation.0", 4 * hidden, 256)


def _z_block_aliases(b: str) -> dict[str, tuple[str, str | None]]:
    attention = f"{b}.attention"
    return {
        **{f"{attention}.to_{part}": (f"{attention}.qkv", part) for part in "qkv"},
        f"{attention}.to_qkv": (f"{attention}.qkv", None),
        f"{attention}.to_out.0": (f"{attention}.out", None),
        f"{attention}.to_out": (f"{attention}.out", None),
        f"{attention}.out.0": (f"{attention}.out", None),
        f"{attention}.wo": (f"{attention}.out", None),
        f"{attention}.norm_q": (f"{attention}.q_norm", None),
        f"{attention}.norm_k": (f"{attention}.k_norm", None),
        f"{b}.feed_forward.net.0.proj": (f"{b}.feed_forward.w13", None),
        f"{b}.feed_forward.net.2": (f"{b}.feed_forward.w2", None),
    }


@lru_cache(maxsize=16)
def z_image(
    depth: int = 30,
    refiners: int = 2,
    hidden: int = 3840,
    ffn: int = 10240,
    head: int = 128,
    text: int = 2560,
    latent: int = 64,
    siglip: int = 1152,
) -> Architecture:
    """Return Z-Image (also Turbo) with `depth` layers and `refiners` blocks in each refiner.

    Omni and Edit alone have the ``siglip_*`` modules, which take features of size `siglip`. The
    name ``feed_forward.w13`` is the fused SwiGLU input of SVDQuant checkpoints; its rows are **w3,
    then w1** (the value half comes first).
    """
    modules = [
        Module("x_pad_token", "parameter", (1, hidden)),
        Module("cap_pad_token", "parameter", (1, hidden)),
        linear("x_embedder", hidden, latent),
        linear("t_embedder.mlp.0", 1024, 256),
        linear("t_embedder.mlp.2", 256, 1024),
        Module("cap_embedder.0", "norm", (text,)),
        linear("cap_embedder.1", hidden, text),
        linear("final_layer.linear", latent, hidden),
        linear("final_layer.adaLN_modulation.1", hidden, 256),
        Module("siglip_pad_token", "parameter", (1, hidden), optional=True),
        Module("siglip_embedder.0", "norm", (siglip,), optional=True),
        replace(linear("siglip_embedder.1", hidden, siglip), optional=True),
    ]
    parts: dict[str, tuple[RowBlock, ...]] = {}
    fusions: dict[str, tuple[RowBlock, ...]] = {}
    last = "all_final_layer.2-1"
    aliases: dict[str, tuple[str, str | None]] = {
        "all_x_embedder.2-1": ("x_embedder", None),
        f"{last}.linear": ("final_layer.linear", None),
        f"{last}.adaLN_modulation.1": ("final_layer.adaLN_modulation.1", None),
        # mflux's own names
        f"{last}.adaLN_modulation.0": ("final_layer.adaLN_modulation.1", None),
        "t_embedder.linear1": ("t_embedder.mlp.0", None),
        "t_embedder.linear2": ("t_embedder.mlp.2", None),
    }
    depths = {"layers": depth, "noise_refiner": refiners, "context_refiner": refiners}
    for group, count in {**depths, "siglip_refiner": refiners}.items():
        for b in (f"{group}.{i}" for i in range(count)):
            block = _z_block(b, hidden, ffn, head, group in ("layers", "noise_refiner"))
            optional = group == "siglip_refiner"
            modules.extend(replace(module, optional=optional) for module in block)
            qkv, swiglu = f"{b}.attention.qkv", f"{b}.feed_forward"
            parts[qkv] = stacked([(qkv, part) for part in "qkv"], hidden)
            fusions[f"{swiglu}.w13"] = stacked(
                [(f"{swiglu}.w3", None), (f"{swiglu}.w1", None)], ffn
            )
            aliases.update(_z_block_aliases(b))
    table = by_path(modules)
    return Architecture("z_image", "Z-Image", hidden, depths, table, parts, fusions, aliases)


def standard() -> tuple[Architecture, ...]:
    """Return the supported architectures at the depth of the published models."""
    return qwen_image(), qwen_image_21(), z_image()
