"""Language models that are quantized while they are loaded, by the real bitsandbytes on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from torch import nn
from vivace.devkit.doubles.small_vlm import TEXT, picture, save_model, tokenizer
from vivace.vlm.decode.answer_reader import GenerationSettings
from vivace.vlm.loading.load_options import LoadError, LoadOptions
from vivace.vlm.local_engine import LocalEngine, LocalRequest
from vivace.vlm.local_model import LocalModel, load_model
from vivace.vlm.text.chat_prompt import ImagePart, Turn
from vivace.vlm.vision.embedding_cache import EmbeddingCache

LAYERS = {"8-bit": "Linear8bitLt", "4-bit": "Linear4bit"}
REQUEST = LocalRequest((Turn("user", (ImagePart(), "What?")),), GenerationSettings(6))


@pytest.fixture(scope="module", params=["qwen3_vl", "qwen2_5_vl"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(request.param, tmp_path_factory.mktemp("models") / "small")


def load(folder: Path, quantization: str) -> LocalModel:
    return load_model(folder, LoadOptions("float32", quantization, compile_vision="off"))


def linears(local: LocalModel, vision: bool) -> dict[str, Any]:
    return {
        name: module
        for name, module in local.model.named_modules()
        if isinstance(module, nn.Linear) and ("visual" in name) == vision
    }


@pytest.mark.parametrize("quantization", LAYERS)
def test_the_language_model_is_quantized_and_the_vision_tower_is_whole(
    folder: Path, quantization: str
) -> None:
    plain, local = load(folder, "none"), load(folder, quantization)
    whole = linears(local, vision=True)
    assert whole
    assert all(type(module) is nn.Linear for module in whole.values())
    kinds = {name: type(module).__name__ for name, module in linears(local, vision=False).items()}
    assert kinds.pop("lm_head") == "Linear"
    assert len(kinds) == len(linears(plain, vision=False)) - 1 > 0
    assert set(kinds.values()) == {LAYERS[quantization]}
    assert local.nbytes < plain.nbytes


def test_four_bits_are_nf4(folder: Path) -> None:
    plain, local = linears(load(folder, "none"), False), linears(load(folder, "4-bit"), False)
    del local["lm_head"]
    for name, module in local.items():
        state = module.weight.quant_state
        assert (state.quant_type, state.blocksize) == ("nf4", 64)
        wanted = plain[name].weight
        # The widest step of NF4 is 0.304 of a block's largest value, and values are rounded.
        bound = 0.16 * wanted.abs().max()
        assert (dequantize_4bit(module.weight, state) - wanted).abs().max() <= bound


@pytest.mark.parametrize("quantization", LAYERS)
def test_images_are_read_as_without(folder: Path, quantization: str) -> None:
    cache = EmbeddingCache()
    plain = LocalEngine(load(folder, "none"), cache).answer(REQUEST, [picture(1)])
    assert plain.report.images.hits == 0
    local = load(folder, quantization)
    cached = LocalEngine(local, cache).answer(REQUEST, [picture(1)])
    fresh = LocalEngine(local, EmbeddingCache()).answer(REQUEST, [picture(1)])
    # The same tower: what it saw for the one holds for the other.
    assert cached.report.images.hits == 1
    assert fresh.report.images.hits == 0
    assert cached.tokens == fresh.tokens
    assert len(fresh.tokens) == 6


@pytest.mark.parametrize("quantization", LAYERS)
def test_it_is_not_moved(folder: Path, quantization: str) -> None:
    local = load(folder, quantization)
    assert not local.movable
    with pytest.raises(LoadError, match="load it again"):
        local.to(torch.device("cpu"))


def save_odd_model(folder: Path, **sizes: int) -> Path:
    """A language model without vision of other sizes than the rest of the tests use."""
    import transformers

    config = transformers.Qwen3Config(**{**TEXT, "head_dim": 16, **sizes})
    transformers.Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def test_a_layer_of_few_rows_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On every processor as on those with AVX512-BF16, for which bitsandbytes packs weights."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    local = load(save_odd_model(tmp_path, num_key_value_heads=1), "4-bit")
    packed = {name.split(".")[-1]: layer for name, layer in linears(local, False).items()}
    assert not packed["k_proj"].support_avx512bf16_for_cpu
    assert packed["q_proj"].support_avx512bf16_for_cpu
    x = torch.randn(2, 64)
    weight = packed["k_proj"].weight
    wanted = x @ dequantize_4bit(weight, weight.quant_state).t()
    torch.testing.assert_close(packed["k_proj"](x), wanted)


def test_rows_that_do_not_fill_groups_are_refused(tmp_path: Path) -> None:
    folder = save_odd_model(tmp_path, hidden_size=48)
    with pytest.raises(LoadError, match=r"q_proj takes 48\. Choose another quantization"):
        load(folder, "4-bit")
    assert load(folder, "8-bit").nbytes < load(folder, "none").nbytes
