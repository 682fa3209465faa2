"""What is left out of a run for good reasons is not told as lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.applying import QWEN_MODULES, D, apply, lora_file, random
from vivace.devkit.doubles import svdquant_models as small
from vivace.devkit.doubles import tiny_models as tiny

pytestmark = pytest.mark.usefixtures("comfyui")


def counted(module: torch.nn.Module) -> list[int]:
    """The calls of a module, one entry each."""
    calls: list[int] = []
    module.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


def test_steps_that_a_cache_leaves_out(tmp_path: Path, said: list[str]) -> None:
    from comfy_extras.nodes_easycache import EasyCacheNode

    path, _ = lora_file(tmp_path / "a.safetensors", QWEN_MODULES)
    model = tiny.qwen_image()
    calls = counted(model.model.diffusion_model.transformer_blocks[0])
    patched = apply(model, (path, 1.0), mode="branch")
    cached = EasyCacheNode.execute(patched, 3.0, 0.0, 1.0, False)[0]  # pyright: ignore[reportIndexIssue]
    tiny.sample(cached, steps=8)
    assert 0 < len(calls) < 8
    assert not said


def test_a_block_that_a_patch_leaves_out(tmp_path: Path, said: list[str]) -> None:
    path, _ = lora_file(tmp_path / "a.safetensors", QWEN_MODULES)
    model = tiny.qwen_image()
    calls = [counted(block) for block in model.model.diffusion_model.transformer_blocks]
    patched = apply(model, (path, 1.0), mode="branch")
    patched.set_model_patch_replace(lambda args, _: args, "dit", "double_block", 0)
    tiny.sample(patched)
    assert (len(calls[0]), len(calls[1])) == (0, 2)
    assert not said


def test_a_run_that_an_error_ends(tmp_path: Path, said: list[str]) -> None:
    """In its first block; and one that ends before it calls anything."""
    path, _ = lora_file(tmp_path / "a.safetensors", QWEN_MODULES)
    model = tiny.qwen_image()
    patched = apply(model, (path, 1.0), mode="branch")

    def fail(*_: Any) -> None:
        raise RuntimeError("now")

    hook = model.model.diffusion_model.transformer_blocks[0].attn.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="now"):
        tiny.sample(patched)
    hook.remove()
    patched.pre_run()
    patched.cleanup()
    assert not said


def test_blocks_that_run_in_the_copy_of_one(tmp_path: Path, said: list[str]) -> None:
    """Each block that was run in a copy counts for itself, and what it lost is told."""
    from vivace.wrappers.lora.branch_set import KEY, install, remove

    leaves = ("attn.to_out.0", "attn.to_add_out")
    names = [f"transformer_blocks.{block}.{leaf}" for block in range(2) for leaf in leaves]
    path = full_file(tmp_path / "a.safetensors", names)
    model = small.nunchaku("qwen_image", offload=True)
    patched = apply(model, (path, 1.0))
    assert sorted(patched.attachments[KEY].beside) == sorted(names)
    small.sample(patched)
    assert not said
    install(patched)
    blocks = model.model.diffusion_model.offload_manager.buffer_blocks
    first, _ = (
        next(layer for block in blocks if (layer := _layer(block.get_submodule(leaf))))
        for leaf in leaves
    )
    first.seen.add(1)
    remove(patched)
    (text,) = said
    assert "1 layer was" in text
    assert f"beside: {names[3]}. " in text


def _layer(module: Any) -> Any:
    from vivace.wrappers.targets.layered_class import MARK

    return module.__dict__.get(MARK)


def full_file(path: Path, modules: list[str]) -> Path:
    """A file of full changes, which no ranks of a 4-bit layer can hold."""
    from safetensors.torch import save_file

    tensors = {
        f"diffusion_model.{name}.diff": random(D, D, seed=seed) / 8
        for seed, name in enumerate(modules)
    }
    save_file(tensors, path)
    return path
