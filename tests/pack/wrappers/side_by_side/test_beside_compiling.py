"""*TorchCompileModel* beside our stack."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.applying import MAKERS, apply, changed_by_hand, lora_file, relative_error, untouched
from support.side_by_side import CLOSE, sample

pytestmark = pytest.mark.usefixtures("comfyui")


@pytest.fixture
def graphs() -> Iterator[list[Any]]:
    """The graphs that are handed to the compiler's backend, which runs them as they are."""
    import torch._dynamo

    made: list[Any] = []

    def backend(graph: Any, _: Any, **__: Any) -> Any:
        made.append(graph)
        return graph.forward

    torch._dynamo.reset()
    torch._dynamo.register_backend(backend, name="vivace_test")
    yield made
    torch._dynamo.reset()
    torch._dynamo.list_backends()


@pytest.mark.parametrize("order", ["compiled first", "stack first"])
@pytest.mark.parametrize("family", MAKERS)
def test_the_node_before_our_stack_and_behind_it(
    family: str, order: str, tmp_path: Path, graphs: list[Any]
) -> None:
    """As many graph breaks as without a stack, and no other graph for another strength."""
    import torch._dynamo.utils
    from comfy_extras.nodes_torch_compile import TorchCompileModel

    maker, modules = MAKERS[family]
    path, deltas = lora_file(tmp_path / "a.safetensors", modules)
    model = maker("fp32")
    base = sample(model)

    def compiled(model: Any) -> Any:
        return TorchCompileModel.execute(model, "vivace_test")[0]  # pyright: ignore

    def breaks() -> int:
        return sum(torch._dynamo.utils.counters["graph_break"].values())

    plain = compiled(model)
    torch._dynamo.utils.counters.clear()
    assert relative_error(sample(plain), base) < CLOSE
    without, number = breaks(), len(graphs)
    assert number > 0
    first = True
    if order == "compiled first":
        stacks = {s: apply(plain, (path, s)) for s in (1.0, 0.4)}
    else:
        stacks = {s: compiled(apply(model, (path, s))) for s in (1.0, 0.4)}
    for strength, patched in stacks.items():
        torch._dynamo.utils.counters.clear()
        wanted = sample(changed_by_hand(maker, "fp32", [(deltas, strength)]))
        before = len(graphs)
        assert relative_error(sample(patched), wanted) < CLOSE
        print(order, strength, breaks(), without, len(graphs)-before, number)
    assert torch.equal(sample(model), base)
    assert untouched(model)
