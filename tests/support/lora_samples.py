"""Small LoRA files of every kind, each with its change worked out in float64 by other means."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from vivace.byte_lru import ByteLru
from vivace.lora.factors.delta import Delta
from vivace.lora.loader import Lora, load_lora
from vivace.lora.mapping.architecture import Architecture
from vivace.lora.mapping.supported_models import qwen_image, z_image

DATA = Path(__file__).parents[1] / "data" / "lora"
QWEN = qwen_image(depth=2, hidden=32, head=8, text=24, latent=16)
Z_IMAGE = z_image(depth=2, refiners=1, hidden=32, ffn=48, head=8, text=24, latent=16)
TINY = (QWEN, Z_IMAGE)
DTYPES = {
    "f32": torch.float32,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "f64": torch.float64,
    "f8_e4m3": torch.float8_e4m3fn,
    "f8_e5m2": torch.float8_e5m2,
}


def key_cases() -> list[dict]:
    """The collected key cases."""
    return json.loads((DATA / "lora_keys.json").read_text(encoding="utf-8"))


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normal values that depend on shape and seed."""
    generator = torch.Generator().manual_seed(hash((*shape, seed)) & 0xFFFFFFFF)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def write(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> Path:
    """Save tensors as a safetensors file."""
    # One sample may stand under several names, and safetensors refuses to save shared memory.
    own = {name: t.clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
    save_file(own, path, metadata)
    return path


def write_raw(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    """Save a file with any header, valid or not; `header` is bytes or a JSON value."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def load(
    path: Path, architectures: tuple[Architecture, ...] = TINY, cache: ByteLru[Lora] | None = None
) -> Lora:
    """Load without touching the common cache."""
    return load_lora(path, "cpu", architectures, ByteLru(2**30) if cache is None else cache)


def close(actual: Tensor, expected: Tensor, limit: float = 1e-6) -> bool:
    """Whether the relative error (Frobenius) is within `limit`."""
    assert actual.shape == expected.shape
    error = (actual.double() - expected.double()).norm()
    return bool(error <= limit * expected.double().norm())


def total(lora: Lora, module: str, shape: tuple[int, ...], parameter: str = "weight") -> Tensor:
    """Sum of all changes of one parameter, from the deltas' own matrices."""
    result = torch.zeros(shape)
    for entry in lora.deltas.get(module, ()):
        if entry.parameter == parameter:
            assert isinstance(entry.delta, Delta)
            result[entry.start : entry.stop] += entry.delta.matrix()
    return result


@dataclass(frozen=True)
class Sample:
    """Tensors by suffix, and the change that they mean, in float64."""

    tensors: dict[str, Tensor]
    change: Tensor


def _stored(dtype: torch.dtype, *shape: int, seed: int) -> Tensor:
    return random(*shape, seed=seed).to(dtype)


def lora(
    out: int, inp: int, dtype: torch.dtype, rank: int = 4, alpha: float | None = 3.0
) -> Sample:
    a, b = _stored(dtype, rank, inp, seed=1), _stored(dtype, out, rank, seed=2)
    tensors = {"lora_down.weight": a, "lora_up.weight": b}
    change = torch.zeros(out, inp, dtype=torch.float64)
    for i in range(rank):
        change += torch.outer(b[:, i].double(), a[i].double())
    if alpha is None:
        return Sample(tensors, change)
    return Sample({**tensors, "alpha": torch.tensor(alpha)}, change * alpha / rank)


def lora_1x1(out: int, inp: int, dtype: torch.dtype) -> Sample:
    flat = lora(out, inp, dtype)
    shaped = {k: t if t.dim() < 2 else t[:, :, None, None] for k, t in flat.tensors.items()}
    return Sample(shaped, flat.change)


def lora_mid(out: int, inp: int, dtype: torch.dtype) -> Sample:
    plain = lora(out, inp, dtype)
    mid = _stored(dtype, 4, 4, seed=3)
    tensors = {**plain.tensors, "lora_mid.weight": mid[:, :, None, None]}
    up, down = tensors["lora_up.weight"].double(), tensors["lora_down.weight"].double()
    return Sample(tensors, torch.einsum("im,mn,nj->ij", up, mid.double(), down) * 3.0 / 4)


def loha(out: int, inp: int, dtype: torch.dtype, rank: int = 2) -> Sample:
    shapes = {"w1_a": (out, rank), "w1_b": (rank, inp), "w2_a": (out, rank), "w2_b": (rank, inp)}
    t = {f"hada_{k}": _stored(dtype, *s, seed=i) for i, (k, s) in enumerate(shapes.items())}
    first = torch.einsum("or,ri->oi", t["hada_w1_a"].double(), t["hada_w1_b"].double())
    second = torch.einsum("or,ri->oi", t["hada_w2_a"].double(), t["hada_w2_b"].double())
    return Sample({**t, "alpha": torch.tensor(5.0)}, first * second * 5.0 / rank)


def _lokr(whole1: bool, whole2: bool, alpha: float | None) -> Callable[..., Sample]:
    def make(out: int, inp: int, dtype: torch.dtype) -> Sample:
        sizes = (4, 4), (out // 4, inp // 4)
        tensors: dict[str, Tensor] = {}
        products: list[Tensor] = []
        rank = None
        for i, ((rows, columns), whole) in enumerate(zip(sizes, (whole1, whole2), strict=True), 1):
            if whole:
                t = tensors[f"lokr_w{i}"] = _stored(dtype, rows, columns, seed=i)
                products.append(t.double())
                continue
            rank = i + 1
            a = tensors[f"lokr_w{i}_a"] = _stored(dtype, rows, rank, seed=10 + i)
            b = tensors[f"lokr_w{i}_b"] = _stored(dtype, rank, columns, seed=20 + i)
            products.append(a.double() @ b.double())
        change = torch.zeros(out, inp, dtype=torch.float64)
        height, width = sizes[1]
        for row in range(4):
            for column in range(4):
                rows, columns = slice(row * height, (row + 1) * height), column * width
                change[rows, columns : columns + width] = products[0][row, column] * products[1]
        if alpha is not None:
            tensors["alpha"] = torch.tensor(alpha)
        scale = 1.0 if alpha is None or rank is None else alpha / rank
        return Sample(tensors, change * scale)

    return make


def diff(out: int, inp: int, dtype: torch.dtype) -> Sample:
    change = _stored(dtype, out, inp, seed=7)
    return Sample({"diff": change}, change.double())


FAMILIES: dict[str, Callable[[int, int, torch.dtype], Sample]] = {
    "lora": lora,
    "lora without alpha": lambda out, inp, dtype: lora(out, inp, dtype, alpha=None),
    "lora rank 1": lambda out, inp, dtype: lora(out, inp, dtype, rank=1, alpha=0.5),
    "lora 1x1": lora_1x1,
    "lora mid": lora_mid,
    "loha": loha,
    "loha high rank": lambda out, inp, dtype: loha(out, inp, dtype, rank=12),
    "lokr whole, whole, sentinel alpha": _lokr(True, True, 9999220736.0),
    "lokr whole, low": _lokr(True, False, 2.5),
    "lokr low, whole": _lokr(False, True, 2.5),
    "lokr low, low": _lokr(False, False, 2.5),
    "lokr whole, low, no alpha": _lokr(True, False, None),
    "diff": diff,
}

# Where a change may live: module spelling in the file, architecture, and the canonical rows.
PLACES = {
    "qwen to_q": ("transformer.transformer_blocks.0.attn.to_q", QWEN),
    "qwen modulation": ("diffusion_model.transformer_blocks.1.img_mod.1", QWEN),
    "qwen fused to_qkv": ("transformer_blocks.0.attn.to_qkv", QWEN),
    "z-image to_k": ("lora_unet_layers_1_attention_to_k", Z_IMAGE),
    "z-image qkv": ("diffusion_model.noise_refiner.0.attention.qkv", Z_IMAGE),
    "z-image w1": ("lycoris_layers_0_feed_forward_w1", Z_IMAGE),
    "z-image fused net.0.proj": ("layers.0.feed_forward.net.0.proj", Z_IMAGE),
}


def named(stem: str, sample: Sample) -> dict[str, Tensor]:
    """The tensors of a sample under a module's name."""
    return {f"{stem}.{suffix}": tensor for suffix, tensor in sample.tensors.items()}
