"""The kinds of linear layers, in the order in which they are asked."""

from __future__ import annotations

from typing import Any

from .dense import DenseLinear
from .float8 import Float8
from .kitchen_svdquant import KitchenSvdquant
from .nunchaku_awq import NunchakuAwq
from .nunchaku_svdq import NunchakuSvdq
from .opaque import Opaque
from .quantized_tensor import QuantizedTensor
from .weight_kind import WeightKind

KINDS: list[WeightKind] = [
    NunchakuSvdq(),
    NunchakuAwq(),
    KitchenSvdquant(),
    QuantizedTensor(),
    DenseLinear(),
    Float8(),
    Opaque(),
]


def kind_of(module: Any) -> WeightKind:
    """Return the first kind that recognises a layer; the last one recognises any."""
    return next(kind for kind in KINDS if kind.recognises(module))
