"""The supported models as lists of modules, generated from a few sizes.

Canonical paths and shapes are those of ComfyUI's own classes (``comfy/ldm/qwen_image/model.py`` and
``comfy/ldm/lumina/model.py``, ComfyUI 0.30.0), without the ``diffusion_model.`` prefix.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, NamedTuple

Kind = Literal["linear", "norm", "embedding", "parameter"]


@dataclass(frozen=True)
class Module:
    """One module of a model.

    `shape` is that of the weight: ``(out, in)`` for a linear layer, ``(n,)`` for a norm. A
    ``parameter`` is a bare tensor, such as a pad token. An `optional` module exists only in some
    variants of the model.
    """

    path: str
    kind: Kind
    shape: tuple[int, ...]
    bias: bool = False
    optional: bool = False

    def parameter_name(self, parameter: str = "weight") -> str:
        """Return the state_dict name of this module's ``"weight"`` or ``"bias"``."""
        return self.path if self.kind == "parameter" else f"{self.path}.{parameter}"


class RowBlock(NamedTuple):
    """Rows ``start:stop`` of a weight, and the module (or part of a module) they belong to."""

    module: str
    part: str | None
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Target:
    """What a spelling in a file names: a module, a part of one, or a fusion of several.

    `shape` is ``(out, in)`` (or ``(n,)``) of the delta that the file may hold for it, and `blocks`
    tells which canonical rows that delta covers, in order.
    """

    module: str
    part: str | None
    shape: tuple[int, ...]
    bias: bool
    blocks: tuple[RowBlock, ...]


@dataclass(frozen=True, eq=False)
class Architecture:
    """A model: its modules, the parts of fused modules, and every other name for them.

    `parts` maps a fused canonical module to its row blocks (Z-Image ``attention.qkv``). `fusions`
    maps the name of a projection that other implementations fuse to the row blocks it is made of.
    `aliases` maps a foreign module name to ``(module, part)``; part is None for the whole module.
    """

    name: str
    title: str
    hidden: int
    depths: Mapping[str, int]
    modules: Mapping[str, Module] = field(repr=False)
    parts: Mapping[str, tuple[RowBlock, ...]] = field(default_factory=dict, repr=False)
    fusions: Mapping[str, tuple[RowBlock, ...]] = field(default_factory=dict, repr=False)
    aliases: Mapping[str, tuple[str, str | None]] = field(default_factory=dict, repr=False)

    def layout(self, name: str) -> tuple[RowBlock, ...]:
        """Return the row blocks of a module or fusion, in row order.

        Raises:
            KeyError: `name` is neither a module nor a fusion of this architecture.
        """
        if name in self.fusions:
            return self.fusions[name]
        if name in self.parts:
            return self.parts[name]
        return (RowBlock(name, None, 0, self.modules[name].shape[0]),)

    def target(self, name: str, part: str | None = None) -> Target:
        """Return the target for a module, a part of one, or a fusion.

        Raises:
            KeyError: there is no such module, part or fusion.
        """
        blocks = self.layout(name)
        if part is not None:
            block = {block.part: block for block in blocks}[part]
            blocks = (RowBlock(name, part, 0, block.stop - block.start),)
        first = self.modules[blocks[0].module]
        shape = (blocks[-1].stop, *first.shape[1:])
        return Target(name, part, shape, first.bias, blocks)

    def rows(self, module: str, part: str | None) -> tuple[int, int]:
        """Return the rows ``(start, stop)`` that `part` occupies in `module`."""
        if part is None:
            return 0, self.modules[module].shape[0]
        block = {block.part: block for block in self.parts[module]}[part]
        return block.start, block.stop


def _linear(path: str, out: int, inp: int, *, bias: bool = True) -> Module:
    return Module(path, "linear", (out, inp), bias)


def _stacked(members: Iterable[tuple[str, str | None]], height: int) -> tuple[RowBlock, ...]:
    return tuple(
        RowBlock(module, part, i * height, (i + 1) * height)
        for i, (module, part) in enumerate(members)
    )


def _by_path(modules: Iterable[Module]) -> dict[str, Module]:
    return {module.path: module for module in modules}


