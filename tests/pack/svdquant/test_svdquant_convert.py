"""Converted layers in comfy-kitchen against the nunchaku double, and against dense layers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from comfy_kitchen.tensor import QuantizedTensor
from comfy_kitchen.tensor.awq_w4a16 import TensorCoreAWQW4A16Layout
from comfy_kitchen.tensor.svdquant_w4a4 import (
    TensorCoreSVDQuantW4A4Layout,
    svdquant_w4a4_can_share_quant,
)
from torch import Tensor
from torch.nn import functional
from vivace.devkit.doubles import closed_form
from vivace.devkit.doubles.nunchaku_double import (
    SVDQW4A4Linear,
    awq_weight,
    effective_bias,
    effective_weight,
    fused_gelu_mlp,
)
from vivace.devkit.doubles.nunchaku_quantize import (
    quantize_awq,
    quantize_linear,
    quantize_modulation,
)
from vivace.svdquant.convert import (
    AwqLinear,
    SvdqLinear,
    convert_awq,
    convert_svdq,
    planar_modulation,
)
from vivace.svdquant.packing import unpack_nibbles
from vivace.svdquant.state_dict_names import from_state_dict

K = 256


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def layer(n: int = 384, k: int = K, rank: int = 32, seed: int = 0, **options) -> SVDQW4A4Linear:
    weight = normal(n, k, seed=seed) / k**0.5
    return quantize_linear(weight, normal(n, seed=seed + 1), rank, seed=seed, **options)


def in_kitchen(linear: SvdqLinear) -> QuantizedTensor:
    params = TensorCoreSVDQuantW4A4Layout.Params(
        scale=linear.scale,
        orig_dtype=linear.scale.dtype,
        orig_shape=linear.shape,
        proj_down=linear.proj_down,
        proj_up=linear.proj_up,
        smooth_factor=linear.smooth_factor,
        act_unsigned=linear.act_unsigned,
    )
    return QuantizedTensor(linear.weight, "TensorCoreSVDQuantW4A4Layout", params)


def awq_in_kitchen(linear: AwqLinear) -> QuantizedTensor:
    params = TensorCoreAWQW4A16Layout.Params(
        scale=linear.scale,
        orig_dtype=linear.scale.dtype,
        orig_shape=linear.shape,
        zeros=linear.zeros,
        group_size=linear.group_size,
    )
    return QuantizedTensor(linear.weight, "TensorCoreAWQW4A16Layout", params)


def run(x: Tensor, linear: SvdqLinear) -> Tensor:
    return functional.linear(x, in_kitchen(linear), linear.bias)


def off(result: Tensor, reference: Tensor) -> float:
    """Largest error, in standard deviations of the reference."""
    return float((result - reference).abs().max() / reference.std())


@pytest.mark.parametrize(("n", "k", "rank"), [(128, 128, 16), (384, 256, 32), (256, 640, 128)])
def test_kitchen_computes_what_nunchaku_computes(n: int, k: int, rank: int) -> None:
    nunchaku = layer(n, k, rank)
    x = normal(2, 9, k, seed=5)
    converted = convert_svdq(nunchaku.state_dict())
    assert converted.shape == (n, k)
    assert off(run(x, converted), nunchaku(x)) < 1e-5


def test_kitchen_computes_what_nunchaku_computes_behind_a_gelu() -> None:
    first, second = layer(512, seed=1), layer(384, 512, seed=2, act_unsigned=True)
    x = normal(1, 20, K, seed=5)
    hidden = functional.gelu(run(x, convert_svdq(first.state_dict())), approximate="tanh")
    converted = convert_svdq(second.state_dict(), act_unsigned=True)
    assert off(run(hidden, converted), fused_gelu_mlp(x, first, second)) < 1e-5
    signed = replace(converted, act_unsigned=False)
    assert off(run(hidden, signed), fused_gelu_mlp(x, first, second)) > 1e-2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_stored_dtypes_are_kept_and_nothing_is_rounded(dtype: torch.dtype) -> None:
    nunchaku = layer(dtype=dtype)
    converted = convert_svdq(nunchaku.state_dict())
    assert converted.weight.dtype == torch.int8
    assert converted.bias is not None
    fields = {
        "wscales": converted.scale,
        "proj_down": converted.proj_down.t(),
        "proj_up": converted.proj_up,
        "smooth_factor": converted.smooth_factor,
        "bias": converted.bias,
    }
    stored = nunchaku.state_dict()
    unpacked = {
        "wscales": closed_form.unpack_scale(stored["wscales"]),
        "proj_down": closed_form.unpack_factor(stored["proj_down"], down=True),
        "proj_up": closed_form.unpack_factor(stored["proj_up"], down=False),
        "smooth_factor": closed_form.unpack_channels(stored["smooth_factor"]),
        "bias": closed_form.unpack_channels(stored["bias"]),
    }
    for name, tensor in fields.items():
        assert tensor.dtype == dtype, name
        assert torch.equal(tensor, unpacked[name]), name
    codes = closed_form.unpack_weight(stored["qweight"])
    assert torch.equal(unpack_nibbles(converted.weight, signed=False), codes.to(torch.int8))
    for tensor in (converted.weight, converted.scale, converted.proj_down, converted.proj_up):
        assert tensor.is_contiguous()  # kitchen's kernels read raw memory


def test_weights_are_the_dense_ones() -> None:
    """Each input channel alone: kitchen's output is a column of the dense weight."""
    nunchaku = layer()
    converted = convert_svdq(nunchaku.state_dict())
    identity = torch.eye(K)
    columns = run(identity, replace(converted, bias=None))
    assert off(columns, effective_weight(nunchaku).t()) < 1e-5


