"""The naive pipeline: what a LoRA loader does that was written module by module.

The first file is read twice, once to log its keys; all tensors of a file are read at once; every
key runs through a table of regular expressions from the top; projections that the model fuses are
fused one module at a time with block-diagonal zeros; and all of it is done anew on every change.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

_PREFIXES = ("transformer.", "diffusion_model.")
_FACTOR = re.compile(r"\.(?P<tag>lora[._](?:A|B|down|up))(?:\.[^.]+)*\.weight$")
_ALPHA = re.compile(r"\.(?:alpha|lora_alpha)(?:\.[^.]+)*$")
_UNDERSCORES = (
    (re.compile(r"_(\d+)_attn_to_out_(\d+)"), r".\1.attn.to_out.\2"),
    (re.compile(r"_(\d+)_(img|txt)_mlp_net_(\d+)_proj"), r".\1.\2_mlp.net.\3.proj"),
    (re.compile(r"_(\d+)_(img|txt)_mlp_net_(\d+)"), r".\1.\2_mlp.net.\3"),
    (re.compile(r"_(\d+)_(img|txt)_mod_(\d+)"), r".\1.\2_mod.\3"),
    (re.compile(r"_(\d+)_attn_"), r".\1.attn."),
)

# Pattern, target and component ("q", "w1", ...); the first match wins.
_BLOCK = r"^(transformer_blocks)[._](\d+)[._]"
_LAYER = r"^(layers)[._](\d+)[._]"
_HERE = r"\1.\2."
_ROWS = (
    (_LAYER + r"attention[._]to[._]([qkv])$", _HERE + "attention.qkv", 3),
    (_LAYER + r"feed_forward[._](w[13])$", _HERE + "feed_forward.w13", 3),
    (_LAYER + r"feed_forward[._]w2$", _HERE + "feed_forward.w2", None),
    (_LAYER + r"attention[._]to_out[._]0$", _HERE + "attention.out", None),
    (_LAYER + r"(.*)$", _HERE + r"\3", None),
    (_BLOCK + r"attn[._]to_qkv$", _HERE + "attn.to_qkv", None),
    (_BLOCK + r"attn[._](?:to_)?([qkv])(?:_proj)?$", _HERE + "attn.to_qkv", 3),
    (_BLOCK + r"attn[._]add_qkv_proj$", _HERE + "attn.add_qkv_proj", None),
    (_BLOCK + r"attn[._]add_([qkv])_proj$", _HERE + "attn.add_qkv_proj", 3),
    (_BLOCK + r"out_proj_context$", _HERE + "attn.to_add_out", None),
    (_BLOCK + r"out_proj$", _HERE + "attn.to_out.0", None),
    (_BLOCK + r"attn[._]to_add_out$", _HERE + "attn.to_add_out", None),
    (_BLOCK + r"attn[._]to_out$", _HERE + "attn.to_out.0", None),
    (_BLOCK + r"attn[._]to_out[._]0$", _HERE + "attn.to_out.0", None),
    (_BLOCK + r"img_mlp[._]net[._]0[._]proj$", _HERE + "img_mlp.net.0.proj", None),
    (_BLOCK + r"img_mlp[._]net[._]0$", _HERE + "img_mlp.net.0.proj", None),
    (_BLOCK + r"img_mlp[._]net[._]2$", _HERE + "img_mlp.net.2", None),
    (_BLOCK + r"txt_mlp[._]net[._]0[._]proj$", _HERE + "txt_mlp.net.0.proj", None),
    (_BLOCK + r"txt_mlp[._]net[._]0$", _HERE + "txt_mlp.net.0.proj", None),
    (_BLOCK + r"txt_mlp[._]net[._]2$", _HERE + "txt_mlp.net.2", None),
    (_BLOCK + r"img_mod[._]1$", _HERE + "img_mod.1", None),
    (_BLOCK + r"txt_mod[._]1$", _HERE + "txt_mod.1", None),
    (r"^img_in$", "img_in", None),
    (r"^txt_in$", "txt_in", None),
    (r"^proj_out$", "proj_out", None),
    (r"^norm_out[._]linear$", "norm_out.linear", None),
    (r"^time_text_embed[._]timestep_embedder[._]linear_1$", "time_text_embed.1", None),
    (r"^time_text_embed[._]timestep_embedder[._]linear_2$", "time_text_embed.2", None),
)
_TABLE = [(re.compile(pattern), target, part) for pattern, target, part in _ROWS]
_FUSED = {"q": "qkv", "w1": ("w3", "w1")}


class Found(NamedTuple):
    """What a key means: target module, component of a fused one, and A, B or alpha."""

    target: str
    component: str | None
    role: str


def classify(key: str) -> Found | None:
    """Find the first row of the table that matches a key."""
    for prefix in _PREFIXES:
        key = key.removeprefix(prefix)
    if key.startswith("lora_unet_"):
        key = key.removeprefix("lora_unet_")
        for pattern, replacement in _UNDERSCORES:
            key = pattern.sub(replacement, key)
    if match := _FACTOR.search(key):
        role = "A" if match["tag"][5:] in ("A", "down") else "B"
    elif match := _ALPHA.search(key):
        role = "alpha"
    else:
        return None
    base = key[: match.start()]
    for pattern, target, part in _TABLE:
        if row := pattern.match(base):
            return Found(row.expand(target), row[part] if part else None, role)
    return None


def classify_file(keys: Iterable[str]) -> list[Found | None]:
    """Classify the keys of a file twice, as the double read does."""
    keys = list(keys)
    for key in keys:
        classify(key)
    return [classify(key) for key in keys]


def compose(
    files: Sequence[tuple[Path, float]], dtype: torch.dtype, device: str = "cpu"
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return A ``[R, in]`` and B ``[out, R]`` of each target module for a stack of files."""
    for key in _read(files[0][0]):
        classify(key)
    low: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for path, strength in files:
        grouped: dict[str, dict[str, Tensor]] = {}
        for key, value in _read(path).items():
            if found := classify(key):
                name = f"{found.component or ''}_{found.role}"
                grouped.setdefault(found.target, {})[name] = value
        for target, parts in grouped.items():
            a, b, alpha = _fuse(parts)
            scale = strength * (1.0 if alpha is None else float(alpha) / a.shape[0])
            pair = a.to(device, dtype), (b * scale).to(device, dtype)
            low.setdefault(target, []).append(pair)
    return {
        target: (torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs], dim=1))
        for target, pairs in low.items()
    }


def _read(path: Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt", device="cpu") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping


def _fuse(parts: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Join the members of a fused module: A below one another, B block-diagonal with zeros."""
    order = next((_FUSED[first] for first in _FUSED if f"{first}_A" in parts), None)
    if order is None:
        return parts["_A"], parts["_B"], parts.get("_alpha")
    downs = [parts[f"{member}_A"] for member in order]
    ups = [parts[f"{member}_B"] for member in order]
    ranks = [a.shape[0] for a in downs]
    b = torch.zeros(sum(up.shape[0] for up in ups), sum(ranks), dtype=ups[0].dtype)
    row = column = 0
    for up, rank in zip(ups, ranks, strict=True):
        b[row : row + up.shape[0], column : column + rank] = up
        row, column = row + up.shape[0], column + rank
    return torch.cat(downs), b, parts.get(f"{order[0]}_alpha")
