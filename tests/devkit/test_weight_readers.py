"""No code of ComfyUI computes a layer of ours from its weight that nobody has looked at."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.made_up_code import comfyui_of
from vivace.devkit.doubles import fused_callers
from vivace.devkit.weight_readers.known import KNOWN, problems
from vivace.devkit.weight_readers.scan import Reader, installed_kitchen, scan, scan_file

LUMINA = "ldm/lumina/model.py"


def test_every_place_is_known(comfyui_folder: Path) -> None:
    readers = scan(comfyui_folder, installed_kitchen())
    assert readers, "ComfyUI's own casts are such places"
    found = problems(readers, comfyui_folder)
    assert not found, "\n".join(found)


def test_the_stand_ins_are_found() -> None:
    found = scan_file(Path(fused_callers.__file__))
    assert {(reader.where, reader.what) for reader in found} >= {("Fused.product", "layer.weight")}


MODEL = """
import comfy.ops
from comfy.ops import linear_input_act as activated
from .parts import helper


class Mlp:
    def __init__(self, ops):
        self.up = ops.Linear(4, 4)
        self.down = ops.Linear(4, 4)
        self.norm = ops.RMSNorm(4)

    def forward(self, x):
        {body}


class Model:
    def __init__(self, ops):
        self.mlps = [Mlp(ops)]
        self.first = None
"""
OPS = """
def linear_input_act(linear, x):
    {guard}
    return linear.weight @ x


def unused(linear):
    return linear.weight
"""
PARTS = """
def helper(module, x):
    return x
"""


def made_up(folder: Path, body: str, guard: str = "") -> tuple[Path, list[Reader]]:
    """A ComfyUI of three files, and the places in its model."""
    comfyui = comfyui_of(
        folder,
        {
            LUMINA: MODEL.format(body=body),
            "ldm/lumina/parts.py": PARTS,
            "ops.py": OPS.format(guard=guard or "pass"),
        },
    )
    return comfyui, [r for r in scan(comfyui) if r.file == f"comfy/{LUMINA}"]


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("return x @ self.up.weight", "self.up.weight"),
        ("up = self.up\n        return x @ up.weight.t()", "up.weight"),
        ('return x @ getattr(self.up, "weight")', "self.up.weight"),
        ("return comfy.ops.linear_input_act(self.up, x)", "linear_input_act(self.up)"),
        ("return comfy.ops.cast_bias_weight(self.norm, x)", "cast_bias_weight(self.norm)"),
        ("return helper(self.up, x)", "helper(self.up)"),
        ("return helper(x=x, module=self.up)", "helper(self.up)"),
        ("return helper([self.up, self.down], x)", "helper(self.up, self.down)"),
        ("return helper(list(self.mlps), x)", "helper(self.mlps)"),
        ("return self.up.forward(x)", "self.up.forward()"),
    ],
)
def test_a_place_is_found_with_its_line(body: str, what: str, tmp_path: Path) -> None:
    comfyui, found = made_up(tmp_path, body)
    line = MODEL[: MODEL.index("{body}")].count("\n") + body.count("\n") + 1
    assert found == [Reader(f"comfy/{LUMINA}", line, "Mlp.forward", what)]
    (problem,) = problems(found, comfyui)
    assert problem.startswith(f"comfy/{LUMINA}:{line}: Mlp.forward: `{what}`")
    assert "known.py" in problem


@pytest.mark.parametrize(
    "body",
    [
        "return self.down(self.up(x))",
        "return x.to(self.up.weight.dtype)",
        "return x if self.up.weight is None else x",
        "return [layer(x) for layer in reversed(self.mlps)]",
        "return self.weight * x",
        "return comfy.ops.cast_bias_weight(self, x)",
        "return super().forward(x)",
    ],
)
def test_calls_and_own_weights_are_no_places(body: str, tmp_path: Path) -> None:
    assert not made_up(tmp_path, body)[1]


@pytest.mark.parametrize("guard", ["", "if getattr(linear, '_full_precision_mm', False): return 0"])
def test_a_known_place_needs_its_guard(guard: str, tmp_path: Path) -> None:
    comfyui = comfyui_of(
        tmp_path,
        {
            "ldm/qwen_image21/model.py": QWEN_21,
            "ops.py": OPS.format(guard=guard or "pass"),
        },
    )
    found = scan(comfyui)
    assert "linear_input_act(self.out)" in {reader.what for reader in found}
    text = problems([reader for reader in found if reader.file != "comfy/ops.py"], comfyui)
    if guard:
        assert not text
    else:
        assert len(text) == 1
        assert "comfy.ops.linear_input_act does not ask" in text[0]


QWEN_21 = """
import comfy.ops


class SwiGLUFeedForward:
    def __init__(self, operations):
        self.out = operations.Linear(4, 4)

    def forward(self, x):
        return comfy.ops.linear_input_act(self.out, x, "swiglu")
"""


def test_a_row_says_why() -> None:
    assert len(KNOWN) > 10
    assert all(row.why and row.file.startswith("comfy/") for row in KNOWN)
