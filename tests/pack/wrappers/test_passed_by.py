"""Code that computes a layer from its weight leaves one with a branch alone, or it is told."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.applying import Z_MODULES, D, apply, lora_file, relative_error, untouched
from vivace.devkit.doubles import tiny_models as tiny
from vivace.devkit.doubles.fused_callers import Fused, fused_mlps

pytestmark = pytest.mark.usefixtures("comfyui")

LOST = "computed without being called"
DOWN = {f"{block}.feed_forward.w2": (D, 512) for block in ("layers.0", "layers.1")}
BLOCKS = ("layers.0", "layers.1", "noise_refiner.0", "context_refiner.0")
DOWN_ALL = {f"{block}.feed_forward.w2": (D, 512) for block in BLOCKS}


def linears(kind: str) -> tuple[Any, Any]:
    """A Z-Image and the layer of one of its MLPs."""
    model = tiny.z_image(kind)
    return model, model.model.diffusion_model.layers[0].feed_forward.w2


class Nothing:
    """A layer beside a module that adds nothing."""

    def product(self, module: Any, x: torch.Tensor) -> torch.Tensor:
        from vivace.wrappers.targets.layered_class import plain_call

        return plain_call(module, x)

    def __call__(self, x: torch.Tensor, y: torch.Tensor, module: Any) -> torch.Tensor:
        return y


@pytest.mark.parametrize("kind", ["fp32", "fp8 quantized"])
def test_a_layer_asks_for_full_precision_from_outside_only(kind: str) -> None:
    from vivace.wrappers.targets.layered_class import GUARD as name  # noqa: N811
    from vivace.wrappers.targets.layered_class import put, take_off

    _, layer = linears(kind)
    inside: list[Any] = []
    layer.register_forward_pre_hook(lambda m, _: inside.append(getattr(m, name, "none")))
    before = getattr(layer, name, "none")
    assert before == ("none" if kind == "fp32" else False)
    put(layer, Nothing())
    assert getattr(layer, name) is True
    layer(torch.zeros(1, 512))
    assert getattr(layer, name) is True
    setattr(layer, name, "set")
    layer(torch.zeros(1, 512))
    take_off(layer)
    assert inside == [before, "set"]
    assert getattr(layer, name) == "set"


@pytest.mark.parametrize("kind", ["fp32", "fp8 quantized"])
def test_what_asks_gives_the_branch_too(kind: str) -> None:
    from vivace.wrappers.targets.layered_class import put, take_off

    _, layer = linears(kind)
    fused = Fused()
    x = torch.randn(3, 512, generator=torch.Generator().manual_seed(1))
    after = fused.after_activation(layer, x)
    assert fused.computed == 1
    assert relative_error(after, layer(torch.nn.functional.silu(x))) < 0.1

    class Doubled(Nothing):
        def __call__(self, x: torch.Tensor, y: torch.Tensor, module: Any) -> torch.Tensor:
            return 2 * y

    put(layer, Doubled())
    assert torch.equal(fused.after_activation(layer, x), layer(torch.nn.functional.silu(x)))
    assert fused.projection(layer, x) is None
    assert fused.computed == 1
    take_off(layer)
    assert torch.equal(fused.after_activation(layer, x), after)
    assert fused.computed == 2


def test_fused_code_of_newer_comfyui_changes_nothing(tmp_path: Path, said: list[str]) -> None:
    """Where each MLP has one layer with a branch, all of its layers are called."""
    path, _ = lora_file(tmp_path / "a.safetensors", DOWN_ALL)
    wanted = tiny.sample(apply(tiny.z_image("fp8 quantized"), (path, 1.0)))
    model = tiny.z_image("fp8 quantized")
    with fused_mlps(model.model.diffusion_model) as fused:
        tiny.sample(model)
        assert fused.computed == 3 * len(BLOCKS) * 2  # steps
        assert torch.equal(tiny.sample(apply(model, (path, 1.0))), wanted)
        assert fused.computed == 3 * len(BLOCKS) * 2
    assert not said


def test_a_layer_computes_as_without_a_branch(tmp_path: Path, monkeypatch: Any) -> None:
    """Inputs are quantized as often: the layer's own code does not take it for full precision."""
    import comfy.ops

    quantized: list[Any] = []
    original = comfy.ops.QuantizedTensor.from_float

    def counting(*args: Any, **kwargs: Any) -> Any:
        quantized.append(args[1])
        return original(*args, **kwargs)

    path, _ = lora_file(tmp_path / "a.safetensors", {**Z_MODULES, **DOWN_ALL})
    model = tiny.z_image("fp8 quantized")
    monkeypatch.setattr(comfy.ops.QuantizedTensor, "from_float", counting)
    tiny.sample(model)
    plain = len(quantized)
    assert plain > 0
    tiny.sample(apply(model, (path, 1.0), mode="branch"))
    assert len(quantized) == 2 * plain


