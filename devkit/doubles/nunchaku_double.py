"""A strict stand-in for the nunchaku package, in plain torch.

The classes have the attributes, shapes, dtypes and packings of Nunchaku 1.3 and compute what its
kernels compute, from the packed tensors. What the real kernels would answer with a crash, or with a
wrong picture, is an `AssertionError` here. In two things it is laxer: it also computes in float32,
so that tests can be exact, and rotary embeddings come unpacked.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import closed_form

MAX_RANK = 1024
GELU_SHIFT = 0.171875
FP4_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)

_DECODED = "_decoded"

Activation = tuple[Tensor, Tensor, Tensor]


class SVDQW4A4Linear(nn.Module):
    """``nunchaku.models.linear.SVDQW4A4Linear``."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int = 32,
        bias: bool = True,
        precision: str = "int4",
        act_unsigned: bool = False,
        torch_dtype: torch.dtype = torch.bfloat16,
        device: str | torch.device | None = None,
    ) -> None:
        super().__init__()
        if precision not in ("int4", "nvfp4"):
            raise ValueError(f"Invalid precision: {precision}")
        self.in_features = in_features
        self.out_features = out_features
        self.rank = rank
        self.precision = precision
        self.torch_dtype = torch_dtype
        self.group_size = 64 if precision == "int4" else 16
        self.act_unsigned = act_unsigned
        self.wtscale: float | None = None if precision == "int4" else 1.0

        def parameter(*shape: int, dtype: torch.dtype = torch_dtype) -> nn.Parameter:
            empty = torch.empty(shape, dtype=dtype, device=device or "cpu")
            return nn.Parameter(empty, requires_grad=False)

        groups = in_features // self.group_size
        scale_dtype = torch_dtype if precision == "int4" else torch.float8_e4m3fn
        self.qweight = parameter(out_features, in_features // 2, dtype=torch.int8)
        self.bias = parameter(out_features) if bias else None
        self.wscales = parameter(groups, out_features, dtype=scale_dtype)
        self.smooth_factor = parameter(in_features)
        self.smooth_factor_orig = parameter(in_features)
        self.proj_down = parameter(in_features, rank)
        self.proj_up = parameter(out_features, rank)
        self.wcscales = parameter(out_features) if precision == "nvfp4" else None

    @classmethod
    def from_linear(cls, linear: nn.Linear, **options: Any) -> SVDQW4A4Linear:
        """A layer of the same size, with no values yet."""
        options.setdefault("torch_dtype", linear.weight.dtype)
        in_features = options.pop("in_features", linear.in_features)
        bias = linear.bias is not None
        return cls(
            in_features, linear.out_features, bias=bias, device=linear.weight.device, **options
        )

    def forward(self, x: Tensor, output: Tensor | None = None) -> Tensor:
        """``[B, S, K]`` to ``[B, S, N]``."""
        assert x.dim() == 3, f"input must be [B, S, K], is {list(x.shape)}"
        rows = x.reshape(-1, x.shape[2])
        result = self.forward_quant(*self.quantize(rows), output)
        return result[: len(rows)].reshape(*x.shape[:2], self.out_features)

    def quantize(self, x: Tensor, pad_size: int = 256) -> Activation:
        """``[M, K]`` to nibbles ``[M', K/2]``, scales ``[K/group, M']``, low-rank ``[M', R]``."""
        assert not self.act_unsigned, "reads unsigned activations: only for fused_gelu_mlp"
        return self._quantize(x, 0.0, unsigned=False, pad_size=pad_size)

    def _quantize(self, x: Tensor, shift: float, *, unsigned: bool, pad_size: int) -> Activation:
        self._check()
        assert x.dim() == 2, f"input must be [M, K], is {list(x.shape)}"
        assert x.shape[1] == self.in_features
        assert x.dtype == self.proj_down.dtype, f"{x.dtype} input, {self.proj_down.dtype} factors"
        assert x.is_contiguous()
        down = closed_form.unpack_factor(self.proj_down.detach(), down=True)
        low = x.float() @ down.float().t()  # of the input itself: not smoothed, not shifted
        smooth = closed_form.unpack_channels(self.smooth_factor.detach())
        groups = ((x + shift) / smooth).unflatten(1, (-1, self.group_size))
        codes, scales = _encode(groups, self.precision, unsigned)
        pad = -len(x) % pad_size
        packed = closed_form.from_nibbles(codes).view(len(x), -1)
        scales = functional.pad(scales, (0, 0, 0, pad)).t().contiguous()
        if self.precision == "nvfp4":
            scales = scales.to(torch.float8_e4m3fn)
        return functional.pad(packed, (0, 0, 0, pad)), scales, functional.pad(low, (0, 0, 0, pad))

    def forward_quant(
        self, quantized_x: Tensor, ascales: Tensor, lora_act: Tensor, output: Tensor | None = None
    ) -> Tensor:
        """The product with a quantized activation, ``[M', N]``."""
        self._check()
        assert quantized_x.dtype == torch.uint8
        assert lora_act.dtype == torch.float32
        assert lora_act.shape == (len(quantized_x), self.proj_up.shape[1])
        codes = closed_form.nibbles(quantized_x).view(len(quantized_x), -1, self.group_size)
        x = _decode(codes, self.precision, self.act_unsigned) * ascales.t().float()[..., None]
        result = x.flatten(1) @ residual_weight(self).float().t()
        up = closed_form.unpack_factor(self.proj_up.detach(), down=False)
        if self.bias is not None:
            result += closed_form.unpack_channels(self.bias.detach()).float()
        result = (result + lora_act @ up.float().t()).to(self.proj_up.dtype)
        if output is None:
            return result
        assert output.dtype == result.dtype
        assert output.shape[1:] == result.shape[1:]
        return output.copy_(result[: len(output)])

    def _check(self) -> None:
        """Refuse what the kernels cannot run, or would run wrongly."""
        ranks = (self.proj_down.shape[1], self.proj_up.shape[1])
        assert ranks[0] == ranks[1], f"ranks differ: {ranks[0]} down, {ranks[1]} up"
        assert ranks[0] % 16 == 0, f"rank {ranks[0]} is not a multiple of 16"
        assert ranks[0] <= MAX_RANK, f"rank {ranks[0]} is more than {MAX_RANK}"
        assert self.proj_down.shape[0] == self.in_features
        assert self.proj_up.shape[0] == self.out_features
        assert self.in_features % 128 == 0
        assert self.out_features % 128 == 0
        tensors = dict(self.named_parameters())
        for name, tensor in tensors.items():
            assert tensor.is_contiguous(), f"{name} is not contiguous"
            assert tensor.device == self.qweight.device, f"{name} is on {tensor.device}"
        fixed = {"qweight": torch.int8}
        if self.precision == "nvfp4":
            fixed["wscales"] = torch.float8_e4m3fn
        for name, tensor in tensors.items():
            dtype = fixed.get(name, self.smooth_factor.dtype)
            assert tensor.dtype == dtype, f"{name} is {tensor.dtype}, not {dtype}"
        assert self.precision == "nvfp4" or self.wtscale is None, "int4 has no wtscale"


class AWQW4A16Linear(nn.Module):
    """``nunchaku.models.linear.AWQW4A16Linear``."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        group_size: int = 64,
        torch_dtype: torch.dtype = torch.bfloat16,
        device: str | torch.device | None = None,
    ) -> None:
        super().__init__()
        assert group_size == 64, "the kernel knows groups of 64 only"
        self.in_features = in_features
        self.out_features = out_features
        self.group_size = group_size

        def parameter(*shape: int, dtype: torch.dtype = torch_dtype) -> nn.Parameter:
            empty = torch.empty(shape, dtype=dtype, device=device or "cpu")
            return nn.Parameter(empty, requires_grad=False)

        groups = in_features // group_size
        self.qweight = parameter(out_features // 4, in_features // 2, dtype=torch.int32)
        self.bias = parameter(out_features) if bias else None
        self.wscales = parameter(groups, out_features)
        self.wzeros = parameter(groups, out_features)

    @classmethod
    def from_linear(cls, linear: nn.Linear, **options: Any) -> AWQW4A16Linear:
        """A layer of the same size, with no values yet. Options of `SVDQW4A4Linear` are dropped."""
        kept = {name: options[name] for name in ("group_size", "torch_dtype") if name in options}
        return cls(linear.in_features, linear.out_features, linear.bias is not None, **kept)

    def forward(self, x: Tensor) -> Tensor:
        """``[M, K]`` to ``[M, N]``, for at most 8 rows."""
        assert x.dim() == 2, f"input must be [M, K], is {list(x.shape)}"
        assert 1 <= len(x) <= 8, f"the kernel takes 1 to 8 rows, not {len(x)}"
        assert x.is_contiguous()
        for name, tensor in self.named_parameters():
            assert tensor.is_contiguous(), f"{name} is not contiguous"
            assert name == "qweight" or tensor.dtype == x.dtype, f"{name} is {tensor.dtype}"
        result = (x.float() @ awq_weight(self).float().t()).to(x.dtype)
        return result if self.bias is None else result + self.bias


def fused_gelu_mlp(
    x: Tensor, fc1: SVDQW4A4Linear, fc2: SVDQW4A4Linear, pad_size: int = 256
) -> Tensor:
    """``nunchaku.ops.fused.fused_gelu_mlp``; calls the forward of neither layer."""
    assert x.dim() == 3, f"input must be [B, S, K], is {list(x.shape)}"
    assert fc1.precision == fc2.precision, f"{fc1.precision} into {fc2.precision}"
    assert fc2.act_unsigned == (fc2.precision == "int4"), "the epilogue writes unsigned int4"
    rows = x.view(-1, x.shape[2])
    hidden = fc1.forward_quant(*fc1.quantize(rows))[: len(rows)]
    hidden = functional.gelu(hidden, approximate="tanh")
    shift = GELU_SHIFT if fc2.act_unsigned else 0.0
    quantized = fc2._quantize(hidden, shift, unsigned=fc2.act_unsigned, pad_size=pad_size)
    return fc2.forward_quant(*quantized)[: len(rows)].view(*x.shape[:2], -1)


def fused_qkv_norm_rottary(
    x: Tensor,
    proj: SVDQW4A4Linear,
    norm_q: nn.Module | None = None,
    norm_k: nn.Module | None = None,
    rotary_emb: Tensor | None = None,
) -> Tensor:
    """``nunchaku.ops.fused.fused_qkv_norm_rottary``; does not call the forward of `proj`.

    `rotary_emb` is ``[B * S, head / 2, 2]`` with (sin, cos) for each pair of neighbouring channels,
    not in Nunchaku's packed form; it needs both norms, as in the kernel.
    """
    assert x.dim() == 3, f"input must be [B, S, K], is {list(x.shape)}"
    rows = x.view(-1, x.shape[2])
    output = proj.forward_quant(*proj.quantize(rows))[: len(rows)]
    parts = list(output.unflatten(1, (3, -1, 128)).unbind(1))
    for i, norm in enumerate((norm_q, norm_k)):
        if norm is not None:
            parts[i] = norm(parts[i])
    if rotary_emb is not None:
        assert norm_q is not None
        assert norm_k is not None
        parts[:2] = [_rotate(part, rotary_emb) for part in parts[:2]]
    return torch.stack(parts, 1).view(*x.shape[:2], -1)


def _rotate(heads: Tensor, angles: Tensor) -> Tensor:
    assert angles.dtype == torch.float32
    even, odd = heads.float().unflatten(-1, (-1, 2)).unbind(-1)
    sin, cos = angles[:, None].unbind(-1)
    rotated = torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1)
    return rotated.flatten(-2).to(heads.dtype)


class CPUOffloadManager:
    """``nunchaku.models.utils.CPUOffloadManager``, without streams and on any device.

    Blocks beyond the first `num_blocks_on_gpu` run in one of two copies of block 0, into which
    their parameters and buffers are copied by position.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        device: str = "cpu",
        num_blocks_on_gpu: int = 1,
        use_pin_memory: bool = False,
    ) -> None:
        assert num_blocks_on_gpu > 0
        self.use_pin_memory = use_pin_memory
        self.blocks = blocks
        self.device = torch.device(device)
        self.num_blocks_on_gpu = num_blocks_on_gpu
        self.buffer_blocks = [deepcopy(blocks[0]).to(self.device) for _ in range(2)]
        self.current_block_idx = 0

    def set_device(self, device: str | torch.device, force: bool = False) -> None:
        """Move the copies."""
        self.device = torch.device(device)
        for block in self.buffer_blocks:
            block.to(self.device)

    def load_block(self, block_idx: int) -> None:
        """Copy a block into its buffer, unless it stays on the device."""
        if self.num_blocks_on_gpu <= block_idx < len(self.blocks):
            copy_params_into(self.blocks[block_idx], self.buffer_blocks[block_idx % 2])

    def step(self) -> None:
        """Go on to the next block."""
        self.load_block(self.current_block_idx + 1)
        self.current_block_idx = (self.current_block_idx + 1) % len(self.blocks)

    def get_block(self, block_idx: int | None = None) -> nn.Module:
        """The module that runs for a block."""
        index = self.current_block_idx if block_idx is None else block_idx
        on_device = index < self.num_blocks_on_gpu
        return self.blocks[index] if on_device else self.buffer_blocks[index % 2]


