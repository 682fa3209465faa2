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
from torch.nn import Linear, Module, Parameter
from torch.nn.functional import linear
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
    new = {"nodes/shout.py"}
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
    from vivace.lora.mapping import models

    return run("lora/mapping/models.py", vars(models))["tiny_dit"]()


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


class Layer(Module):
    """A linear layer with a low-rank branch of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.main = Linear(8, 6)
        self.down = Parameter(random(2, 8, seed=3), requires_grad=False)
        self.up = Parameter(random(6, 2, seed=4), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.main(x) + linear(linear(x, self.down), self.up)


@torch.no_grad()
@pytest.mark.usefixtures("comfyui")
def test_the_target_takes_ranks_and_gives_them_back() -> None:
    from vivace.wrappers.targets import column_kinds

    kind: column_kinds.ColumnKind = run(
        "wrappers/targets/column_kinds.py", dict(vars(column_kinds), Parameter=Parameter)
    )["Plain"]()
    layer, x = Layer(), random(5, 8, seed=5)
    before, factors = layer(x), kind.factors(layer)
    down, up = random(3, 8, seed=6), random(6, 3, seed=7)
    change = x @ (up @ down).T
    stored = kind.append([layer], down, [up])
    assert kind.rank_of(layer) == 5
    assert torch.allclose(layer(x), before + change, atol=1e-5)
    kind.rescale_up(layer, 2, stored.ups[0], 0.5)
    kind.rescale_down(layer, 2, stored.down, torch.full((3,), -1.0))
    assert torch.allclose(layer(x), before - 0.5 * change, atol=1e-5)
    kind.cut([layer], 2)
    assert torch.equal(layer(x), before)
    assert all(torch.equal(a, b) for a, b in zip(kind.factors(layer), factors, strict=True))
