"""Checkpoints as models: conversion as a whole, reading, copies, memory management, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.applying import apply, lora_file, relative_error
from vivace.devkit.doubles import svdquant_models as small
from vivace.devkit.doubles import tiny_models as tiny
from vivace.lora.files.open_file import LoraFile
from vivace.svdquant import reader
from vivace.svdquant.errors import CheckpointError
from vivace.svdquant.reader import CheckpointFile

pytestmark = pytest.mark.usefixtures("comfyui")

D = tiny.QWEN_DIM


@pytest.fixture
def file(tmp_path: Path) -> Path:
    built = small.checkpoint("qwen_image")
    path = tmp_path / "svdq-int4_r32-small.safetensors"
    save_file({n: t.contiguous() for n, t in built.tensors.items()}, path, built.metadata)
    return path


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Our loader, with a ComfyUI that takes models of any width."""
    from vivace.wrappers.svdquant import svdquant_model

    def load(state_dict: dict[str, torch.Tensor], options: Any, **_: Any) -> Any:
        model = tiny.unloaded("qwen_image", torch.float32, options["custom_operations"])
        model.diffusion_model.load_state_dict(dict(state_dict), strict=False)
        from comfy.model_patcher import ModelPatcher

        return ModelPatcher(model, load_device=tiny.CPU, offload_device=tiny.CPU)

    monkeypatch.setattr(svdquant_model.comfy.sd, "load_diffusion_model_state_dict", load)
    return svdquant_model.load_svdquant


@pytest.mark.parametrize("family", small.FAMILIES)
def test_whole_models_compute_what_nunchaku_s_layers_compute(family: str) -> None:
    got, wanted = small.sample(small.kitchen(family)), small.sample(small.nunchaku(family))
    assert relative_error(got, wanted) < 1e-5
    # And both are the dense model, but for the rounding of inputs to 4 bits.
    assert 0 < relative_error(got, small.sample(small.dense(family))) < 0.05


def test_each_tensor_is_read_once_from_one_open_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: list[LoraFile] = []
    real = reader.LoraFile
    monkeypatch.setattr(reader, "LoraFile", lambda path: files.append(real(path)) or files[-1])
    stored = small.checkpoint("qwen_image").tensors
    read = [name for name in stored if not name.endswith("smooth_factor_orig")]
    with CheckpointFile(file) as opened:
        pieces = sum(1 for _ in opened.pieces())
        assert pieces == opened.count
    (read_file,) = files
    assert read_file.opens == 1
    assert read_file.tensors_read == len(read)
    assert read_file.bytes_read == sum(stored[name].nbytes for name in read)


def test_progress_counts_layers_and_may_cancel(file: Path, loader: Any) -> None:
    seen: list[tuple[int, int]] = []
    loader(file, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == list(range(1, seen[0][1] + 1))

    def cancel(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loader(file, progress=cancel)


def test_a_copy_is_used_while_its_source_is_the_same(
    file: Path, loader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vivace.svdquant import reader

    conversions: list[Any] = []
    real = reader.converted
    monkeypatch.setattr(reader, "converted", lambda *args: (conversions.append(1), real(*args))[1])
    wanted = small.sample(loader(file, keep_converted=True))
    copy = file.with_name("svdq-int4_r32-small.kitchen.safetensors")
    assert copy.exists()
    assert not list(file.parent.glob("*.part"))
    assert torch.equal(small.sample(loader(file)), wanted)
    assert len(conversions) == 1
    file.touch()
    assert torch.equal(small.sample(loader(file)), wanted)
    assert len(conversions) == 2
    loader(file, keep_converted=True)
    copy.write_bytes(copy.read_bytes()[:-1000])
    assert torch.equal(small.sample(loader(file)), wanted)
    assert len(conversions) == 4


def test_a_copy_with_the_earlier_name_of_the_zeros_is_read(
    file: Path, loader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = small.sample(loader(file, keep_converted=True))
    copy = file.with_name("svdq-int4_r32-small.kitchen.safetensors")
    with safe_open(copy, "pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(copy)
    zeros = [name for name in tensors if name.endswith(".weight_zeros")]
    assert zeros
    renamed = {name.removesuffix("s") if name in zeros else name: t for name, t in tensors.items()}
    save_file(renamed, copy, metadata)
    monkeypatch.setattr(reader, "converted", None)
    assert torch.equal(small.sample(loader(file)), wanted)


def test_a_copy_that_cannot_be_written_costs_nothing(
    file: Path, loader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vivace.wrappers.svdquant import svdquant_model

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(svdquant_model, "write_converted", full)
    assert small.sample(loader(file, keep_converted=True)).isfinite().all()


def test_a_file_that_shrinks_while_it_is_read_is_an_error(file: Path) -> None:
    with CheckpointFile(file) as opened:
        pieces = opened.pieces()
        next(pieces)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        with pytest.raises(CheckpointError, match="ends early"):
            list(pieces)


@pytest.mark.parametrize("content", [b"", b"\x10", b"<html>", b"version https://git-lfs.github"])
def test_other_files_are_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        CheckpointFile(path)
    with pytest.raises(CheckpointError, match="no such file"):
        CheckpointFile(tmp_path / "missing.safetensors")


def test_parts_of_the_model_may_stay_in_host_memory(tmp_path: Path) -> None:
    path, _ = lora_file(tmp_path / "one.safetensors", {"transformer_blocks.0.attn.to_q": (D, D)})
    whole = small.kitchen("qwen_image")
    wanted = small.sample(apply(whole, (path, 1.0)))
    model = small.kitchen("qwen_image")
    patched = apply(model, (path, 1.0))
    size = model.model_size()
    weights = sum(p.nbytes for p in _side_tensors(model))
    assert size >= weights
    patched.load(tiny.CPU, lowvram_model_memory=size // 3)
    assert model.model.model_lowvram
    assert torch.equal(small.sample(patched), wanted)
    patched.unpatch_model(tiny.CPU)


def _side_tensors(model: Any) -> list[torch.Tensor]:
    from vivace.wrappers.svdquant.svdquant_ops import kitchen_modules

    layers = list(kitchen_modules(model.model))
    assert layers
    return [t for layer in layers for t in (layer.weight._qdata, layer.weight._params.scale)]


def test_comfyui_s_own_loader_takes_over_when_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    from comfy import quant_ops
    from vivace.wrappers.svdquant.svdquant_model import comfyui_loads_it

    assert not comfyui_loads_it()
    both = {"svdquant_w4a4": {}, "awq_w4a16": {}}
    monkeypatch.setattr(quant_ops, "QUANT_ALGOS", {**quant_ops.QUANT_ALGOS, **both})
    assert comfyui_loads_it()