def test_lost_layers_are_named(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the log, at the node that runs, and in the next report; until a run calls them."""
    from vivace.wrappers.lora.apply import apply_loras

    shown: list[tuple[str, str, str]] = []
    server = SimpleNamespace(
        last_node_id="7",
        client_id="me",
        send_progress_text=lambda text, node, sid: shown.append((text, node, sid)),
    )
    fake = SimpleNamespace(PromptServer=SimpleNamespace(instance=server))
    monkeypatch.setitem(sys.modules, "server", fake)  # pyright: ignore[reportArgumentType]
    path, _ = lora_file(tmp_path / "a.safetensors", {**Z_MODULES, **DOWN})
    model = tiny.z_image()
    patched, report = apply_loras(model, [(path, 1.0)], "branch")
    assert LOST not in report
    with fused_mlps(model.model.diffusion_model, asks=False):
        tiny.sample(patched)
    assert untouched(model)
    (text,) = said
    assert "3 layers were" in text
    names = [*DOWN, "layers.1.feed_forward.w3"]
    assert all(name in text for name in names)
    assert "attention" not in text.partition(". ")[0]
    assert shown == [(text, "7", "me")]
    _, report = apply_loras(model, [(path, 0.5)], "branch")
    assert all(name in report for name in names)
    _, report = apply_loras(model, [(path, 0.5)], "merge")
    assert LOST not in report
    tiny.sample(patched)
    assert len(said) == len(shown) == 1
    _, report = apply_loras(model, [(path, 0.5)], "branch")
    assert LOST not in report


def test_a_stack_of_which_nothing_was_called_is_told_of(tmp_path: Path, said: list[str]) -> None:
    path, _ = lora_file(tmp_path / "a.safetensors", DOWN)
    model = tiny.z_image()
    base = tiny.sample(model)
    with fused_mlps(model.model.diffusion_model, asks=False) as fused:
        got = tiny.sample(apply(model, (path, 1.0), mode="branch"))
    assert fused.computed == 3 * len(BLOCKS) * 2
    assert relative_error(got, base) < 1e-5
    (text,) = said
    assert "2 layers were" in text


def test_a_layer_of_the_network_itself(tmp_path: Path, said: list[str]) -> None:
    path, _ = lora_file(tmp_path / "a.safetensors", {"x_embedder": (D, 64)})
    model = tiny.z_image()
    network = model.model.diffusion_model
    patched = apply(model, (path, 1.0), mode="branch")
    tiny.sample(patched)
    assert not said
    linear = network.x_embedder
    network._modules["x_embedder"] = Around(linear)
    tiny.sample(patched)
    network._modules["x_embedder"] = linear
    (text,) = said
    assert "1 layer was" in text
    assert "beside: x_embedder. " in text


class Around(torch.nn.Module):
    """Computes a linear from its weight."""

    def __init__(self, linear: Any) -> None:
        super().__init__()
        self.held = [linear]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.held[0].weight, self.held[0].bias
        return torch.nn.functional.linear(x, weight.to(x), bias.to(x))


def test_a_call_is_noted_without_a_graph_break() -> None:
    """And without another graph for another run, whose notes are new objects."""
    from vivace.wrappers.targets.layered_class import GUARD, put, take_off, was_called, watch

    block = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    around = torch.nn.Sequential(block)
    graphs: list[Any] = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(around, backend=backend, fullgraph=True)
    x = torch.ones(2, 4)
    wanted = around(x)
    for _ in range(3):
        put(block[0], Nothing())
        assert watch(block)
        assert not was_called(block[0])
        assert not was_called(block)
        assert torch.equal(compiled(x), wanted)
        assert was_called(block[0])
        assert was_called(block)
        assert not getattr(block[1], GUARD, False)
        take_off(block[0])
        take_off(block)
        assert was_called(block) is None
    assert len(graphs) == 1


@pytest.mark.own_loading
@pytest.mark.parametrize("asks", [True, False])
def test_compiled_code_notes_calls_too(asks: bool, tmp_path: Path, said: list[str]) -> None:
    """One graph for a network with a stack, also in the next run, and nothing breaks it."""
    import torch._dynamo
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    path, _ = lora_file(tmp_path / "a.safetensors", DOWN)
    torch._dynamo.reset()
    graphs: list[Any] = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    model = tiny.z_image("fp8 quantized")
    network = model.model.diffusion_model
    wanted = tiny.sample(apply(model, (path, 1.0), mode="branch"))
    compiled = model.clone()
    set_torch_compile_wrapper(compiled, backend=backend)  # pyright: ignore[reportArgumentType]
    patched = apply(compiled, (path, 1.0), mode="branch")
    with fused_mlps(network, asks):
        first = tiny.sample(patched)
        made = len(graphs)
        assert torch.equal(tiny.sample(patched), first)
        assert made == len(graphs) > 0
    torch._dynamo.reset()
    assert len(said) == (0 if asks else 2)
    if asks:
        assert relative_error(first, wanted) < 0.05
