"""Whether a model is, bit for bit, what it was."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch

Snapshot = dict[str, Any]


def snapshot(network: torch.nn.Module) -> Snapshot:
    """Copies of all tensors by name, those inside of quantized weights too, and what else counts:
    the class of each module and the names of its attributes.
    """
    found: Snapshot = {}
    for key, value in _contents(network):
        found[key] = value.clone() if isinstance(value, torch.Tensor) else value
    return found


def differences(network: torch.nn.Module, since: Snapshot) -> list[str]:
    """What is not as it was; bits are compared, so NaN equals NaN and 0 is not -0."""
    now = dict(_contents(network))
    return sorted(
        key for key in now.keys() | since.keys() if not _same(now.get(key), since.get(key))
    )


def forward_would_see(model: Any) -> torch.nn.Module:
    """The network as its next forward finds it: with what was left on it put right.

    Args:
        model: the `ModelPatcher` that runs.
    """
    network = model.model.diffusion_model
    options = model.model_options.get("transformer_options", {})
    for hook in list(network._forward_pre_hooks.values()):
        hook(network, (), {"transformer_options": options})
    return network


def _contents(network: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    for path, module in network.named_modules():
        own = "__call__" in type(module).__dict__
        yield path, (type(module).__name__, own, *sorted(module.__dict__))
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            for part, plain in _plain(tensor):
                yield f"{path}.{name}{part}", plain.detach()


def _plain(value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    if value is None:
        return
    if not hasattr(value, "_qdata"):
        yield "", value
        return
    yield "._qdata", value._qdata
    for field in dataclasses.fields(value._params):
        part = getattr(value._params, field.name)
        if isinstance(part, torch.Tensor):
            yield f".{field.name}", part


def _same(one: Any, other: Any) -> bool:
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return one == other
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return torch.equal(_bytes(one), _bytes(other))


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)
