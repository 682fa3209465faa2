"""The estimate of memory beside the weights."""

from __future__ import annotations

from typing import Any

import pytest
from vivace.devkit.doubles.small_vlm import FAMILIES, stock_model
from vivace.vlm.loading.headroom import ACTIVATION_BYTES, headroom_bytes


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_what_a_cache_takes(family: str) -> None:
    from transformers import DynamicCache

    model = stock_model(family)
    config = model.config.text_config
    cache = DynamicCache(config=config)
    heads, dim = config.num_key_value_heads, config.head_dim
    for layer in range(config.num_hidden_layers):
        part = model.lm_head.weight.new_zeros(1, heads, 7, dim)
        cache.update(part, part, layer)
    layers: Any = cache.layers
    taken = sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
    assert headroom_bytes(model.config.to_dict(), 7, 4) == ACTIVATION_BYTES + taken


def test_configs_of_plain_language_models_and_odd_ones() -> None:
    plain = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
    assert headroom_bytes(plain, 10, 2) == ACTIVATION_BYTES + 2 * 2 * 64 * 2 * 10
    for odd in ({}, {"num_attention_heads": 0}, {"num_hidden_layers": "many"}):
        assert headroom_bytes(odd, 10, 2) >= ACTIVATION_BYTES
