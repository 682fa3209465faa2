"""The commands that write LoRA files, as processes, against float64 arithmetic on their tensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.cli_command import vivace_command
from torch import Tensor
from vivace.lora.factors.delta import Delta
from vivace.lora.loader import load_lora

H = 3072  # of a Qwen-Image
MODULE = "transformer_blocks.0.attn.to_q"
OTHER = "transformer_blocks.0.attn.to_k"


def random(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator) / shape[-1] ** 0.5


def write_lora(path: Path, rank: int, seed: int, alpha: float | None = None) -> Path:
    """Two modules; the directions of one fade, so that a lower rank has an error of its own."""
    tensors: dict[str, Tensor] = {}
    fading = 0.5 ** torch.arange(rank)
    for i, module in enumerate((MODULE, OTHER)):
        stem = f"diffusion_model.{module}"
        tensors[f"{stem}.lora_A.weight"] = random(rank, H, seed=seed + i)
        tensors[f"{stem}.lora_B.weight"] = random(H, rank, seed=seed + 5 + i) * fading
        if alpha is not None:
            tensors[f"{stem}.alpha"] = torch.tensor(alpha)
    save_file(tensors, path)
    return path


def factors(path: Path, module: str) -> tuple[Tensor, Tensor]:
    """B times the scale, and A, in float64, read without anything of ours."""
    tensors = {name.replace("lora_unet_", ""): t.double() for name, t in load_file(path).items()}
    flat = module.replace(".", "_")
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        for stem in (f"{module}.", f"{flat}."):
            if stem in name:
                found[name.partition(stem)[2].replace(".weight", "")] = tensor
    down = found.get("lora_A", found.get("lora_down"))
    up = found.get("lora_B", found.get("lora_up"))
    assert down is not None
    assert up is not None
    scale = found["alpha"].item() / len(down) if "alpha" in found else 1.0
    return up * scale, down


def change(path: Path, module: str) -> Tensor:
    up, down = factors(path, module)
    return up @ down


def singular_values(up: Tensor, down: Tensor) -> Tensor:
    """Those of ``up @ down``, from their small triangular factors."""
    left, right = torch.linalg.qr(up)[1], torch.linalg.qr(down.T)[1]
    return torch.linalg.svdvals(left @ right.T)


def far(found: Tensor, wanted: Tensor) -> float:
    return ((found - wanted).norm() / wanted.norm()).item()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    write_lora(tmp_path / "a.safetensors", rank=6, seed=1, alpha=3.0)
    write_lora(tmp_path / "b.safetensors", rank=4, seed=50)
    yield tmp_path
    assert not list(tmp_path.glob("*.part"))


def run(home: Path, *words: str) -> dict[str, Any]:
    done = vivace_command(home, *words, "--json")
    assert done.status == 0, done.err
    found = done.json()
    keys = {"path", "architecture", "style", "modules", "ranks", "nbytes", "error", "worst"}
    assert set(found) == keys | {"left_out"}
    written = load_file(home / found["path"]).values()
    assert found["nbytes"] == sum(tensor.nbytes for tensor in written)  # without the header
    assert (found["architecture"], found["modules"], found["left_out"]) == ("qwen_image", 2, [])
    return found


def total(home: Path, module: str) -> Tensor:
    parts = (("a.safetensors", 0.8), ("b.safetensors", -0.5))
    return sum((s * change(home / name, module) for name, s in parts), torch.zeros(1).double())


def test_a_merge_is_the_sum_of_its_parts(home: Path) -> None:
    words = ["lora", "merge", "a.safetensors:0.8", "b.safetensors:-0.5", "-o", "c.safetensors"]
    found = run(home, *words)
    assert found["ranks"] == [10, 10]  # side by side
    for module in (MODULE, OTHER):
        assert far(change(home / "c.safetensors", module), total(home, module)) < 1e-7
    assert found["error"] < 1e-7
    text = vivace_command(home, "lora", "inspect", "c.safetensors").out
    assert text.startswith("c.safetensors: qwen_image LoRA rank 10; 2 of 2 modules; ")


def test_a_merge_of_lower_rank_is_the_nearest_there_is(home: Path) -> None:
    words = ["lora", "merge", "a.safetensors:0.8", "b.safetensors:-0.5", "-o", "c.safetensors"]
    found = run(home, *words, "--rank", "3", "--dtype", "float32")
    assert found["ranks"] == [3, 3]
    lost, whole = 0.0, 0.0
    for module in (MODULE, OTHER):
        ups, downs = zip(
            *(factors(home / name, module) for name in ("a.safetensors", "b.safetensors")),
            strict=True,
        )
        up = torch.cat([0.8 * ups[0], -0.5 * ups[1]], dim=1)
        squares = singular_values(up, torch.cat(downs)).square()
        exact = total(home, module)
        error = (change(home / "c.safetensors", module) - exact).square().sum()
        # Eckart and Young: no matrix of rank 3 is nearer than by the other singular values.
        assert error.item() == pytest.approx(squares[3:].sum().item(), rel=1e-5)
        lost, whole = lost + error.item(), whole + exact.square().sum().item()
    assert found["error"] == pytest.approx((lost / whole) ** 0.5, rel=1e-4)
    assert found["worst"]["module"] in (MODULE, OTHER)
    assert found["worst"]["error"] >= found["error"]


def test_a_resize_keeps_its_word(home: Path) -> None:
    words = ["lora", "resize", "a.safetensors", "-o", "c.safetensors", "--error", "0.2"]
    found = run(home, *words, "--dtype", "float32")
    ranks = []
    for module in (MODULE, OTHER):
        whole = change(home / "a.safetensors", module)
        assert far(change(home / "c.safetensors", module), whole) <= 0.2
        values = singular_values(*factors(home / "a.safetensors", module)).square()
        left = [(values[rank:].sum() / values.sum()).sqrt().item() for rank in range(7)]
        ranks.append(next(rank for rank, error in enumerate(left) if error <= 0.2))
    assert found["ranks"] == [min(ranks), max(ranks)]
    assert 0 < max(ranks) < 6


def test_a_conversion_changes_names_only(home: Path) -> None:
    run(home, "lora", "convert", "a.safetensors", "--format", "kohya", "-o", "c.safetensors")
    with safe_open(home / "c.safetensors", "pt") as file:
        names = set(file.keys())
    stem = f"lora_unet_{MODULE.replace('.', '_')}"
    assert {f"{stem}.{end}" for end in ("lora_down.weight", "lora_up.weight", "alpha")} < names
    for module in (MODULE, OTHER):
        wanted = change(home / "a.safetensors", module)
        assert torch.equal(change(home / "c.safetensors", module), wanted)


def test_what_is_extracted_is_the_difference(home: Path) -> None:
    base = {f"{module}.weight": random(H, H, seed=9) for module in (MODULE, OTHER)}
    base["img_in.weight"] = random(H, 64, seed=10)
    tuned = {name: tensor.clone() for name, tensor in base.items()}
    for module in (MODULE, OTHER):
        tuned[f"{module}.weight"] += change(home / "b.safetensors", module).float()
    save_file(base, home / "base.safetensors")
    save_file(tuned, home / "tuned.safetensors")
    words = ["lora", "extract", "tuned.safetensors", "base.safetensors", "-o", "c.safetensors"]
    found = run(home, *words, "--rank", "4", "--dtype", "float32")
    assert found["ranks"] == [4, 4]
    for module in (MODULE, OTHER):
        wanted = tuned[f"{module}.weight"].double() - base[f"{module}.weight"].double()
        assert far(change(home / "c.safetensors", module), wanted) < 1e-3
    assert found["error"] < 1e-3


def test_the_file_that_is_there_stays(home: Path) -> None:
    before = (home / "b.safetensors").read_bytes()
    words = ["lora", "merge", "a.safetensors", "-o", "b.safetensors"]
    assert vivace_command(home, *words).status == 1
    assert (home / "b.safetensors").read_bytes() == before
    # A source may be replaced by what is made of it.
    done = vivace_command(
        home, "lora", "merge", "b.safetensors:2", "-o", "b.safetensors", "--force"
    )
    assert done.status == 0
    entry = load_lora(home / "b.safetensors").deltas[MODULE][0].delta
    assert isinstance(entry, Delta)
    (home / "old.safetensors").write_bytes(before)
    wanted = 2 * change(home / "old.safetensors", MODULE)
    assert far(entry.matrix(torch.float64), wanted) < 1e-7


def test_a_device_that_is_not_there(home: Path) -> None:
    words = ["lora", "merge", "a.safetensors", "-o", "c.safetensors", "--device", "quantum"]
    done = vivace_command(home, *words)
    assert done.status == 1
    assert done.err.startswith("vivace: The device 'quantum' cannot be used (")
    assert not (home / "c.safetensors").exists()
