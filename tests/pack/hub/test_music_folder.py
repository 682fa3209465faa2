"""MusicGen folders: found, told from others, complete or not, and loaded from their files alone."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.small_music import KINDS, POSITIONS, save_model
from vivace.hub.model_check import INDEX, SINGLE
from vivace.hub.model_folders import ModelFolderError, find_models
from vivace.hub.musicgen_folders import check_music_model, find_music_models
from vivace.music.errors import MusicError
from vivace.music.music_model import (
    DTYPES,
    load_music_model,
    music_model_key,
    resolve_dtype,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models")
    for kind in KINDS:
        save_model(kind, place / kind)
    return place


@pytest.fixture
def copied(folders: Path, tmp_path: Path) -> Callable[[str], Path]:
    def copy(kind: str) -> Path:
        return Path(shutil.copytree(folders / kind, tmp_path / kind))

    return copy


def test_they_are_found_among_others(folders: Path, tmp_path: Path) -> None:
    other = tmp_path / "qwen"
    other.mkdir()
    (other / "config.json").write_text('{"architectures": ["QwenForCausalLM"]}')
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("[")
    found = find_music_models([tmp_path, folders])
    assert list(found.models) == sorted(KINDS)
    assert [problem.path for problem in found.problems] == [str(broken)]
    assert found.models["melody"].model_type == "musicgen_melody"
    # They are no choice for QwenVL.
    assert list(find_models([tmp_path, folders]).models) == ["qwen"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_folder_is_loaded_without_random_numbers(kind: str, folders: Path) -> None:
    before = torch.get_rng_state(), random.getstate()
    model = load_music_model(folders / kind, torch.float32, CPU)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert (model.rate, model.hop, model.frame_rate) == (8000, 160, 50.0)
    assert model.channels == (2 if kind == "stereo" else 1)
    assert model.takes_melody == (kind == "melody")
    assert not any(parameter.requires_grad for parameter in model.model.parameters())
    saved = load_file(folders / kind / SINGLE)
    loaded = model.model.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in saved.items())


def test_a_window_is_what_the_positions_hold_and_half_a_minute(folders: Path) -> None:
    model = load_music_model(folders / "mono", torch.float32, CPU)
    assert model.window_frames() == POSITIONS - 4
    assert model.window_frames(20) == POSITIONS - 24
    model.positions = 2048
    assert model.window_frames() == 1500


def shard(path: Path) -> None:
    """As the hub has large models."""
    tensors = load_file(path / SINGLE)
    names = sorted(tensors)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: tensors[name] for name in part}, path / file, {"format": "pt"})
    places = {name: file for file, part in halves.items() for name in part}
    (path / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (path / SINGLE).unlink()


def test_shards_are_read_by_their_index(copied: Callable[[str], Path]) -> None:
    path = copied("mono")
    shard(path)
    assert [file.name for file in check_music_model(path).weights] == [
        "a.safetensors",
        "b.safetensors",
    ]
    assert load_music_model(path, torch.float32, CPU).nbytes > 0
    (path / "b.safetensors").unlink()
    with pytest.raises(ModelFolderError, match=r"1 of 2 weight files are missing: b\.safetensors"):
        load_music_model(path, torch.float32, CPU)


@pytest.mark.parametrize(
    ("kind", "file", "content", "message"),
    [
        ("mono", "model.safetensors", None, "there are no weights"),
        ("mono", "model.safetensors", b"version https://git-lfs.github.com", "LFS pointers"),
        ("mono", "tokenizer.json", None, "the tokenizer is missing"),
        ("mono", "config.json", b'{"model_type": "qwen2"}', "not that of MusicGen"),
        ("mono", "config.json", None, r"config\.json is missing"),
        ("melody", "preprocessor_config.json", None, "how melodies are read"),
        ("melody", "preprocessor_config.json", b"version https://git-lfs.github.com", "LFS"),
        ("mono", "model.safetensors.incomplete", b"", "was not finished"),
    ],
)
def test_a_folder_that_is_not_whole_says_why(
    copied: Callable[[str], Path], kind: str, file: str, content: bytes | None, message: str
) -> None:
    path = copied(kind)
    (path / file).unlink(missing_ok=True)
    if content is not None:
        (path / file).write_bytes(content)
    with pytest.raises(ModelFolderError, match=message) as caught:
        load_music_model(path, torch.float32, CPU)
    assert str(path) in str(caught.value)


def test_a_cut_file_is_found_out_before_it_is_loaded(copied: Callable[[str], Path]) -> None:
    path = copied("mono")
    weights = path / SINGLE
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelFolderError, match="bytes in place of"):
        check_music_model(path)


def test_weights_that_lack_layers_are_refused(copied: Callable[[str], Path]) -> None:
    path = copied("mono")
    tensors = load_file(path / SINGLE)
    kept = {name: tensor for name, tensor in tensors.items() if "decoder.layers.1.fc1" not in name}
    assert len(kept) < len(tensors)
    save_file(kept, path / SINGLE, {"format": "pt"})
    with pytest.raises(MusicError, match="the weights lack 1 tensors"):
        load_music_model(path, torch.float32, CPU)


def test_files_of_a_newer_transformers_are_refused(copied: Callable[[str], Path]) -> None:
    folder = copied("mono")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"] = ["</s>"]  # a list, and a table was
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(MusicError, match="if a newer one wrote the files, update it"):
        load_music_model(folder, torch.float32, CPU)


def test_a_decoder_and_a_codec_that_do_not_fit_are_refused(copied: Callable[[str], Path]) -> None:
    path = copied("mono")
    config = json.loads((path / "config.json").read_text())
    config["audio_encoder"]["target_bandwidths"] = [0.5]
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(MusicError, match="do not fit"):
        load_music_model(path, torch.float32, CPU)


def test_keys_tell_folders_dtypes_and_devices_apart(folders: Path) -> None:
    mono, stereo = (check_music_model(folders / kind) for kind in ("mono", "stereo"))
    keys = {
        music_model_key(mono, torch.float32, CPU),
        music_model_key(stereo, torch.float32, CPU),
        music_model_key(mono, torch.float16, CPU),
        music_model_key(mono, torch.float32, torch.device("cuda", 0)),
    }
    assert len(keys) == 4
    assert music_model_key(check_music_model(folders / "mono"), torch.float32, CPU) in keys


def test_auto_is_half_precision_on_cuda_only() -> None:
    assert resolve_dtype("auto", torch.device("cuda")) == torch.float16
    assert resolve_dtype("auto", CPU) == torch.float32
    for name, dtype in DTYPES.items():
        assert resolve_dtype(name, CPU) == dtype
    with pytest.raises(MusicError, match="int8"):
        resolve_dtype("int8", CPU)