@torch.no_grad()
def copy_params_into(source: nn.Module, target: nn.Module) -> None:
    """``nunchaku.utils.copy_params_into``: by position, so shapes must be equal."""
    for one, other in zip(source.parameters(), target.parameters(), strict=True):
        other.copy_(one)
    for one, other in zip(source.buffers(), target.buffers(), strict=True):
        other.copy_(one)
    for one, other in zip(source.modules(), target.modules(), strict=True):
        other.__dict__.pop(_DECODED, None)
        if isinstance(one, SVDQW4A4Linear):
            cast("SVDQW4A4Linear", other).wtscale = one.wtscale


def append(layer: SVDQW4A4Linear, down: Tensor, up: Tensor) -> None:
    """Append ranks as ComfyUI-nunchaku's own LoRA support does: unpack, join, pack."""
    old = (layer.proj_down.detach(), layer.proj_up.detach())
    downs = torch.cat([closed_form.unpack_factor(old[0], down=True), down.to(old[0].dtype)])
    ups = torch.cat([closed_form.unpack_factor(old[1], down=False), up.to(old[1].dtype)], 1)
    layer.proj_down = nn.Parameter(closed_form.pack_factor(downs, down=True), requires_grad=False)
    layer.proj_up = nn.Parameter(closed_form.pack_factor(ups, down=False), requires_grad=False)


