"""What LyCORIS trains of norms, methods of it that are refused, and several methods in one file."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from support.oracle.compare import check, check_refused, write
from support.oracle.libraries import library
from support.oracle.lycoris_modules import ALGORITHMS, make, widened
from support.oracle.spellings import RENAMES, renamed
from support.oracle.storage import PLAIN
from support.oracle.tiny import NAMES, Tiny, tiny
from torch import Tensor, nn

# Norms by diffusers' path, the engine's names of which are ComfyUI's.
_NATIVE = ((r"attention\.norm_([qk])$", r"attention.\1_norm"),)


def _norms(model: Tiny) -> list[str]:
    modules = {p: m for p, m in model.module.named_modules() if "Norm" in type(m).__name__}
    return [p for p, m in modules.items() if isinstance(getattr(m, "weight", None), Tensor)]


def _norm(weight: Tensor, dtype: torch.dtype, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """A module of LyCORIS on a norm; its state dict, and the change of the weight."""
    layer = nn.LayerNorm(len(weight), dtype=torch.float64)
    layer.weight.data.copy_(weight)
    module = library("lycoris.modules.norms").NormModule("name", layer).double()
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        value = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3
        parameter.data.copy_(value.to(dtype))
    trained, _ = module.make_weight()
    tensors = {name: value.detach().to(dtype) for name, value in module.state_dict().items()}
    return tensors, trained.detach() - weight


@pytest.mark.parametrize("dtype", PLAIN)
@pytest.mark.parametrize("prefix", ["lycoris_", "lora_unet_"])
@pytest.mark.parametrize("model", NAMES)
def test_norms(model: str, prefix: str, dtype: str, tmp_path: Path) -> None:
    known = tiny(model)
    tensors: dict[str, Tensor] = {}
    changes: dict[tuple[str, str], Tensor] = {}
    for seed, path in enumerate(_norms(known)):
        base: Any = known.module.get_submodule(path)
        found, change = _norm(base.weight, PLAIN[dtype], seed)
        name = renamed(path, _NATIVE if dtype == "bfloat16" else ())
        # Norms of these models have no bias, LyCORIS' own always has.
        tensors[f"{prefix}{name.replace('.', '_')}.w_norm"] = found["w_norm"]
        changes[path, "weight"] = change
    assert len(changes) > 3
    check(write(tmp_path / "a.safetensors", tensors), known, changes)


@pytest.mark.parametrize("model", NAMES)
def test_bias_of_a_norm(model: str, tmp_path: Path) -> None:
    path = _norms(tiny(model))[0]
    base: Any = tiny(model).module.get_submodule(path)
    found, _ = _norm(base.weight, torch.float32, 1)
    tensors = {f"lycoris_{path.replace('.', '_')}.{name}": v for name, v in found.items()}
    check_refused(write(tmp_path / "a.safetensors", tensors), "this module has no bias")


@pytest.mark.parametrize("prefix", ["lycoris_", "lora_unet_"])
@pytest.mark.parametrize("model", NAMES)
def test_tlora(model: str, prefix: str, tmp_path: Path) -> None:
    """It needs the base weight that it was initialized from, and a choice that is not saved."""
    known = tiny(model)
    made = library("lycoris.modules.tlora").TLoraModule
    tensors: dict[str, Tensor] = {}
    for path in known.linears[-2:]:
        layer: Any = copy.deepcopy(known.module.get_submodule(path)).float()
        module = made(f"{prefix}{path.replace('.', '_')}", layer, lora_dim=2, alpha=1)
        values = module.state_dict(prefix=f"{module.lora_name}.")
        tensors.update({name: value.clone() for name, value in values.items()})
    check_refused(write(tmp_path / "a.safetensors", tensors), "is T-LoRA")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rename", [0, 1])
@pytest.mark.parametrize("model", NAMES)
def test_every_method_in_one_file(model: str, rename: int, dtype: str, tmp_path: Path) -> None:
    known = tiny(model)
    tensors: dict[str, Tensor] = {}
    changes: dict[tuple[str, str], Tensor] = {}
    for number, path in enumerate(known.linears):
        algorithm = ALGORITHMS[(number * 7 + rename) % len(ALGORITHMS)]
        made = make(algorithm, known, path, PLAIN[dtype], number)
        if made is None or algorithm.name.startswith("GLoRA"):
            continue
        name = renamed(path, RENAMES[model][rename]).replace(".", "_")
        tensors.update({f"lycoris_{name}.{suffix}": t for suffix, t in made.tensors.items()})
        changes.update({(path, which): change for which, change in made.changes.items()})
    check(write(tmp_path / "a.safetensors", tensors), known, changes)


# Training with `rs_lora` multiplies such a LoKr by the root of a rank that is not in the file;
# neither LyCORIS' own loader nor anybody else's knows it. What is applied is what that loader
# applies.
@pytest.mark.parametrize("model", NAMES)
def test_whole_lokr_of_rs_lora_is_read_as_lycoris_reads_it(model: str, tmp_path: Path) -> None:
    known = tiny(model)
    made = library("lycoris.modules.lokr").LokrModule
    path = known.linears[-1]
    base: Any = known.module.get_submodule(path)
    with widened():
        trained = made("a", copy.deepcopy(base), lora_dim=4, full_matrix=True, rs_lora=True)
        for parameter in trained.parameters():
            parameter.data.copy_(torch.randn(parameter.shape) * 0.3)
        state = {name: value.detach() for name, value in trained.state_dict().items()}
        read = made("a", copy.deepcopy(base), lora_dim=4, full_matrix=True).double()
        read.load_state_dict({name: value.double() for name, value in state.items()})
        change = read(torch.eye(base.weight.shape[1], dtype=torch.float64)) - read(
            torch.zeros(1, base.weight.shape[1], dtype=torch.float64)
        )
    tensors = {f"lycoris_{path.replace('.', '_')}.{name}": value for name, value in state.items()}
    expected = {(path, "weight"): (change.T - base.weight).detach()}
    check(write(tmp_path / "a.safetensors", tensors), known, expected)


CASES = len(NAMES) * (2 * len(PLAIN) + 1 + 2 + 4 + 1)
