"""Loading models from folders: the same answers, and a clear error for what cannot be loaded."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from vivace.devkit.doubles.small_vlm import (
    FAMILIES,
    local_model,
    picture,
    save_model,
    text_model,
)
from vivace.hub.model_check import check_model
from vivace.hub.model_folders import ModelFolderError
from vivace.vlm.decode.answer_reader import GenerationSettings
from vivace.vlm.decode.sampling import Sampling
from vivace.vlm.loading.load_options import LoadError, LoadOptions, from_pretrained_options
from vivace.vlm.local_engine import LocalEngine, LocalRequest
from vivace.vlm.local_model import LocalModel, load_model, model_key
from vivace.vlm.text.chat_prompt import ImagePart, Turn
from vivace.vlm.vision.embedding_cache import EmbeddingCache

FULL = LoadOptions(dtype="float32", compile_vision="off")
REQUEST = LocalRequest((Turn("user", (ImagePart(), "What?")),), GenerationSettings(6))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3-VL in a folder; copy it before you change it."""
    return save_model("qwen3_vl", tmp_path_factory.mktemp("models") / "small")


def copied(folder: Path, place: Path) -> Path:
    place.mkdir()
    for file in folder.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    return place


@pytest.mark.parametrize("family", FAMILIES)
def test_a_loaded_model_answers_the_same(family: str, tmp_path: Path) -> None:
    loaded = load_model(save_model(family, tmp_path / "m"), FULL)
    image = picture(1, family=family)
    expected = LocalEngine(local_model(family)).answer(REQUEST, [image])
    found = LocalEngine(loaded).answer(REQUEST, [image])
    assert found.tokens == expected.tokens
    assert found.reply.text == expected.reply.text
    assert loaded.pixel_format == local_model(family).pixel_format
    assert loaded.eos_ids == local_model(family).eos_ids
    assert loaded.device == torch.device("cpu")


def test_a_plain_language_model(tmp_path: Path) -> None:
    stock: Any = text_model().model
    stock.save_pretrained(tmp_path / "m")
    text_model().tokenizer.save_pretrained(tmp_path / "m")
    loaded = load_model(tmp_path / "m", FULL)
    request = LocalRequest((Turn("user", ("What?",)),), GenerationSettings(6))
    assert loaded.tower is None
    found = LocalEngine(loaded).answer(request)
    assert found.tokens == LocalEngine(text_model()).answer(request).tokens


def test_dtypes_sizes_and_keys(folder: Path) -> None:
    full = load_model(folder, FULL)
    half = load_model(folder, LoadOptions(attention="eager", compile_decode="off"))
    assert half.tower is not None
    assert full.tower is not None
    assert (half.tower.dtype, full.tower.dtype) == (torch.bfloat16, torch.float32)
    stored = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert full.nbytes == pytest.approx(stored, rel=0.02)
    assert half.nbytes == pytest.approx(stored / 2, rel=0.02)
    checked = check_model(folder)
    assert full.key == model_key(checked, FULL)
    assert full.key is not None
    assert full.key._asdict() == {
        "identity": checked.identity,
        "dtype": "float32",
        "quantization": "none",
        "attention": "auto",
        "device": "cpu",
    }
    for changed in ({"dtype": "float16"}, {"quantization": "8-bit"}, {"attention": "sdpa"}):
        assert model_key(checked, replace(FULL, **changed)) != full.key
    assert model_key(checked, replace(FULL, compile_vision="on")) == full.key
    assert model_key(checked, replace(FULL, compile_decode="on")) == full.key
    assert (full.compile_decode, half.compile_decode) == ("auto", "off")
    config: Any = half.model.config
    assert config._attn_implementation == "eager"
    assert not any(parameter.requires_grad for parameter in full.model.parameters())


def test_embeddings_outlive_the_loaded_model(folder: Path, tmp_path: Path) -> None:
    cache = EmbeddingCache()
    for hits in (0, 1):
        engine = LocalEngine(load_model(folder, FULL), cache)
        assert engine.answer(REQUEST, [picture(1)]).report.images.hits == hits
    other = load_model(copied(folder, tmp_path / "other"), FULL)
    assert LocalEngine(other, cache).answer(REQUEST, [picture(1)]).report.images.hits == 0


def test_generation_defaults(folder: Path, tmp_path: Path) -> None:
    assert load_model(folder, FULL).default_sampling(5) == Sampling(seed=5)
    own = copied(folder, tmp_path / "m")
    defaults = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20}
    defaults |= {"repetition_penalty": 1.05, "eos_token_id": [3, 4]}
    (own / "generation_config.json").write_text(json.dumps(defaults))
    loaded = load_model(own, FULL)
    assert loaded.default_sampling() == Sampling(0.7, 0.8, 20, 0.0, 1.05)
    assert loaded.eos_ids >= {3, 4}


