"""The text encoder's part of a LoRA, beside what ComfyUI's own loader makes of the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.applying import QWEN_MODULES, lora_file, random
from support.opened_paths import opened_paths
from vivace.devkit.doubles import tiny_models as tiny

pytestmark = [pytest.mark.usefixtures("comfyui"), pytest.mark.own_loading]

ENCODER = "text_encoders.qwen3_4b.transformer.model.layers"
MODULES = {
    "0.self_attn.q_proj": (256, 64),
    "0.self_attn.o_proj": (64, 256),
    "1.mlp.down_proj": (64, 96),
}


@pytest.fixture
def clip() -> Any:
    from vivace.devkit.doubles.custom_nodes.vivace_test_nodes.small_clip import small_clip

    return small_clip()


def with_encoder(
    path: Path, stem: str = ENCODER, more: dict[str, torch.Tensor] | None = None
) -> Path:
    """A LoRA for a Qwen-Image that has changes for a text encoder too."""
    lora_file(path, QWEN_MODULES)
    save_file({**load_file(path), **encoder_tensors(stem), **(more or {})}, path)
    return path


def encoder_tensors(stem: str) -> dict[str, torch.Tensor]:
    tensors = {}
    for index, (module, (out, inp)) in enumerate(MODULES.items()):
        tensors[f"{stem}.{module}.lora_A.weight"] = random(4, inp, seed=index) / 4
        tensors[f"{stem}.{module}.lora_B.weight"] = random(out, 4, seed=10 + index) / 4
        tensors[f"{stem}.{module}.alpha"] = torch.tensor(2.0)
    return tensors


def encoded(clip: Any) -> torch.Tensor:
    return clip.encode_from_tokens(clip.tokenize("a house by the sea"))


def comfyui_s(clip: Any, path: Path, strength: float) -> torch.Tensor:
    from comfy.sd import load_lora_for_models

    return encoded(load_lora_for_models(None, clip, load_file(path), 0.0, strength)[1])


Stack = Callable[..., tuple[Any, Any, str]]


@pytest.fixture
def stack() -> Stack:
    from vivace.wrappers.lora.apply_stack import apply_stack

    return apply_stack


@pytest.mark.parametrize("strength", [0.6, -1.5])
def test_the_same_bits_as_comfyui_s_own_loader(
    tmp_path: Path, clip: Any, stack: Stack, strength: float
) -> None:
    path = with_encoder(tmp_path / "a.safetensors")
    before = encoded(clip)
    model = tiny.qwen_image()
    patched, changed, report = stack(model, clip, [(path, 0.5, strength)])
    after = encoded(changed)
    assert torch.equal(after, comfyui_s(clip, path, strength))
    assert not torch.equal(after, before)
    assert torch.equal(encoded(clip), before), "the text encoder that came in is not changed"
    assert clip.patcher.patches == {}
    assert patched is not model
    lines = report.splitlines()
    assert lines[0] == "1 LoRA, 5 modules, 3 of the text encoder"
    assert "| a.safetensors | qwen_image LoRA rank 4 | 5 of 5 | 0 | 0 | 0 |" in report
    assert f"- `a.safetensors`, text encoder at strength {strength:g}: 3 modules" in lines


def test_two_loras_add_up(tmp_path: Path, clip: Any, stack: Stack) -> None:
    path = with_encoder(tmp_path / "a.safetensors")
    changed = stack(tiny.qwen_image(), clip, [(path, 1, 0.25), (path, 1, 0.5)])[1]
    assert {len(patches) for patches in changed.patcher.patches.values()} == {2}
    torch.testing.assert_close(encoded(changed), comfyui_s(clip, path, 0.75))


def test_nothing_for_a_text_encoder_leaves_it_as_it_is(
    tmp_path: Path, clip: Any, stack: Stack
) -> None:
    plain, _ = lora_file(tmp_path / "plain.safetensors", QWEN_MODULES)
    both = with_encoder(tmp_path / "both.safetensors")
    for loras in ([(plain, 1.0, 1.0)], [(both, 1.0, 0.0)], []):
        assert stack(tiny.qwen_image(), clip, loras)[1] is clip


def test_only_the_text_encoder(tmp_path: Path, clip: Any, stack: Stack) -> None:
    path = tmp_path / "encoder.safetensors"
    save_file(encoder_tensors(ENCODER), path)
    model = tiny.qwen_image()
    same, changed, report = stack(model, clip, [(path, 0.0, 1.0)])
    assert same is model
    assert torch.equal(encoded(changed), comfyui_s(clip, path, 1.0))
    assert report.startswith("1 LoRA, 0 modules, 3 of the text encoder\n")


def test_without_a_text_encoder_its_tensors_are_ignored(tmp_path: Path, stack: Stack) -> None:
    path = with_encoder(tmp_path / "a.safetensors")
    _, changed, report = stack(tiny.qwen_image(), None, [(path, 1.0, 1.0)])
    assert changed is None
    assert report.startswith("1 LoRA, 5 modules, 9 tensors ignored\n")
    assert "9 tensors ignored: text encoder: only the diffusion model is patched" in report


def test_another_text_encoder_s_tensors_are_named(tmp_path: Path, clip: Any, stack: Stack) -> None:
    other = "text_encoders.qwen25_7b.transformer.visual"
    more = {f"{other}.lora_A.weight": random(4, 8, seed=1)}
    path = with_encoder(tmp_path / "a.safetensors", more=more)
    _, changed, report = stack(tiny.qwen_image(), clip, [(path, 1.0, 1.0)])
    assert len(changed.patcher.patches) == 3
    assert report.startswith("1 LoRA, 5 modules, 3 of the text encoder, 1 not applied\n")
    assert f"1 tensors not applied, as it has no such module: {other}.lora_A.weight" in report
    with pytest.raises(ValueError, match=r"a\.safetensors: 1 tensors are for another text enc"):
        stack(tiny.qwen_image(), clip, [(path, 1.0, 1.0)], strict=True)


def test_a_spelling_that_comfyui_does_not_know_changes_nothing(
    tmp_path: Path, clip: Any, stack: Stack
) -> None:
    path = with_encoder(tmp_path / "a.safetensors", stem="text_encoder.model.layers")
    _, same, report = stack(tiny.qwen_image(), clip, [(path, 1.0, 1.0)])
    assert same is clip
    assert "0 of the text encoder, 9 not applied" in report


@pytest.mark.parametrize("text_encoder", [True, False])
def test_a_file_is_opened_once_trigger_words_included(
    tmp_path: Path, clip: Any, stack: Stack, text_encoder: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vivace.lora import info

    path = with_encoder(tmp_path / "a.safetensors")
    opened = opened_paths(monkeypatch)
    stack(tiny.qwen_image(), clip if text_encoder else None, [(path, 0.5, 0.5)])
    assert opened.count(path) == 1
    info.lora_info(path)  # reads it by the published models, which the small one is not
    assert opened.count(path) == 2
    stack(tiny.qwen_image(), clip if text_encoder else None, [(path, 0.5, 0.0)])
    info.lora_info(path)
    assert opened.count(path) == 2