def residual_weight(layer: SVDQW4A4Linear) -> Tensor:
    """What the quantized part multiplies the smoothed input with, ``[N, K]`` in float32."""
    decoded = layer.__dict__.get(_DECODED)  # decoding takes longer than the product
    if decoded is not None and decoded[0] is layer.qweight:
        return decoded[1]
    codes = closed_form.unpack_weight(layer.qweight.detach())
    scales = layer.wscales.detach()
    if layer.precision == "int4":
        scales = closed_form.unpack_scale(scales)
    else:
        positions = closed_form.micro_scale_positions(*scales.shape)
        scales = closed_form.gather(scales.view(torch.uint8), positions).view(torch.float8_e4m3fn)
    groups = _decode(codes, layer.precision, unsigned=False).unflatten(1, (-1, layer.group_size))
    weight = (groups * scales.t().float()[..., None]).flatten(1)
    if layer.wtscale is not None:
        weight *= layer.wtscale
    if layer.wcscales is not None:
        weight *= closed_form.unpack_channels(layer.wcscales.detach()).float()[:, None]
    layer.__dict__[_DECODED] = layer.qweight, weight
    return weight


def effective_weight(layer: SVDQW4A4Linear) -> Tensor:
    """The dense weight that the layer stands for, in float32: what it computes, but for the
    rounding of its input."""
    smooth = closed_form.unpack_channels(layer.smooth_factor.detach()).float()
    down = closed_form.unpack_factor(layer.proj_down.detach(), down=True).float()
    up = closed_form.unpack_factor(layer.proj_up.detach(), down=False).float()
    return residual_weight(layer) / smooth + up @ down


