"""How much memory a model needs beside its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# For activations of the vision tower and of the language model; a guess on the safe side, as both
# work in pieces.
ACTIVATION_BYTES = 2**30


def headroom_bytes(config: Mapping[str, Any], tokens: int, itemsize: int) -> int:
    """Estimate the bytes for keys and values of `tokens` tokens, and for activations.

    Args:
        config: of the model, as in its ``config.json``.
        itemsize: bytes of a number in the cache.
    """
    inner = config.get("text_config")
    text: Mapping[str, Any] = inner if isinstance(inner, Mapping) else config
    heads = _number(text, "num_attention_heads", 32)
    head_dim = _number(text, "head_dim", _number(text, "hidden_size", 4096) // max(heads, 1))
    kv_heads = _number(text, "num_key_value_heads", heads)
    layers = _number(text, "num_hidden_layers", 36)
    return ACTIVATION_BYTES + 2 * layers * kv_heads * head_dim * itemsize * tokens


def _number(config: Mapping[str, Any], name: str, default: int) -> int:
    value = config.get(name)
    return value if isinstance(value, int) else default
