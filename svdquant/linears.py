"""The tensors of one quantized layer, in the natural order that comfy-kitchen computes with.

Fields are named as comfy-kitchen names them (``TensorCoreSVDQuantW4A4Layout`` and
``TensorCoreAWQW4A16Layout``). The layers compute, with x ``[M, K]``:

* SVDQuant: ``y = Q(x / smooth) @ (W * scale).T + x @ proj_down @ proj_up.T + bias``
* AWQ: ``y = x @ ((q - 8) * scale + zeros).T + bias``, with q in 0..15
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .layers import GROUP
from .packing import unpack_nibbles

# What is added to the output of GELU before it is quantized, so that it is not negative: about the
# least value of GELU, which is -0.16997.
GELU_SHIFT = 0.171875


class _PackedLinear:
    """What both kinds of layer have: nibbles in rows, and tensors that must fit to them."""

    weight: Tensor
    group_size: int = GROUP

    @property
    def shape(self) -> tuple[int, int]:
        """``(N, K)``."""
        return self.weight.shape[0], self.weight.shape[1] * 2

    def check(self) -> None:
        """Check that shapes and types fit together.

        Raises:
            ValueError: they do not.
        """
        weight, group = self.weight, self.group_size
        if weight.dtype != torch.int8 or weight.dim() != 2:
            raise ValueError(f"a weight {weight.dtype} {list(weight.shape)}, not int8 [N, K/2]")
        if type(group) is not int or group < 1 or self.shape[1] % group:
            raise ValueError(f"{self.shape[1]} inputs, which are no groups of {group!r}")
        for name, shape in self._shapes(*self.shape).items():
            tensor = getattr(self, name)
            if tensor is None:
                continue
            if tensor.shape != shape:
                raise ValueError(f"{name} has the shape {list(tensor.shape)}, not {list(shape)}")
            if not tensor.is_floating_point():
                raise ValueError(f"{name} is in {tensor.dtype}, no floating-point type")

    def _shapes(self, n: int, k: int) -> dict[str, tuple[int, ...]]:
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class SvdqLinear(_PackedLinear):
    """An int4 SVDQuant linear layer, N outputs and K inputs, rank R, in natural order.

    Attributes:
        weight: int8 ``[N, K/2]``; the low nibble is the even input, two's complement.
        scale: ``[K/64, N]``.
        proj_down, proj_up: ``[K, R]`` and ``[N, R]``.
        smooth_factor: ``[K]``, by which inputs are divided before they are quantized.
        bias: ``[N]`` or None.
        act_unsigned: the input comes out of a GELU and is quantized, shifted, as 0..15.

    All but the weight have the dtype that the layer computes in, and all are contiguous, as the
    kernels need them.
    """

    weight: Tensor
    scale: Tensor
    proj_down: Tensor
    proj_up: Tensor
    smooth_factor: Tensor
    bias: Tensor | None = None
    act_unsigned: bool = False

    def _shapes(self, n: int, k: int) -> dict[str, tuple[int, ...]]:
        rank = self.proj_down.shape[-1:]
        return {
            "scale": (k // GROUP, n),
            "proj_down": (k, *rank),
            "proj_up": (n, *rank),
            "smooth_factor": (k,),
            "bias": (n,),
        }

    def dense(self) -> Tensor:
        """Return the weight that the layer stands for, ``[N, K]`` in float32.

        It computes what the layer does but for the rounding of the layer's input.
        """
        return self._residual() + self.proj_up.float() @ self.proj_down.float().t()

    def dense_bias(self) -> Tensor | None:
        """Return the bias that belongs to `dense`, ``[N]`` in float32.

        That of a layer with unsigned input takes out what the shift of the input adds.
        """
        if self.bias is None or not self.act_unsigned:
            return None if self.bias is None else self.bias.float()
        return self.bias.float() + GELU_SHIFT * self._residual().sum(1)

    def _residual(self) -> Tensor:
        """What the quantized part multiplies the input with."""
        values = unpack_nibbles(self.weight, signed=True).float().unflatten(1, (-1, GROUP))
        scaled = (values * self.scale.float().t()[..., None]).flatten(1)
        return scaled / self.smooth_factor.float()

    def to(self, device: torch.device | None) -> SvdqLinear:
        """Return the layer with every tensor on a device; None leaves them where they are."""
        values = {name: getattr(self, name) for name in (*self._shapes(0, 0), "weight")}
        moved = {n: tensor.to(device=device) for n, tensor in values.items() if tensor is not None}
        return replace(self, **moved)

    def first_ranks(self, rank: int) -> SvdqLinear:
        """Return the layer with the first `rank` ranks of its low-rank branch only."""
        return replace(self, proj_down=self.proj_down[:, :rank], proj_up=self.proj_up[:, :rank])

    def rows(self, start: int, stop: int) -> SvdqLinear:
        """Return the layer that computes outputs ``start:stop``.

        It shares `proj_down` and `smooth_factor` with this one. comfy-kitchen sees that, and
        quantizes the input once for all layers cut from the same one.

        Raises:
            ValueError: there are no such rows.
        """
        _check_rows(start, stop, self.shape[0])
        return replace(
            self,
            weight=self.weight[start:stop].clone(),
            scale=self.scale[:, start:stop].clone(memory_format=torch.contiguous_format),
            proj_up=self.proj_up[start:stop].clone(),
            bias=None if self.bias is None else self.bias[start:stop].clone(),
        )


@dataclass(frozen=True, eq=False)
class AwqLinear(_PackedLinear):
    """A 4-bit weight-only linear layer, N outputs and K inputs, in natural order.

    Attributes:
        weight: int8 ``[N, K/2]``; the low nibble is the even input, values 0..15.
        scale, zeros: ``[K/64, N]``.
        bias: ``[N]`` or None.
    """

    weight: Tensor
    scale: Tensor
    zeros: Tensor
    bias: Tensor | None = None
    group_size: int = GROUP

    def _shapes(self, n: int, k: int) -> dict[str, tuple[int, ...]]:
        side = (k // self.group_size, n)
        return {"scale": side, "zeros": side, "bias": (n,)}

    def dense(self) -> Tensor:
        """Return the weight, ``[N, K]`` in float32."""
        values = unpack_nibbles(self.weight, signed=False).float() - 8
        groups = values.unflatten(1, (-1, self.group_size))
        scaled = groups * self.scale.float().t()[..., None] + self.zeros.float().t()[..., None]
        return scaled.flatten(1)


def _check_rows(start: int, stop: int, height: int) -> None:
    if not 0 <= start < stop <= height:
        raise ValueError(f"there are no rows {start}:{stop} among {height}")