def test_moving(folder: Path) -> None:
    loaded = load_model(folder, FULL)
    loaded.to(torch.device("meta"))
    assert loaded.device.type == "meta"
    fixed = LocalModel(
        loaded.model, loaded.tokenizer, loaded.identity, movable=False, key=loaded.key
    )
    with pytest.raises(LoadError, match="Drop it and load it again"):
        fixed.to(torch.device("cpu"))


def test_a_template_in_the_old_place(folder: Path, tmp_path: Path) -> None:
    own = copied(folder, tmp_path / "m")
    template = load_model(own, FULL).tokenizer.chat_template
    (own / "chat_template.jinja").unlink()
    for name in ("tokenizer_config.json", "processor_config.json"):
        if (own / name).is_file():
            settings = json.loads((own / name).read_text())
            settings.pop("chat_template", None)
            (own / name).write_text(json.dumps(settings))
    assert load_model(own, FULL).tokenizer.chat_template is None
    (own / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    assert load_model(own, FULL).tokenizer.chat_template == template


def test_the_architecture_in_the_wrong_place(folder: Path, tmp_path: Path) -> None:
    own = copied(folder, tmp_path / "m")
    config = json.loads((own / "config.json").read_text())
    config["text_config"]["architectures"] = config.pop("architectures")
    (own / "config.json").write_text(json.dumps(config))
    assert load_model(own, FULL).tower is not None


def test_a_missing_folder_and_half_a_download(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match=r"config\.json is missing"):
        load_model(tmp_path / "none", FULL)
    own = copied(folder, tmp_path / "m")
    weights = own / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelFolderError, match=r"model\.safetensors has \d+ bytes in place of"):
        load_model(own, FULL)
    weights.unlink()
    with pytest.raises(ModelFolderError, match="there are no weights"):
        load_model(own, FULL)


def test_weights_of_another_shape(folder: Path, tmp_path: Path) -> None:
    own = copied(folder, tmp_path / "m")
    config = json.loads((own / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 80
    (own / "config.json").write_text(json.dumps(config))
    with pytest.raises(LoadError, match="transformers cannot load the model"):
        load_model(own, FULL)


def test_files_of_a_newer_transformers(folder: Path, tmp_path: Path) -> None:
    own = copied(folder, tmp_path / "m")
    config = json.loads((own / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"] = ["<|im_end|>"]  # a list, and a table was
    (own / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(LoadError, match="if a newer one wrote the files, update it"):
        load_model(own, FULL)


def test_no_normalization(folder: Path, tmp_path: Path) -> None:
    own = copied(folder, tmp_path / "m")
    (own / "preprocessor_config.json").write_text("{}")
    with pytest.raises(LoadError, match="how images are normalized"):
        load_model(own, FULL)


@pytest.mark.parametrize(
    ("choice", "package"),
    [
        ({"attention": "flash_attention_2"}, "flash_attn"),
        ({"quantization": "8-bit"}, "bitsandbytes"),
        ({"quantization": "4-bit"}, "bitsandbytes"),
    ],
)
def test_missing_packages_are_named(
    folder: Path, choice: dict[str, str], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else found(name)
    )
    with pytest.raises(LoadError, match=f"package {package}, .*Install it"):
        load_model(folder, replace(FULL, **choice))


def test_what_is_quantized_is_not_quantized_again() -> None:
    with pytest.raises(LoadError, match="stored as fp8 and cannot be quantized to 4-bit"):
        from_pretrained_options(LoadOptions(quantization="4-bit"), "fp8")
    given = from_pretrained_options(LoadOptions(), "fp8")
    assert "quantization_config" not in given
    assert given["trust_remote_code"] is False
    assert given["local_files_only"] is True


def test_a_quantized_tower_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForImageTextToText

    real = AutoModelForImageTextToText.from_pretrained

    def quantized(*arguments: Any, **named: Any) -> Any:
        model = real(*arguments, **named)
        layer = model.model.visual.blocks[1].mlp.linear_fc1
        values = layer.weight.data.to(torch.int8)
        layer.weight = torch.nn.Parameter(values, requires_grad=False)
        return model

    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", quantized)
    with pytest.raises(LoadError, match=r"blocks\.1\..* is torch\.int8"):
        load_model(folder, FULL)


@pytest.mark.parametrize(
    "choice",
    [{"dtype": "int8"}, {"quantization": "2-bit"}, {"attention": "fast"}, {"compile_decode": "x"}],
)
def test_unknown_choices(choice: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="is none of"):
        LoadOptions(**choice)