def effective_bias(layer: SVDQW4A4Linear) -> Tensor | None:
    """The bias that belongs to `effective_weight`, in float32."""
    if layer.bias is None:
        return None
    bias = closed_form.unpack_channels(layer.bias.detach()).float()
    if not layer.act_unsigned:
        return bias
    smooth = closed_form.unpack_channels(layer.smooth_factor.detach()).float()
    return bias + GELU_SHIFT * (residual_weight(layer) / smooth).sum(1)


def awq_weight(layer: AWQW4A16Linear) -> Tensor:
    """The dense weight of an AWQ layer, ``[N, K]`` in float32."""
    values = closed_form.unpack_awq(layer.qweight.detach()).float().unflatten(1, (-1, 64))
    scales, zeros = (t.detach().float().t()[..., None] for t in (layer.wscales, layer.wzeros))
    return (values * scales + zeros).flatten(1)


def _encode(groups: Tensor, precision: str, unsigned: bool) -> tuple[Tensor, Tensor]:
    """Quantize ``[M, groups, size]``: codes of that shape, and scales ``[M, groups]``."""
    largest = groups.abs().amax(-1).clamp(min=1e-10)
    if precision == "nvfp4":
        scales = (largest.float() / 6).to(torch.float8_e4m3fn).float().clamp(min=2**-9)
        return encode_fp4(groups.float() / scales[..., None]), scales
    scales = largest / (15 if unsigned else 7)
    codes = (groups / scales[..., None]).round()
    codes = codes.clamp(0, 15) if unsigned else codes.clamp(-7, 7)
    return codes.to(torch.int16), scales


def encode_fp4(values: Tensor) -> Tensor:
    """The nearest fp4 codes, 0..15."""
    magnitudes = torch.tensor(FP4_MAGNITUDES)
    nearest = (values.abs()[..., None] - magnitudes).abs().argmin(-1)
    return (nearest + 8 * (values < 0)).to(torch.int16)


def _decode(codes: Tensor, precision: str, unsigned: bool) -> Tensor:
    """Bit patterns 0..15 as float32 values."""
    if precision == "nvfp4":
        magnitudes = torch.tensor(FP4_MAGNITUDES)
        return torch.cat([magnitudes, -magnitudes])[codes.long()]
    return codes.float() if unsigned else ((codes + 8) % 16 - 8).float()