def test_qkv_split() -> None:
    nunchaku = layer(3 * 128)
    x = normal(1, 7, K, seed=5)
    fused = convert_svdq(nunchaku.state_dict())
    parts = [fused.rows(start, start + 128) for start in (0, 128, 256)]
    for part, reference in zip(parts, nunchaku(x).chunk(3, -1), strict=True):
        assert part.shape == (128, K)
        assert part.scale.is_contiguous()
        assert off(run(x, part), reference) < 1e-5
    assert svdquant_w4a4_can_share_quant([in_kitchen(part) for part in parts])


def test_swiglu_split_has_w3_first() -> None:
    w1, w3 = normal(256, K, seed=1) / K**0.5, normal(256, K, seed=2) / K**0.5
    fused = quantize_linear(torch.cat([w3, w1]))
    x = normal(1, 7, K, seed=5)
    value, gate = fused(x).chunk(2, -1)
    reference = functional.silu(gate) * value
    converted = convert_svdq(fused.state_dict())
    third, first = converted.rows(0, 256), converted.rows(256, 512)
    assert off(functional.silu(run(x, first)) * run(x, third), reference) < 1e-5
    assert off(run(x, first), x @ w1.t()) < 1.0
    # Negative control: the other order gives another picture.
    assert off(functional.silu(run(x, third)) * run(x, first), reference) > 1.0


def test_rows_must_be_there() -> None:
    converted = convert_svdq(layer().state_dict())
    with pytest.raises(ValueError, match="rows 300:400 among 384"):
        converted.rows(300, 400)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_awq_zeros_are_exact(dtype: torch.dtype) -> None:
    nunchaku = quantize_awq(normal(512, K) * 3, normal(512, seed=1), dtype=dtype)
    converted = convert_awq(nunchaku.state_dict())
    exact = nunchaku.wzeros.double() + 8 * nunchaku.wscales.double()
    tolerance = 0.0 if dtype != torch.float32 else 1e-7
    assert float((converted.zeros.double() - exact).abs().max()) <= tolerance
    values = unpack_nibbles(converted.weight, signed=False).double().unflatten(1, (-1, 64))
    scale, zeros = (t.double().t()[..., None] for t in (converted.scale, converted.zeros))
    weight = ((values - 8) * scale + zeros).flatten(1)
    assert float((weight - awq_weight(nunchaku).double()).abs().max()) < 1e-6 * 8


def test_awq_kitchen_computes_what_nunchaku_computes() -> None:
    nunchaku = quantize_awq(normal(512, K) / K**0.5, normal(512, seed=1))
    converted = convert_awq(nunchaku.state_dict())
    x = normal(3, K, seed=5)
    result = functional.linear(x, awq_in_kitchen(converted), converted.bias)
    assert off(result, nunchaku(x)) < 1e-5


def test_modulation_is_the_original_models() -> None:
    dim = 128
    weight, bias = normal(6 * dim, K) / K**0.5, normal(6 * dim, seed=1)
    nunchaku = quantize_modulation(weight, bias)
    converted = planar_modulation(convert_awq(nunchaku.state_dict()))
    assert converted.bias is not None
    x = normal(2, K, seed=5)
    rows = awq_weight(nunchaku).view(dim, 6, K).transpose(0, 1).reshape(6 * dim, K)
    reference = functional.linear(x, rows, bias)
    result = functional.linear(x, awq_in_kitchen(converted), converted.bias)
    assert off(result, reference) < 1e-5
    assert float((converted.bias - bias).abs().max()) < 1e-6
    # As Nunchaku's block reads its own output, whose scales carry the 1 that a stock block adds.
    planar = nunchaku(x).view(2, -1, 6).transpose(1, 2).clone()
    planar[:, [1, 4]] -= 1
    assert off(result, planar.reshape(2, -1)) < 1e-5
    # Negative controls: rows left interleaved, and the 1 left in.
    assert off(nunchaku(x), reference) > 1.0
    assert off(nunchaku(x).view(2, -1, 6).transpose(1, 2).reshape(2, -1), reference) > 0.5


