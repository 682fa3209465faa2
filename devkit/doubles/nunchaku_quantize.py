"""Layers of the Nunchaku double made from dense weights."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from . import closed_form
from .nunchaku_double import (
    GELU_SHIFT,
    AWQW4A16Linear,
    SVDQW4A4Linear,
    encode_fp4,
    residual_weight,
)


@torch.no_grad()
def quantize_linear(
    weight: Tensor,
    bias: Tensor | None = None,
    rank: int = 32,
    *,
    precision: str = "int4",
    act_unsigned: bool = False,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> SVDQW4A4Linear:
    """Make a layer from a dense weight ``[N, K]`` and bias ``[N]``.

    The low-rank branch takes about the largest `rank` directions of the weight (by one power
    iteration, so that full-size layers take no minutes), the rest is rounded by groups. The
    smoothing is arbitrary, but not 1, so that forgetting it shows.
    """
    n, k = weight.shape
    layer = SVDQW4A4Linear(k, n, rank, bias is not None, precision, act_unsigned, dtype)
    generator = torch.Generator().manual_seed(seed)
    weight = weight.float()
    basis = torch.randn(k, rank, generator=generator)
    up = torch.linalg.qr(weight @ (weight.t() @ (weight @ basis)))[0]
    down = up.t() @ weight
    up, down = up.to(dtype), down.to(dtype)
    smooth = (0.5 + torch.rand(k, generator=generator)).to(dtype)
    residual = (weight - up.float() @ down.float()) * smooth.float()
    groups = residual.unflatten(1, (-1, layer.group_size))
    largest = groups.abs().amax(-1).clamp(min=1e-6)
    if precision == "int4":
        scales = (largest / 7).to(dtype)
        codes = (groups / scales.float()[..., None]).round().clamp(-7, 7)
        packed = closed_form.pack_scale(scales.t())
    else:
        channel = largest.amax(-1).to(dtype)
        cast("nn.Parameter", layer.wcscales).copy_(closed_form.pack_channels(channel))
        scales = (largest / channel.float()[:, None] / 6).to(torch.float8_e4m3fn)
        exact = scales.float().clamp(min=2**-9) * channel.float()[:, None]
        codes = encode_fp4(groups / exact[..., None])
        positions = closed_form.micro_scale_positions(*scales.t().shape)
        packed = closed_form.scatter(scales.view(torch.uint8).t(), positions)
        packed = packed.view(torch.float8_e4m3fn).view(-1, n)
    layer.qweight.copy_(closed_form.pack_weight(codes.flatten(1)))
    layer.wscales.copy_(packed)
    layer.smooth_factor.copy_(closed_form.pack_channels(smooth))
    layer.smooth_factor_orig.copy_(layer.smooth_factor)
    layer.proj_down.copy_(closed_form.pack_factor(down, down=True))
    layer.proj_up.copy_(closed_form.pack_factor(up, down=False))
    if bias is not None and layer.bias is not None:
        corrected = bias.float()
        if act_unsigned:
            corrected = corrected - GELU_SHIFT * (residual_weight(layer) / smooth.float()).sum(1)
        layer.bias.copy_(closed_form.pack_channels(corrected.to(dtype)))
    return layer


@torch.no_grad()
def quantize_awq(
    weight: Tensor, bias: Tensor | None = None, *, dtype: torch.dtype = torch.float32
) -> AWQW4A16Linear:
    """Make an AWQ layer from a dense weight, rows as they are."""
    n, k = weight.shape
    layer = AWQW4A16Linear(k, n, bias is not None, torch_dtype=dtype)
    groups = weight.float().unflatten(1, (-1, 64))
    scales = (groups.abs().amax(-1).clamp(min=1e-6) / 7).to(dtype)
    values = (groups / scales.float()[..., None]).round().clamp(-7, 8) + 7
    layer.qweight.copy_(closed_form.pack_awq(values.flatten(1)))
    layer.wscales.copy_(scales.t())
    layer.wzeros.copy_((-7 * scales.float()).to(dtype).t())
    if bias is not None and layer.bias is not None:
        layer.bias.copy_(bias)
    return layer


def quantize_modulation(
    weight: Tensor, bias: Tensor, *, dtype: torch.dtype = torch.float32
) -> AWQW4A16Linear:
    """Make a modulation layer of Nunchaku's Qwen-Image from one of the original model.

    Row ``c * dim + d`` becomes row ``d * 6 + c``, and the bias of the scales (c = 1 and 4) grows
    by 1.
    """
    chunks = bias.float().clone().view(6, -1)
    chunks[1] += 1
    chunks[4] += 1
    rows = weight.view(6, -1, weight.shape[1]).transpose(0, 1).reshape(weight.shape)
    return quantize_awq(rows, chunks.t().reshape(-1), dtype=dtype)
