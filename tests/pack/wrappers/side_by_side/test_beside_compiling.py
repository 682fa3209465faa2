"""*TorchCompileModel* beside our stack."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.applying import MAKERS, apply, changed_by_hand, lora_file, relative_error, untouched
from support.side_by_side import CLOSE, sample
from vivace.devkit.doubles import tiny_models as tiny

pytestmark = pytest.mark.usefixtures("comfyui")


BACKEND = "vivace_counting"
GRAPHS: list[Any] = []
"""The graphs that the backend was handed, which runs them as they are."""


def _counting(graph: Any, _: Any, **__: Any) -> Any:
    GRAPHS.append(graph)
    return graph.forward


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    import torch._dynamo

    if BACKEND not in torch._dynamo.list_backends(exclude_tags=()):
        torch._dynamo.register_backend(_counting, name=BACKEND)
    torch._dynamo.reset()
    GRAPHS.clear()
    yield
    torch._dynamo.reset()


def breaks() -> set[str]:
    """Why graphs were broken off since the last call."""
    import torch._dynamo.utils

    counts = torch._dynamo.utils.counters["graph_break"]
    found = {reason for reason, number in counts.items() if number}
    counts.clear()
    return found


def test_the_node_behind_our_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No graph breaks that the model has not without a stack, and none for another strength."""
    monkeypatch.setitem(tiny.QWEN, "num_layers", 1)  # compiling is slow
    from comfy_extras.nodes_torch_compile import TorchCompileModel

    def compiled(model: Any) -> Any:
        return TorchCompileModel.execute(model, BACKEND)[0]  # pyright: ignore

    maker, known = MAKERS["qwen_image"]
    modules = {path: shape for path, shape in known.items() if ".1." not in path}
    path, deltas = lora_file(tmp_path / "a.safetensors", modules)
    model = maker("fp32")
    base = sample(model, cfg=1.0, steps=1)
    breaks()
    assert relative_error(sample(compiled(model), cfg=1.0, steps=1), base) < CLOSE
    without = breaks()
    made = len(GRAPHS)
    assert made > 0
    for strength in (1.0, 0.4):
        patched = compiled(apply(model, (path, strength)))
        changed = changed_by_hand(maker, "fp32", [(deltas, strength)])
        wanted = sample(changed, cfg=1.0, steps=1)
        assert relative_error(sample(patched, cfg=1.0, steps=1), wanted) < CLOSE
        assert breaks() <= without
        if strength == 1.0:
            made = len(GRAPHS)
        assert len(GRAPHS) == made, "a changed strength must not compile again"
    assert torch.equal(sample(model, cfg=1.0, steps=1), base)
    assert untouched(model)
