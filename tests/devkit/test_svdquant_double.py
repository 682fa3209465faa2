"""The nunchaku double: that it computes the layer, and that it refuses what the kernels cannot."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from vivace.devkit.doubles import closed_form
from vivace.devkit.doubles.nunchaku_double import (
    AWQW4A16Linear,
    CPUOffloadManager,
    SVDQW4A4Linear,
    effective_bias,
    effective_weight,
    fused_gelu_mlp,
    fused_qkv_norm_rottary,
)
from vivace.devkit.doubles.nunchaku_quantize import quantize_awq, quantize_linear
from vivace.svdquant.lowrank_packing import append_lowrank, pack_lowrank

K = 256
PRECISIONS = ("int4", "nvfp4")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def layer(n: int = 384, k: int = K, seed: int = 0, **options) -> SVDQW4A4Linear:
    weight = normal(n, k, seed=seed) / k**0.5
    return quantize_linear(weight, normal(n, seed=seed + 1), seed=seed, **options)


def relative(result: Tensor, reference: Tensor) -> float:
    return float((result - reference).norm() / reference.norm())


def replaced(module: SVDQW4A4Linear, **tensors: Tensor) -> SVDQW4A4Linear:
    for name, tensor in tensors.items():
        setattr(module, name, nn.Parameter(tensor, requires_grad=False))
    return module


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_quantized_layer_is_about_the_dense_one(precision: str) -> None:
    weight, bias = normal(384, K) / K**0.5, normal(384, seed=1)
    made = quantize_linear(weight, bias, precision=precision)
    x = normal(2, 9, K, seed=2)
    effective, shift = effective_weight(made), effective_bias(made)
    assert relative(effective, weight) < 0.15
    assert relative(made(x), functional.linear(x, effective, shift)) < 0.15  # 4-bit activations
    dense = quantize_linear(normal(384, 32) @ normal(32, K, seed=1), precision=precision)
    exact = effective_weight(dense)
    assert relative(dense(x), x @ exact.t()) < 1e-5  # all of it in the low-rank branch


@pytest.mark.parametrize("precision", PRECISIONS)
def test_appended_ranks_add_exactly(precision: str) -> None:
    made = layer(precision=precision)
    x = normal(1, 9, K, seed=2)
    base = made(x)
    a, b = normal(16, K, seed=3) / K**0.5, normal(384, 16, seed=4)
    replaced(
        made,
        proj_down=append_lowrank(made.proj_down, pack_lowrank(a, down=True)),
        proj_up=append_lowrank(made.proj_up, pack_lowrank(b, down=False)),
    )
    assert relative(made(x) - base, x @ a.t() @ b.t()) < 1e-5


def test_naive_concatenation_is_wrong() -> None:
    made = layer()
    x = normal(1, 9, K, seed=2)
    base = made(x)
    a, b = normal(16, K, seed=3) / K**0.5, normal(384, 16, seed=4)
    replaced(
        made,
        proj_down=torch.cat([made.proj_down, pack_lowrank(a, down=True)], 1),
        proj_up=torch.cat([made.proj_up, pack_lowrank(b, down=False)], 1),
    )
    assert relative(made(x) - base, x @ a.t() @ b.t()) > 0.5


@pytest.mark.parametrize("precision", PRECISIONS)
def test_fused_mlp_bypasses_forward(precision: str) -> None:
    first = layer(512, precision=precision)
    second = layer(384, 512, seed=1, precision=precision, act_unsigned=precision == "int4")
    calls: list[nn.Module] = []
    for module in (first, second):
        module.register_forward_hook(lambda module, *_: calls.append(module))
    x = normal(2, 9, K, seed=2)
    result = fused_gelu_mlp(x, first, second)
    hidden = functional.linear(x, effective_weight(first), effective_bias(first))
    hidden = functional.gelu(hidden, approximate="tanh")
    reference = functional.linear(hidden, effective_weight(second), effective_bias(second))
    assert relative(result, reference) < 0.15
    assert calls == []
    first(x)
    assert calls == [first]


def test_fused_qkv_norms_rotates_and_bypasses_forward() -> None:
    proj = layer(3 * 256)
    calls: list[nn.Module] = []
    proj.register_forward_hook(lambda module, *_: calls.append(module))
    x = normal(1, 5, K, seed=2)
    norms = [nn.RMSNorm(128, eps=1e-6) for _ in range(2)]
    angle = normal(5, 64, seed=3)
    rotary = torch.stack([angle.sin(), angle.cos()], -1)
    with torch.no_grad():
        result = fused_qkv_norm_rottary(x, proj, norms[0], norms[1], rotary)
    assert calls == []
    plain = proj(x)[0].view(5, 3, 2, 128)
    turned = torch.view_as_complex(norms[0](plain[:, 0]).detach().unflatten(-1, (-1, 2)))
    turned = torch.view_as_real(turned * torch.exp(1j * angle)[:, None]).flatten(-2)
    parts = result[0].view(5, 3, 2, 128)
    assert relative(parts[:, 0], turned) < 1e-5
    assert torch.equal(parts[:, 2], plain[:, 2])
    assert torch.equal(fused_qkv_norm_rottary(x, proj), proj(x))


def test_forward_writes_to_the_given_output_and_to_nothing_else() -> None:
    made = layer()
    x = normal(1, 9, K, seed=2)
    before = x.clone(), {name: t.clone() for name, t in made.state_dict().items()}
    output = torch.zeros(9, 384)
    result = made(x, output)
    assert torch.equal(output, made(x)[0])
    assert torch.equal(result[0], output)
    assert torch.equal(x, before[0])
    assert all(torch.equal(t, before[1][name]) for name, t in made.state_dict().items())


def test_state_dict_has_the_published_tensors() -> None:
    linear = nn.Linear(K, 384, dtype=torch.bfloat16)
    made = SVDQW4A4Linear.from_linear(linear, rank=48)
    assert {name: (tuple(t.shape), t.dtype) for name, t in made.state_dict().items()} == {
        "qweight": ((384, 128), torch.int8),
        "bias": ((384,), torch.bfloat16),
        "wscales": ((4, 384), torch.bfloat16),
        "smooth_factor": ((256,), torch.bfloat16),
        "smooth_factor_orig": ((256,), torch.bfloat16),
        "proj_down": ((256, 48), torch.bfloat16),
        "proj_up": ((384, 48), torch.bfloat16),
    }
    modulation = AWQW4A16Linear.from_linear(linear, rank=48, torch_dtype=torch.bfloat16)
    assert {name: (tuple(t.shape), t.dtype) for name, t in modulation.state_dict().items()} == {
        "qweight": ((96, 128), torch.int32),
        "bias": ((384,), torch.bfloat16),
        "wscales": ((4, 384), torch.bfloat16),
        "wzeros": ((4, 384), torch.bfloat16),
    }
    with pytest.raises(ValueError, match="Invalid precision: fp8"):
        SVDQW4A4Linear(K, 384, precision="fp8")


X = normal(1, 4, K)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: layer()(X[0]), r"must be \[B, S, K\]"),
        (lambda: layer()(X.bfloat16()), "bfloat16 input, torch.float32 factors"),
        (lambda: replaced(layer(), proj_up=normal(384, 48))(X), "ranks differ: 32 down, 48 up"),
        (
            lambda: replaced(layer(), proj_up=normal(384, 40), proj_down=normal(K, 40))(X),
            "rank 40 is not a multiple of 16",
        ),
        (
            lambda: replaced(layer(), proj_up=normal(384, 1040), proj_down=normal(K, 1040))(X),
            "rank 1040 is more than 1024",
        ),
        (
            lambda: replaced(layer(), proj_down=normal(32, K).t())(X),
            "proj_down is not contiguous",
        ),
        (
            lambda: replaced(layer(), proj_up=normal(384, 32).bfloat16())(X),
            "proj_up is torch.bfloat16, not torch.float32",
        ),
        (
            lambda: replaced(layer(precision="nvfp4"), proj_up=normal(384, 32).bfloat16())(X),
            "proj_up is torch.bfloat16, not torch.float32",
        ),
        (lambda: layer(act_unsigned=True)(X), "only for fused_gelu_mlp"),
        (
            lambda: fused_gelu_mlp(X, layer(512), layer(384, 512)),
            "writes unsigned int4",
        ),
        (
            lambda: fused_gelu_mlp(X, layer(512), layer(384, 512, precision="nvfp4")),
            "int4 into nvfp4",
        ),
        (lambda: fused_gelu_mlp(X[0], layer(), layer()), r"must be \[B, S, K\]"),
        (lambda: quantize_awq(normal(384, K))(normal(9, K)), "1 to 8 rows, not 9"),
        (lambda: quantize_awq(normal(384, K))(X), r"must be \[M, K\]"),
        (lambda: quantize_awq(normal(384, K))(normal(2, K).half()), "wscales is torch.float32"),
    ],
)
def test_what_the_kernels_cannot_do_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        call()


def test_ranks_of_the_layers_of_an_mlp_may_differ() -> None:
    first, second = layer(512), layer(384, 512, seed=1, rank=64, act_unsigned=True)
    assert fused_gelu_mlp(X, first, second).shape == (1, 4, 384)


def test_a_wrongly_packed_factor_shows() -> None:
    made = layer()
    right = made(X)
    down = closed_form.unpack_factor(made.proj_down, down=True)
    replaced(made, proj_down=down.t().contiguous())
    assert relative(made(X), right) > 0.1


def test_offload_runs_every_block_from_two_buffers() -> None:
    blocks = [nn.Sequential(layer(seed=i)) for i in range(5)]
    manager = CPUOffloadManager(blocks)
    for _ in range(2):
        for block in blocks:
            running = manager.get_block()
            assert torch.equal(running(X), block(X))
            assert running is block or running in list(manager.buffer_blocks)
            manager.step()
    assert manager.get_block(0) is blocks[0]
    assert manager.get_block(3) is manager.buffer_blocks[1]


def test_offload_needs_equal_ranks() -> None:
    linears = [layer(seed=i) for i in range(3)]
    manager = CPUOffloadManager([nn.Sequential(linear) for linear in linears])
    replaced(linears[1], proj_down=normal(K, 48), proj_up=normal(384, 48))
    with pytest.raises(RuntimeError, match="must match"):
        manager.step()
