"""Sizes of 4-bit layers that bitsandbytes computes wrongly, or not at all, on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .load_options import LoadError

# Of bitsandbytes 0.50: values that share a scale, and rows that are packed together.
_GROUP = 64
_ROWS = 32


def prepare_for_cpu(model: Any, path: Path) -> None:
    """Have the 4-bit layers of a model computed right on a CPU.

    With AVX512-BF16, bitsandbytes packs the weight before the first product and fails where its
    rows do not fill blocks; Qwen3.5 has a layer with one row for each head. Such layers stay as
    they are. Rows that do not fill groups come out wrong there.

    Raises:
        LoadError: the model has rows that do not fill groups.
    """
    if not getattr(model, "is_loaded_in_4bit", False):
        return
    from bitsandbytes.nn.modules import Linear4bit

    for name, layer in model.named_modules():
        if not isinstance(layer, Linear4bit):
            continue
        if layer.in_features % _GROUP:
            raise LoadError(
                f"{path}: 4-bit layers on a CPU take multiples of {_GROUP} values, and {name} "
                f"takes {layer.in_features}. Choose another quantization, or another model"
            )
        if layer.out_features % _ROWS:
            layer.support_avx512bf16_for_cpu = False
