"""The worked examples of CONTRIBUTING.md, run as they stand there."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from support.lora_samples import random, write
from vivace.devkit.rig.layout import ROOT
from vivace.lora.loader import load_lora
from vivace.lora.mapping import suffixes

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = {
    match[1]: match[2] for match in re.finditer(r"```python\n# (\S+)\n(.*?)```", TEXT, re.DOTALL)
}


def run(path: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """The names that a block defines, with what its file has at hand."""
    found = dict(known)
    exec(compile(f"from __future__ import annotations\n{BLOCKS[path]}", path, "exec"), found)  # noqa: S102
    return found


def value(path: str, known: Mapping[str, Any]) -> Any:
    return eval(compile(BLOCKS[path], path, "eval"), dict(known))  # noqa: S307


def test_the_files_are_there() -> None:
    new = {"nodes/shout.py", "wrappers/targets/row_scaled.py"}
    assert all((ROOT / path).is_file() for path in BLOCKS.keys() - new)
    assert len(BLOCKS) == 5


@pytest.mark.usefixtures("comfyui")
def test_the_node_is_known_by_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    from vivace import lazy_registry

    row = value("lazy_registry.py", vars(lazy_registry))
    name = f"vivace.nodes.{row.module}"
    stub = lazy_registry.build_stub(row)
    module = types.ModuleType(name)
    vars(module).update(run("nodes/shout.py", {"__name__": name}))
    monkeypatch.setitem(sys.modules, name, module)
    schema = stub.GET_SCHEMA()
    assert (schema.node_id, schema.display_name) == (row.node_id, row.display_name)
    assert tuple(output.io_type for output in schema.outputs) == row.outputs
    assert all(part.tooltip for part in (*schema.inputs, *schema.outputs))
    assert stub.execute(text="hello").result == ("HELLO",)


def tiny() -> Any:
    from vivace.lora.mapping import supported_models

    return run("lora/mapping/supported_models.py", vars(supported_models))["tiny_dit"]()


def test_the_format_is_read_as_the_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roles = value("lora/mapping/suffixes.py", {})
    down, up = random(4, 64, seed=1), random(64, 4, seed=2)
    stem = "blocks.1.attn.to_q"
    new = write(
        tmp_path / "new.safetensors",
        {f"{stem}.adapter_in.weight": down, f"{stem}.adapter_out.weight": up},
    )
    known = write(
        tmp_path / "known.safetensors",
        {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up},
    )
    assert not set(roles) & set(suffixes.ROLES)
    monkeypatch.setattr(suffixes, "ROLES", suffixes.ROLES | roles)
    found, wanted = (delta(path, stem) for path in (new, known))
    assert torch.equal(found, wanted)
    assert torch.allclose(found, up @ down, atol=1e-5)


def delta(path: Path, module: str) -> torch.Tensor:
    """What a file of Tiny-DiT adds to a weight."""
    (entry,) = load_lora(path, architectures=(tiny(),)).deltas[module]
    added: Any = entry.delta
    return added.matrix()


@pytest.mark.parametrize(
    "stem", ["blocks.3.attn.to_q", "layers.3.query", "lora_unet_layers_3_query"]
)
def test_the_architecture_is_recognized(tmp_path: Path, stem: str) -> None:
    down, up = random(4, 64, seed=1), random(64, 4, seed=2)
    tensors = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
    assert torch.allclose(
        delta(write(tmp_path / "a.safetensors", tensors), "blocks.3.attn.to_q"),
        up @ down,
        atol=1e-5,
    )


class RowScaledLayer(torch.nn.Module):
    """A linear layer with a weight of 8 bits, of which the pack knows nothing."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        scale = weight.abs().amax(1) / 127
        whole = (weight / scale[:, None]).round().to(torch.int8)
        self.weight = torch.nn.Parameter(whole, requires_grad=False)
        self.row_scale = torch.nn.Parameter(scale, requires_grad=False)
        self.bias = torch.nn.Parameter(bias, requires_grad=False)

    def dense(self) -> torch.Tensor:
        return self.weight.float() * self.row_scale[:, None]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.dense(), self.bias)


ROW_SCALED = "transformer_blocks.0.attn.to_q"


def model_of_rows(change: torch.Tensor | None = None) -> Any:
    """A small Qwen-Image with one such layer; with a change, the layer is dense and has it."""
    from vivace.devkit.doubles import tiny_models

    model = tiny_models.qwen_image()
    attention = model.model.diffusion_model.transformer_blocks[0].attn
    plain = attention.to_q
    layer = RowScaledLayer(plain.weight.detach().clone(), plain.bias.detach().clone())
    if change is None:
        attention.to_q = layer
    else:
        plain.weight.data = layer.dense() + change
    return model


@torch.no_grad()
@pytest.mark.usefixtures("comfyui")
def test_a_kind_of_weight_is_one_file_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support.applying import apply, relative_error
    from vivace.devkit.doubles import tiny_models
    from vivace.wrappers.targets import kinds

    path = "wrappers/targets/row_scaled.py"
    relative = "from .weight_kind import"
    assert relative in BLOCKS[path]
    monkeypatch.setitem(
        BLOCKS,
        path,
        BLOCKS[path].replace(relative, "from vivace.wrappers.targets.weight_kind import"),
    )
    monkeypatch.setattr(kinds, "KINDS", [run(path, {})["RowScaled"](), *kinds.KINDS])
    size = tiny_models.QWEN_DIM
    down, up = random(4, size, seed=6) / 8, random(size, 4, seed=7) / 8
    magnitude = random(size, 1, seed=8).abs() + 0.5
    factors = {f"{ROW_SCALED}.lora_down.weight": down, f"{ROW_SCALED}.lora_up.weight": up}
    plain = write(tmp_path / "plain.safetensors", factors)
    dora = write(tmp_path / "d.safetensors", {**factors, f"{ROW_SCALED}.dora_scale": magnitude})
    layer: Any = model_of_rows().model.diffusion_model.get_submodule(ROW_SCALED)
    weight, change = layer.dense(), up @ down
    merged = weight + change
    renormalized = merged * magnitude / merged.norm(dim=1, keepdim=True) - weight
    for file, wanted in ((plain, change), (dora, renormalized)):
        got = tiny_models.sample(apply(model_of_rows(), (file, 1.0)))
        base = tiny_models.sample(model_of_rows())
        expected = tiny_models.sample(model_of_rows(wanted))
        assert relative_error(got, expected) < 2e-5 < relative_error(base, expected) / 10
