"""The layers of the transformer, and what computes the last one of an MLP without a call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import comfy.ops
import comfy.quant_ops
import comfy.rmsnorm
import torch
from comfy.ldm.flux.layers import timestep_embedding
from comfy.ldm.lightricks.model import TimestepEmbedding
from torch import Tensor, nn
from torch.nn import functional

from ....wrappers.targets.layered_class import GUARD

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
_EPS = 1e-6
_TIMES = 256


class Computed:
    """How often the last layer of an MLP was computed without being called."""

    count = 0


def fused_output(layer: Any, gate_and_up: Tensor) -> Tensor:
    """`layer(silu(gate) * up)`, as ``comfy.ops.linear_input_act`` computes it of the weights that
    it is made for: without a call, unless the layer asks for full precision."""
    gate, up = gate_and_up.chunk(2, dim=-1)
    x = functional.silu(gate) * up
    if getattr(layer, GUARD, False):
        return layer(x)
    Computed.count += 1
    weight, bias, stream = comfy.ops.cast_bias_weight(layer, x, offloadable=True)
    whole: Any = weight.dequantize() if hasattr(weight, "_layout_cls") else weight
    y = functional.linear(x, whole.to(x.dtype), bias)
    comfy.ops.uncast_bias_weight(layer, weight, bias, stream)
    return y


class _ZeroCenteredNorm(nn.Module):
    """An RMS norm whose weight is kept as the scale minus 1."""

    def __init__(self, size: int, **made: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size, **made))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight.to(x.device, torch.float32) + 1
        return comfy.rmsnorm.rms_norm(x.float(), scale, _EPS).to(x.dtype)


class TextLayers(nn.Module):
    """Of the text: `[B, n, text]` to `[B, n, hidden]`."""

    def __init__(self, text: int, hidden: int, operations: Any, **made: Any) -> None:
        super().__init__()
        self.text_norm = _ZeroCenteredNorm(text, **made)
        self.in_layer = operations.Linear(text, hidden, bias=False, **made)
        self.out_layer = operations.Linear(hidden, hidden, bias=False, **made)

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.gelu(self.in_layer(self.text_norm(x)), approximate="tanh")
        return self.out_layer(inner)


class TimeLayers(nn.Module):
    """Of the time: `[B]` to `[B, hidden]`."""

    def __init__(self, hidden: int, operations: Any, **made: Any) -> None:
        super().__init__()
        self.timestep_embedder = TimestepEmbedding(
            _TIMES, hidden, sample_proj_bias=False, operations=operations, **made
        )

    def forward(self, t: Tensor) -> Tensor:
        return self.timestep_embedder(timestep_embedding(t.float(), _TIMES).to(t.dtype))


class _Mlp(nn.Module):
    def __init__(self, hidden: int, inner: int, fused: bool, operations: Any, **made: Any) -> None:
        super().__init__()
        if fused:
            self.gate_up = operations.Linear(hidden, 2 * inner, bias=False, **made)
        else:
            self.proj = operations.Linear(hidden, inner, bias=False, **made)
            self.gate_layer = operations.Linear(hidden, inner, bias=False, **made)
        self.out = operations.Linear(inner, hidden, bias=False, **made)

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, "gate_up"):
            return fused_output(self.out, self.gate_up(x))
        return self.out(functional.silu(self.gate_layer(x)) * self.proj(x))


class _Attention(nn.Module):
    def __init__(self, hidden: int, heads: int, operations: Any, **made: Any) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = operations.Linear(hidden, hidden, bias=False, **made)
        self.to_k = operations.Linear(hidden, hidden, bias=False, **made)
        self.to_v = operations.Linear(hidden, hidden, bias=False, **made)
        self.to_out = nn.ModuleList([operations.Linear(hidden, hidden, bias=False, **made)])
        self.norm_q = operations.RMSNorm(hidden // heads, eps=_EPS, **made)
        self.norm_k = operations.RMSNorm(hidden // heads, eps=_EPS, **made)

    def forward(self, x: Tensor, pe: Tensor, attend: Attend) -> Tensor:
        shape = (*x.shape[:2], self.heads, -1)
        q, k, v = (layer(x).view(shape) for layer in (self.to_q, self.to_k, self.to_v))
        norms = (self.norm_q, self.norm_k)
        held: list[Any] = [comfy.ops.cast_bias_weight(n, q, offloadable=True) for n in norms]
        q, k = comfy.quant_ops.ck.rms_rope(q, k, pe, held[0][0], held[1][0], _EPS)
        for norm, (scale, _, stream) in zip(norms, held, strict=True):
            comfy.ops.uncast_bias_weight(norm, scale, None, stream)
        return self.to_out[0](attend(q, k, v))


class BlockLayers(nn.Module):
    """A block: `[B, n, hidden]` to the same; the first `prefix` of the tokens are at time 0."""

    def __init__(
        self, hidden: int, heads: int, inner: int, fused: bool, operations: Any, **made: Any
    ) -> None:
        super().__init__()
        self.attn = _Attention(hidden, heads, operations, **made)
        self.img_mlp = _Mlp(hidden, inner, fused, operations, **made)

    def forward(
        self, x: Tensor, modulation: Sequence[Tensor], pe: Tensor, attend: Attend, prefix: int
    ) -> Tensor:
        scale1, gate1, scale2, gate2 = modulation
        x = _gated(x, self.attn(_modulated(x, scale1, prefix), pe, attend), gate1, prefix)
        return _gated(x, self.img_mlp(_modulated(x, scale2, prefix)), gate2, prefix)


def _by_row(values: Tensor, rows: int, prefix: int) -> Tensor:
    """`values` has a row for each sample and a last one for time 0, which is that of the prefix."""
    first = values[-1:].expand(len(values) - 1, -1).unsqueeze(1).expand(-1, prefix, -1)
    return torch.cat([first, values[:-1].unsqueeze(1).expand(-1, rows - prefix, -1)], dim=1)


def _modulated(x: Tensor, scale: Tensor, prefix: int) -> Tensor:
    scales = _by_row(scale, x.shape[1], prefix)
    return comfy.quant_ops.ck.adaln(x, scales, torch.zeros_like(scales), _EPS)


def _gated(x: Tensor, y: Tensor, gate: Tensor, prefix: int) -> Tensor:
    return torch.addcmul(x, y, _by_row(gate, x.shape[1], prefix))


class LastLayers(nn.Module):
    """The norm of the output, which the time scales."""

    def __init__(self, hidden: int, operations: Any, **made: Any) -> None:
        super().__init__()
        self.linear = operations.Linear(hidden, hidden, bias=False, **made)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale = self.linear(functional.silu(time)).unsqueeze(1)
        return comfy.quant_ops.ck.adaln(x, scale, torch.zeros_like(scale), _EPS)
