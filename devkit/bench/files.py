"""LoRA files of real size, in the spellings of two trainers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from ...lora.mapping.architecture import Architecture
from ...lora.mapping.supported_models import qwen_image, z_image
from ..rig.layout import OUT

_QWEN = (
    *(f"attn.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")),
    *(f"attn.{name}" for name in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")),
    *(f"{stream}_mlp.net.{part}" for stream in ("img", "txt") for part in ("0.proj", "2")),
)
_Z = (
    *(f"attention.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")),
    *(f"feed_forward.{name}" for name in ("w1", "w2", "w3")),
)


@dataclass(frozen=True)
class Kind:
    """A model and how a trainer's files for it look.

    `flat`: dots become underscores and each module has an alpha (musubi-tuner); otherwise names
    are dotted and there is no alpha (ai-toolkit).
    """

    name: str
    group: str
    modules: tuple[str, ...]
    prefix: str
    flat: bool

    def architecture(self) -> Architecture:
        """The published model."""
        return qwen_image() if self.name == "qwen_image" else z_image()

    def shapes(self, blocks: int | None = None) -> dict[str, tuple[int, int]]:
        """``(out, in)`` by the file's stem, for all blocks or the first few."""
        architecture = self.architecture()
        found: dict[str, tuple[int, int]] = {}
        for i in range(blocks or architecture.depths[self.group]):
            for module in self.modules:
                path = f"{self.group}.{i}.{module}"
                name, part = architecture.aliases.get(path, (path, None))
                out, inp = architecture.target(name, part).shape
                found[self.prefix + (path.replace(".", "_") if self.flat else path)] = out, inp
        return found

    @property
    def roles(self) -> tuple[str, str]:
        """Suffixes of A and B."""
        if self.flat:
            return "lora_down.weight", "lora_up.weight"
        return "lora_A.weight", "lora_B.weight"

    def keys(self) -> list[str]:
        """All tensor names of a file."""
        suffixes = (*self.roles, "alpha") if self.flat else self.roles
        return [f"{stem}.{suffix}" for stem in self.shapes() for suffix in suffixes]


KINDS = (
    Kind("qwen_image", "transformer_blocks", _QWEN, "lora_unet_", flat=True),
    Kind("z_image", "layers", _Z, "diffusion_model.", flat=False),
)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder below `.dev/out/bench` that is deleted afterwards."""
    folder = OUT / "bench" / f"run-{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_stack(
    folder: Path, kind: Kind, rank: int, count: int, blocks: int | None = None
) -> list[Path]:
    """Write `count` files of bf16 tensors, on the disk when this returns."""
    first = folder / f"{kind.name}-{rank}-0.safetensors"
    _write(first, kind, rank, blocks)
    paths = [first]
    for i in range(1, count):
        path = folder / f"{kind.name}-{rank}-{i}.safetensors"
        shutil.copyfile(first, path)
        paths.append(path)
    if hasattr(os, "sync"):
        os.sync()
    return paths


def _write(path: Path, kind: Kind, rank: int, blocks: int | None) -> None:
    generator = torch.Generator().manual_seed(rank)
    noise = torch.randn(64 * 2**20, generator=generator).mul_(0.02).bfloat16()
    tensors: dict[str, torch.Tensor] = {}
    at = 0

    def take(*shape: int) -> torch.Tensor:
        nonlocal at
        size = shape[0] * shape[1]
        at = at if at + size <= len(noise) else 7
        at += size
        return noise[at - size : at].reshape(shape).clone()

    down, up = kind.roles
    for stem, (out, inp) in kind.shapes(blocks).items():
        tensors[f"{stem}.{down}"] = take(rank, inp)
        tensors[f"{stem}.{up}"] = take(out, rank)
        if kind.flat:
            tensors[f"{stem}.alpha"] = torch.tensor(rank / 2, dtype=torch.bfloat16)
    save_file(tensors, path, {"format": "pt"})