def _qwen_block(b: str, hidden: int, head: int) -> Iterator[Module]:
    for stream in ("img", "txt"):
        yield _linear(f"{b}.{stream}_mod.1", 6 * hidden, hidden)
        yield _linear(f"{b}.{stream}_mlp.net.0.proj", 4 * hidden, hidden)
        yield _linear(f"{b}.{stream}_mlp.net.2", hidden, 4 * hidden)
    for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
        yield Module(f"{b}.attn.{name}", "norm", (head,))
    names = ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj")
    for name in (*names, "to_out.0", "to_add_out"):
        yield _linear(f"{b}.attn.{name}", hidden, hidden)


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
        _linear(f"{steps}.linear_1", hidden, 256),
        _linear(f"{steps}.linear_2", hidden, hidden),
        Module("time_text_embed.addition_t_embedding", "embedding", (2, hidden), optional=True),
        Module("txt_norm", "norm", (text,)),
        _linear("img_in", hidden, latent),
        _linear("txt_in", hidden, text),
        _linear("norm_out.linear", 2 * hidden, hidden),
        _linear("proj_out", latent, hidden),
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
            fusions[f"{b}.attn.{fused}"] = _stacked(paths, hidden)
        aliases[f"{b}.attn.to_out"] = (f"{b}.attn.to_out.0", None)
    depths = {"transformer_blocks": depth}
    table = _by_path(modules)
    return Architecture(
        "qwen_image", "Qwen-Image", hidden, depths, table, fusions=fusions, aliases=aliases
    )


def _z_block(b: str, hidden: int, ffn: int, head: int, modulated: bool) -> Iterator[Module]:
    yield _linear(f"{b}.attention.qkv", 3 * hidden, hidden, bias=False)
    yield _linear(f"{b}.attention.out", hidden, hidden, bias=False)
    for name in ("q_norm", "k_norm"):
        yield Module(f"{b}.attention.{name}", "norm", (head,))
    yield _linear(f"{b}.feed_forward.w1", ffn, hidden, bias=False)
    yield _linear(f"{b}.feed_forward.w2", hidden, ffn, bias=False)
    yield _linear(f"{b}.feed_forward.w3", ffn, hidden, bias=False)
    for name in ("attention_norm1", "ffn_norm1", "attention_norm2", "ffn_norm2"):
        yield Module(f"{b}.{name}", "norm", (hidden,))
    if modulated:
        yield _linear(f"{b}.adaLN_modulation.0", 4 * hidden, 256)


def _z_block_aliases(b: str) -> dict[str, tuple[str, str | None]]:
    attention = f"{b}.attention"
    return {
        **{f"{attention}.to_{part}": (f"{attention}.qkv", part) for part in "qkv"},
        f"{attention}.to_qkv": (f"{attention}.qkv", None),
        f"{attention}.to_out.0": (f"{attention}.out", None),
        f"{attention}.to_out": (f"{attention}.out", None),
        f"{attention}.out.0": (f"{attention}.out", None),
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
) -> Architecture:
    """Return Z-Image (also Turbo) with `depth` layers and `refiners` blocks in each refiner.

    The name ``feed_forward.w13`` is the fused SwiGLU input of SVDQuant checkpoints; its rows are
    **w3, then w1** (the value half comes first).
    """
    modules = [
        Module("x_pad_token", "parameter", (1, hidden)),
        Module("cap_pad_token", "parameter", (1, hidden)),
        _linear("x_embedder", hidden, latent),
        _linear("t_embedder.mlp.0", 1024, 256),
        _linear("t_embedder.mlp.2", 256, 1024),
        Module("cap_embedder.0", "norm", (text,)),
        _linear("cap_embedder.1", hidden, text),
        _linear("final_layer.linear", latent, hidden),
        _linear("final_layer.adaLN_modulation.1", hidden, 256),
    ]
    parts: dict[str, tuple[RowBlock, ...]] = {}
    fusions: dict[str, tuple[RowBlock, ...]] = {}
    last = "all_final_layer.2-1"
    aliases: dict[str, tuple[str, str | None]] = {
        "all_x_embedder.2-1": ("x_embedder", None),
        f"{last}.linear": ("final_layer.linear", None),
        f"{last}.adaLN_modulation.1": ("final_layer.adaLN_modulation.1", None),
    }
    depths = {"layers": depth, "noise_refiner": refiners, "context_refiner": refiners}
    for group, count in depths.items():
        for b in (f"{group}.{i}" for i in range(count)):
            modules.extend(_z_block(b, hidden, ffn, head, group != "context_refiner"))
            qkv, swiglu = f"{b}.attention.qkv", f"{b}.feed_forward"
            parts[qkv] = _stacked([(qkv, part) for part in "qkv"], hidden)
            fusions[f"{swiglu}.w13"] = _stacked(
                [(f"{swiglu}.w3", None), (f"{swiglu}.w1", None)], ffn
            )
            aliases.update(_z_block_aliases(b))
    table = _by_path(modules)
    return Architecture("z_image", "Z-Image", hidden, depths, table, parts, fusions, aliases)


def standard() -> tuple[Architecture, ...]:
    """Return the supported architectures at the depth of the published models."""
    return qwen_image(), z_image()