def test_modulation_bias_loses_half_a_unit_at_most() -> None:
    """In 16 bits the 1 was rounded in; taking it out rounds at most once more."""
    dim = 64
    bias = normal(6 * dim, seed=1) * 0.3
    nunchaku = quantize_modulation(normal(6 * dim, K), bias, dtype=torch.bfloat16)
    converted = planar_modulation(convert_awq(nunchaku.state_dict()))
    assert converted.bias is not None
    assert nunchaku.bias is not None
    stored = nunchaku.bias.detach().double().view(dim, 6).t().clone()
    stored[[1, 4]] -= 1
    error = (converted.bias.double().view(6, dim) - stored).abs()
    assert float(error[[0, 2, 3, 5]].max()) == 0
    assert bool((error <= stored.abs() * 2**-8).all())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wcscales": torch.ones(384)}, "nvfp4 layer .* wcscales.; int4 is supported"),
        ({"wtscale": torch.ones(())}, "nvfp4 layer .* wtscale"),
        ({"proj_up": None, "smooth_factor": None}, "has no proj_up, smooth_factor"),
        ({"proj_over": torch.ones(1)}, "unknown proj_over"),
        ({"proj_up": torch.zeros(384, 48)}, r"proj_up has the shape \[384, 48\], not \[384, 32\]"),
        ({"proj_up": torch.zeros(384, 32).half()}, "proj_up is in torch.float16, but wscales"),
        ({"proj_down": torch.zeros(K, 24), "proj_up": torch.zeros(384, 24)}, "multiples of 16"),
        ({"wscales": torch.zeros(16, 384)}, r"wscales has the shape \[16, 384\], not \[4, 384\]"),
        (
            {"wscales": torch.zeros(4, 384).to(torch.float8_e4m3fn)},
            "scales in torch.float8_e4m3fn; int4 layers",
        ),
        ({"qweight": torch.zeros(384, K // 2)}, "int8, not torch.float32"),
        ({"qweight": torch.zeros(300, K // 2, dtype=torch.int8)}, r"\[300, 128\]: .* 128 and 64"),
    ],
)
def test_svdq_refusals(change: dict[str, Tensor | None], message: str) -> None:
    tensors = {**layer().state_dict(), **change}
    with pytest.raises(ValueError, match=message):
        convert_svdq({name: t for name, t in tensors.items() if t is not None})


def test_nvfp4_layers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"nvfp4 layer .* int4 is supported"):
        convert_svdq(layer(precision="nvfp4").state_dict())


def test_awq_refusals() -> None:
    tensors = quantize_awq(normal(384, K)).state_dict()
    with pytest.raises(ValueError, match="has no wzeros"):
        convert_awq({name: t for name, t in tensors.items() if name != "wzeros"})
    with pytest.raises(ValueError, match=r"wzeros has the shape \[8, 384\], not \[4, 384\]"):
        convert_awq({**tensors, "wzeros": torch.zeros(8, 384)})
    with pytest.raises(ValueError, match="a modulation without a bias"):
        planar_modulation(convert_awq(tensors))
    with pytest.raises(ValueError, match="256 outputs are not 6 equal chunks"):
        planar_modulation(convert_awq(quantize_awq(normal(256, K)).state_dict()))


def test_bias_without_a_shift_is_the_dense_one() -> None:
    bias = normal(384, seed=1)
    for unsigned in (False, True):
        made = quantize_linear(normal(384, K), bias, act_unsigned=unsigned)
        found = effective_bias(made)
        assert found is not None
        assert float((found - bias).abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        (b"[" * 5000, "a.comfy_quant is not a JSON object"),
        (b'{"format": "awq_w4a16", "group_size": 0}', "no groups of 0"),
        (b'{"format": "awq_w4a16", "group_size": "64"}', "no groups of '64'"),
        (b'{"format": "awq_w4a16"}', r"zeros has the shape \[0\]"),
        (b'{"format": "svdquant_w4a4"}', "a has no proj_down"),
    ],
)
def test_damaged_stored_layers_are_refused(marker: bytes, message: str) -> None:
    stored = {
        "a.weight": torch.zeros(128, 64, dtype=torch.int8),
        "a.weight_scale": torch.zeros(2, 128),
        "a.weight_zeros": torch.zeros(0),
        "a.comfy_quant": torch.tensor(list(marker), dtype=torch.uint8),
    }
    with pytest.raises(ValueError, match=message):
        from_state_dict(stored, "a")


def test_a_layer_of_another_format_is_left_to_comfyui() -> None:
    marker = torch.tensor(list(b'{"format": ["svdquant_w4a4"]}'), dtype=torch.uint8)
    assert from_state_dict({"a.comfy_quant": marker}, "a") is None
