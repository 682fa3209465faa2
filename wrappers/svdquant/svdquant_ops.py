"""Linear layers with comfy-kitchen's SVDQuant and AWQ weights, for ComfyUI's own model classes.

No released ComfyUI loads these formats. The layers here differ from ComfyUI's quantized ones only
in how a weight is made from a state_dict and in that nothing can be merged into it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
from comfy import ops
from comfy_kitchen.tensor import QuantizedTensor, get_layout_class

from ...svdquant.linears import AwqLinear, SvdqLinear
from ...svdquant.state_dict_names import from_state_dict, to_state_dict
from .kernels import product
from .kitchen_weight import AWQ_LAYOUT, SVDQ_LAYOUT, as_parameter, is_kitchen

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_MERGE = (
    "The weights of this model are 4-bit SVDQuant, into which nothing can be merged. For LoRAs use"
    " Vivace's LoRA nodes, which add them beside the weights; merge and save models in bf16."
)


def operations(compute_dtype: torch.dtype) -> type:
    """The operations to build a model with; plain layers are in `compute_dtype`."""
    base: Any = ops.mixed_precision_ops({}, compute_dtype)

    class Linear(base.Linear):
        """A linear layer that is quantized where the state_dict says so."""

        def _load_from_state_dict(
            self, state_dict: dict[str, Any], prefix: str, *rest: Any
        ) -> None:
            linear = from_state_dict(state_dict, prefix.removesuffix("."))
            if linear is None:
                super()._load_from_state_dict(state_dict, prefix, *rest)
                return
            if linear.shape != (self.out_features, self.in_features):
                raise ValueError(f"{prefix} is {linear.shape}, not as the model's class has it")
            for name in to_state_dict(linear, prefix.removesuffix(".")):
                del state_dict[name]
            device = self.factory_kwargs["device"]
            self.weight = as_parameter(quantized(linear).to(device))
            if linear.bias is not None:
                self.bias = torch.nn.Parameter(linear.bias.to(device), requires_grad=False)

        def forward(self, input: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            if not is_kitchen(self.weight):
                return super().forward(input, *args, **kwargs)
            weight, bias, stream = ops.cast_bias_weight(
                self,
                dtype=self.weight.dtype,
                device=input.device,
                bias_dtype=input.dtype,
                offloadable=True,
                compute_dtype=input.dtype,
                want_requant=True,
            )
            output = product(input, weight, bias)
            ops.uncast_bias_weight(self, weight, bias, stream)
            return output

        def set_weight(self, weight: Any, *args: Any, **kwargs: Any) -> Any:
            if is_kitchen(self.weight):
                raise ValueError(NO_MERGE)
            return super().set_weight(weight, *args, **kwargs)

        def state_dict(
            self, *args: Any, destination: Any = None, prefix: str = "", **kw: Any
        ) -> Any:
            if not is_kitchen(self.weight):
                return super().state_dict(*args, destination=destination, prefix=prefix, **kw)
            found = {} if destination is None else destination
            found.update(to_state_dict(layer_of(self), prefix.removesuffix(".")))
            return found

    return type("SvdquantOps", (base,), {"Linear": Linear})


def quantized(linear: SvdqLinear | AwqLinear) -> Any:
    """The weight of a layer as comfy-kitchen computes with it. Shares all memory."""
    name = SVDQ_LAYOUT if isinstance(linear, SvdqLinear) else AWQ_LAYOUT
    layout: Any = get_layout_class(name)
    known = {field.name for field in dataclasses.fields(layout.Params)}
    values = {
        field.name: getattr(linear, field.name)
        for field in dataclasses.fields(linear)
        if field.name in known
    }
    params = layout.Params(orig_dtype=linear.scale.dtype, orig_shape=linear.shape, **values)
    return QuantizedTensor(linear.weight, name, params)


def layer_of(module: Any) -> SvdqLinear | AwqLinear:
    """The tensors of a module with a comfy-kitchen weight, as they lie. Shares all memory."""
    weight = module.weight
    params = weight._params
    cls: Any = SvdqLinear if weight._layout_cls == SVDQ_LAYOUT else AwqLinear
    values = {
        field.name: getattr(params, field.name)
        for field in dataclasses.fields(cls)
        if hasattr(params, field.name)
    }
    return cls(weight=weight._qdata, bias=module.bias, **values)


def kitchen_modules(model: torch.nn.Module) -> Iterator[Any]:
    """All modules with a weight in one of the two layouts."""
    return (module for module in model.modules() if is_kitchen(getattr(module, "weight", None)))


def cast_side_tensors(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Bring scales and factors to the dtype that the model computes in, as the kernels need it."""
    cast: dict[int, torch.Tensor] = {}  # Q, K and V share factors, and shall do so afterwards
    for module in kitchen_modules(model):
        weight = module.weight
        params = weight._params
        if params.scale.dtype == dtype:
            continue
        changed: dict[str, Any] = {"orig_dtype": dtype}
        for name in params._tensor_fields():
            tensor = getattr(params, name)
            changed[name] = cast.setdefault(id(tensor), tensor.to(dtype))
        params = dataclasses.replace(params, **changed)
        new = QuantizedTensor(weight._qdata, weight._layout_cls, params)
        module.weight = as_parameter(new)
