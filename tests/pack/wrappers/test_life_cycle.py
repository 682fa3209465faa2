"""LoRAs on a shared model: apart from each other, and gone when they are gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.applying import (
    QWEN_MODULES,
    D,
    apply,
    lora_file,
    random,
    reference,
    relative_error,
    untouched,
)
from vivace.devkit.doubles import tiny_models as tiny

pytestmark = pytest.mark.usefixtures("comfyui")


class Interrupted(BaseException):
    """What ComfyUI's interrupt is: no `Exception`."""


@pytest.mark.parametrize("mode", ["merge", "branch"])
def test_alternation_equals_fresh_runs(mode: str, tmp_path: Path) -> None:
    a, _ = lora_file(tmp_path / "a.safetensors", QWEN_MODULES)
    b, _ = lora_file(tmp_path / "b.safetensors", QWEN_MODULES, rank=7, seed=3)

    def fresh(*loras: tuple[Path, float]) -> torch.Tensor:
        return tiny.sample(apply(tiny.qwen_image(), *loras, mode=mode))

    model = tiny.qwen_image()
    with_a, with_b = (apply(model, (path, 1.0), mode=mode) for path in (a, b))
    expected = [fresh((a, 1.0)), fresh((b, 1.0)), fresh((a, 1.0)), fresh()]
    got = [tiny.sample(patcher) for patcher in (with_a, with_b, with_a, model)]
    for one, other in zip(got, expected, strict=True):
        assert torch.equal(one, other)
    assert untouched(model)


@pytest.mark.parametrize("error", [RuntimeError, Interrupted])
def test_an_error_while_sampling_leaves_nothing_behind(
    error: type[BaseException], tmp_path: Path
) -> None:
    path, _ = lora_file(tmp_path / "a.safetensors", QWEN_MODULES)
    model = tiny.qwen_image()
    base = tiny.sample(model)
    patched = apply(model, (path, 1.0), mode="branch")
    expected = tiny.sample(patched)

    def fail(*_: Any) -> None:
        assert not untouched(model), "the branches are there while it runs"
        raise error("now")

    with pytest.raises(error):
        tiny.sample(patched, callback=fail)
    assert untouched(model)
    assert torch.equal(tiny.sample(model), base)
    assert torch.equal(tiny.sample(patched), expected)


def test_a_changed_strength_rescales_and_reads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import vivace.lora.loader as loader
    from vivace.wrappers.lora.running_model import RunningModel

    opened: list[Path] = []
    original = loader.LoraFile

    def counting(path: Path) -> Any:
        opened.append(path)
        return original(path)

    monkeypatch.setattr(loader, "LoraFile", counting)
    a, _ = lora_file(tmp_path / "a.safetensors", QWEN_MODULES)
    b, _ = lora_file(tmp_path / "b.safetensors", {"img_in": (D, 64)}, seed=9)
    model = tiny.qwen_image()
    apply(model, (a, 1.0), mode="branch")
    composer = RunningModel.of(model).composer
    assert (len(opened), composer.recomposed, composer.rescaled) == (1, len(QWEN_MODULES), 0)
    apply(model, (a, 0.3), mode="branch")
    assert (len(opened), composer.recomposed) == (1, len(QWEN_MODULES))
    assert composer.rescaled == len(QWEN_MODULES)
    apply(model, (a, 0.3), (b, 1.0), mode="branch")
    assert (len(opened), composer.recomposed) == (2, len(QWEN_MODULES) + 1)
    apply(model, (b, 1.0), (a, 0.3), mode="branch")
    assert (len(opened), composer.recomposed) == (2, len(QWEN_MODULES) + 1)


def test_a_replaced_file_is_read_again(tmp_path: Path) -> None:
    path, _ = lora_file(tmp_path / "a.safetensors", QWEN_MODULES)
    model = tiny.qwen_image()
    first = tiny.sample(apply(model, (path, 1.0), mode="branch"))
    _, deltas = lora_file(path, QWEN_MODULES, rank=5, seed=4)
    second = tiny.sample(apply(model, (path, 1.0), mode="branch"))
    assert relative_error(second, reference(tiny.qwen_image, "fp32", [(deltas, 1.0)])) < 2e-5
    assert relative_error(second, first) > 1e-3


