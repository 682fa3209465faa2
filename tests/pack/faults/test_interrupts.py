"""Interrupts at every place where somebody looks for them, and at each step of moving a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.applying import QWEN_MODULES, apply, lora_file, untouched
from support.faults import (
    Interrupted,
    allocations,
    each_point,
    interrupt,
    interrupt_checks,
    out_of_memory,
)
from support.snapshots import differences, forward_would_see, snapshot
from vivace.devkit.doubles import svdquant_models as small
from vivace.devkit.doubles import tiny_models as tiny
from vivace.devkit.doubles.small_vlm import picture, save_model

pytestmark = pytest.mark.usefixtures("comfyui")


@pytest.mark.usefixtures("inference")
@pytest.mark.parametrize("kind", ["dense", "kitchen"])
def test_sampling_with_loras(kind: str, tmp_path: Path) -> None:
    model = tiny.qwen_image() if kind == "dense" else small.kitchen("qwen_image")
    path, _ = lora_file(tmp_path / "a.safetensors", QWEN_MODULES)
    patched = apply(model, (path, 1.0), mode="branch")
    wanted, plain = small.sample(patched), small.sample(model)
    base = snapshot(model.model.diffusion_model)  # as ComfyUI has loaded it

    def after(error: BaseException | None) -> None:
        assert isinstance(error, Interrupted)
        assert untouched(model)
        assert differences(forward_would_see(model), base) == []
        assert torch.equal(small.sample(patched), wanted)

    points = each_point(interrupt_checks, interrupt, lambda: small.sample(patched), after)
    assert len(points) >= 1
    assert torch.equal(small.sample(model), plain)


def test_answers_of_nodes(tmp_path: Path) -> None:
    """The first question loads the model; the others find it, and the caches, as they are."""
    from vivace.vlm.decode.sampling import Sampling
    from vivace.vlm.loading.load_options import LoadOptions
    from vivace.vlm.question import AnswerSettings, Question
    from vivace.wrappers.vlm import vlm_session

    options = LoadOptions(dtype="float32", compile_vision="off")
    choice = vlm_session.LocalChoice(save_model("qwen3_vl", tmp_path / "model"), options)
    settings = AnswerSettings(3, None, Sampling())
    questions = [Question("What?", images=(picture(seed, 2, 2, "qwen3_vl"),)) for seed in (1, 2)]

    def ask() -> list[Any]:
        session = vlm_session.open_session(choice, settings, "fast", True)
        replies: list[Any] = session.ask(questions, lambda index, piece: None, lambda: None)
        return [reply.text for reply in replies]

    def forget() -> None:
        vlm_session.EMBEDDINGS.clear()
        vlm_session.PREFIXES.clear()

    def after(error: BaseException | None) -> None:
        assert isinstance(error, Interrupted)
        figures = vlm_session.EMBEDDINGS.statistics
        kept = vlm_session.EMBEDDINGS.kept.by_use()
        assert figures.nbytes == sum(embedding.nbytes for _, embedding in kept)
        (patcher,) = vlm_session.POOL.patchers.values()
        assert patcher.local is not None
        assert differences(patcher.local.model, base) == []
        assert ask() == wanted

    try:
        wanted = ask()
        (patcher,) = vlm_session.POOL.patchers.values()
        assert patcher.local is not None
        base = snapshot(patcher.local.model)
        points = each_point(interrupt_checks, interrupt, ask, after, before=forget)
        assert len(points) >= 4
        assert patcher.loads == 1
    finally:
        for patcher in list(vlm_session.POOL.patchers.values()):
            vlm_session.POOL.drop(patcher)


@pytest.mark.usefixtures("inference")
def test_a_failed_move_of_factors_loses_nothing(tmp_path: Path) -> None:
    """Each page is on one device, and what was at home is there still."""
    path, _ = lora_file(tmp_path / "a.safetensors", QWEN_MODULES)
    patched = apply(tiny.qwen_image(), (path, 1.0), mode="branch")
    (holder,) = patched.get_nested_additional_models()
    store = holder.model
    wanted = tiny.sample(patched)
    at_home = list(store.parameters())

    def bring(device: str) -> None:
        store.to_empty(device=device)

    def places() -> list[set[str]]:
        return [{tensor.device.type for tensor in page.parameters()} for page in store.pages]

    def after(error: BaseException | None) -> None:
        assert isinstance(error, torch.OutOfMemoryError)
        assert all(len(devices) == 1 for devices in places()), "a page is whole where it is"
        bring("cpu")
        now = list(store.parameters())
        assert all(a.data_ptr() == b.data_ptr() for a, b in zip(now, at_home, strict=True))
        bring("meta")
        assert places() == [{"meta"}] * len(store.pages)

    points = each_point(
        allocations,
        out_of_memory,
        lambda: bring("meta"),
        after,
        before=lambda: bring("cpu"),
    )
    assert len(points) >= len(QWEN_MODULES)
    bring("cpu")
    assert torch.equal(tiny.sample(patched), wanted)