@pytest.mark.parametrize("mode", ["auto", "merge", "branch"])
def test_no_active_lora_is_the_model_itself(mode: str) -> None:
    model = tiny.qwen_image()
    assert apply(model, mode=mode) is model


def test_models_are_freed(tmp_path: Path) -> None:
    import gc
    import weakref

    import comfy.model_management

    path, _ = lora_file(tmp_path / "a.safetensors", QWEN_MODULES)
    model = tiny.qwen_image()
    patched = apply(model, (path, 1.0), mode="branch")
    tiny.sample(patched)
    alive = weakref.ref(model.model)
    del model, patched
    comfy.model_management.unload_all_models()
    gc.collect()
    assert alive() is None


def test_factors_are_counted_by_comfyui(tmp_path: Path) -> None:
    path, _ = lora_file(tmp_path / "a.safetensors", QWEN_MODULES, rank=16)
    patched = apply(tiny.qwen_image(), (path, 1.0), mode="branch")
    (holder,) = patched.get_nested_additional_models()
    numbers = sum(16 * (out + inp) for out, inp in QWEN_MODULES.values())
    assert holder.model_size() == 4 * numbers


def test_a_second_pass_on_the_result_of_the_first(tmp_path: Path) -> None:
    """A hires-fix chain: one stack samples, another goes on from its latent."""
    import comfy.sample

    a, _ = lora_file(tmp_path / "a.safetensors", QWEN_MODULES)
    b, _ = lora_file(tmp_path / "b.safetensors", QWEN_MODULES, rank=7, seed=3)

    def chain(first: Any, second: Any) -> torch.Tensor:
        latent = tiny.sample(first)
        text = [[random(1, 6, tiny.TEXT, seed=8), {}]]
        noise = random(*latent.shape, seed=9)
        return comfy.sample.sample(
            second, noise, 2, 1.0, "euler", "simple", text, text, latent,
            denoise=0.5, disable_pbar=True, seed=4,
        )  # fmt: skip

    model = tiny.qwen_image()
    shared = chain(apply(model, (a, 1.0), mode="branch"), apply(model, (b, 1.0), mode="branch"))
    apart = chain(
        apply(tiny.qwen_image(), (a, 1.0), mode="branch"),
        apply(tiny.qwen_image(), (b, 1.0), mode="branch"),
    )
    assert torch.equal(shared, apart)


@pytest.mark.own_loading
def test_torch_compile_sees_the_branches(tmp_path: Path) -> None:
    """Both ways of the same compiled model are right, and only a new rank compiles again."""
    import torch._dynamo
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    path, deltas = lora_file(tmp_path / "a.safetensors", QWEN_MODULES)
    wider, _ = lora_file(tmp_path / "b.safetensors", QWEN_MODULES, rank=9, seed=5)
    torch._dynamo.reset()
    graphs: list[Any] = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    model = tiny.qwen_image()
    base = tiny.sample(model)
    compiled = model.clone()
    set_torch_compile_wrapper(compiled, backend=backend)  # pyright: ignore[reportArgumentType]
    assert relative_error(tiny.sample(compiled), base) < 1e-5
    wanted = reference(tiny.qwen_image, "fp32", [(deltas, 1.0)])
    got = tiny.sample(apply(compiled, (path, 1.0), mode="branch"))
    assert relative_error(got, wanted) < 2e-5
    after_first = len(graphs)
    assert after_first > 0
    wanted = reference(tiny.qwen_image, "fp32", [(deltas, 0.4)])
    got = tiny.sample(apply(compiled, (path, 0.4), mode="branch"))
    assert relative_error(got, wanted) < 2e-5
    assert relative_error(tiny.sample(compiled), base) < 1e-5
    assert len(graphs) == after_first, "a changed strength must not compile again"
    tiny.sample(apply(compiled, (wider, 1.0), mode="branch"))
    assert len(graphs) > after_first
    torch._dynamo.reset()
