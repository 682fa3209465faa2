"""What a Nunchaku checkpoint holds, from its safetensors header alone.

A header is checked as a whole: every tensor must belong to a layer, every layer to a module of the
model that ComfyUI builds, and every row of every module must come from exactly one layer. So a
loader that follows the description can neither leave out a tensor nor leave a weight unset.

Sources: ``nodes/models/qwenimage.py`` and ``nodes/models/zimage.py`` of ComfyUI-nunchaku 1.2.1, for
the metadata and the names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..lora.files.header import Header
from ..lora.mapping.architecture import Architecture
from .errors import CheckpointError, Refused
from .layers import GROUP, CheckpointLayer, Kind, group_layers
from .models import QuantizedFamily, find_family

MAX_RANK = 1024  # of the kernels, for a layer's own rank and LoRAs together
PUBLISHED_RANKS = (32, 128, 256)


@dataclass(frozen=True)
class Quantization:
    """The ``quantization_config`` of a checkpoint.

    Attributes:
        method: ``"svdquant"``.
        weight_dtype: ``"int4"``.
        group_size: inputs that share a weight scale, 64.
        rank: of the low-rank branch of every SVDQuant layer.
        skip_refiners: Z-Image's refiner blocks are not quantized.
    """

    method: str
    weight_dtype: str
    group_size: int
    rank: int
    skip_refiners: bool = False


class LayerPlacement(NamedTuple):
    """Rows ``start:stop`` of a stored layer are rows ``first:`` of `module` in ComfyUI's model."""

    module: str
    start: int
    stop: int
    first: int


@dataclass(frozen=True)
class PlacedLayer:
    """A layer of the file, and the modules of ComfyUI's model that it becomes, in row order.

    `act_unsigned` is True where the input comes out of a GELU (see `SvdqLinear`).
    """

    layer: CheckpointLayer
    placements: tuple[LayerPlacement, ...]
    act_unsigned: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that can be loaded.

    Attributes:
        path: of the file, as given.
        architecture: the model, with the sizes of this file.
        config: the diffusers configuration from the metadata; empty if there is none.
        quantization: how the layers are quantized.
        dtype: safetensors name of the dtype in which quantized layers compute, such as ``"BF16"``.
        layers: all layers, in file order.
    """

    path: str
    architecture: Architecture
    config: Mapping[str, Any] = field(repr=False)
    quantization: Quantization
    dtype: str
    layers: tuple[PlacedLayer, ...] = field(repr=False)


def describe(header: Header, path: str | os.PathLike[str]) -> Checkpoint:
    """Describe the checkpoint with this header; `path` is for messages.

    Raises:
        CheckpointError: it is nvfp4, of another model or another program, incomplete, or has
            tensors that do not fit; the message says which.
    """
    try:
        return _describe(header, os.fspath(path))
    except Refused as refusal:
        raise CheckpointError(path, str(refusal)) from None


def _describe(header: Header, path: str) -> Checkpoint:
    config = _json(header.metadata, "config")
    quantization = _quantization(header)
    family = _family(header, config)
    layers = group_layers(header.tensors)
    architecture = family.measure({layer.name: layer for layer in layers})
    for key, group in family.depths:
        found = architecture.depths[group]
        if config.get(key, found) != found:
            raise Refused(f"it has {found} blocks in {group}, and its config says {config[key]}")
    placed = [_place(layer, family, architecture, quantization) for layer in layers]
    _check_complete(placed, architecture)
    dtypes = {layer.dtype for layer in layers if layer.kind != "dense"}
    if len(dtypes) > 1:
        raise Refused(f"its quantized layers compute in different dtypes, {sorted(dtypes)}")
    return Checkpoint(path, architecture, config, quantization, dtypes.pop(), tuple(placed))


def _json(metadata: Mapping[str, str], name: str) -> dict[str, Any]:
    """Return a JSON object of the metadata, empty if there is none."""
    try:
        value = json.loads(metadata.get(name, "{}"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Refused(f"its metadata {name!r} is not a JSON object")
    return value


def _quantization(header: Header) -> Quantization:
    raw = _json(header.metadata, "quantization_config")
    if not raw:
        raise Refused("not a Nunchaku checkpoint: its metadata has no quantization_config")
    weight = raw.get("weight")
    weight = weight if isinstance(weight, dict) else {}
    method, dtype, group = raw.get("method"), weight.get("dtype"), weight.get("group_size")
    rank, skip = raw.get("rank", 32), raw.get("skip_refiners", False)
    if method != "svdquant":
        raise Refused(f"quantized by the method {method!r}, not by svdquant")
    if isinstance(dtype, str) and dtype.startswith("fp4"):
        raise Refused("its weights are nvfp4 (fp4), which only Nunchaku itself can run")
    if dtype != "int4":
        raise Refused(f"its weights are quantized to {dtype!r}, not to int4")
    if group != GROUP:
        raise Refused(f"its weight scales are for groups of {group!r} inputs, not {GROUP}")
    if type(rank) is not int or rank % 16 or not 0 < rank <= MAX_RANK:
        known = ", ".join(map(str, PUBLISHED_RANKS))
        raise Refused(f"rank {rank!r} is not one of {known}, or any multiple of 16 to {MAX_RANK}")
    if not isinstance(skip, bool):
        raise Refused(f"its skip_refiners is {skip!r}, neither true nor false")
    return Quantization(method, dtype, group, rank, skip)


def _family(header: Header, config: Mapping[str, Any]) -> QuantizedFamily:
    stated = config.get("_class_name") or header.metadata.get("model_class") or ""
    family = find_family(header.tensors)
    if family is None:
        what = f"a {stated}" if stated else "of an unknown model"
        raise Refused(f"{what}, not a Qwen-Image or Z-Image")
    if stated and str(stated).removeprefix("Nunchaku") != family.model_class:
        raise Refused(f"its layers are those of {family.title}, but it says it is a {stated}")
    return family


def _place(
    layer: CheckpointLayer,
    family: QuantizedFamily,
    architecture: Architecture,
    quantization: Quantization,
) -> PlacedLayer:
    placements = _placements(architecture, layer.name)
    if not placements:
        raise Refused(f"layer {layer.name} is in no {architecture.title}")
    expected = family.kind(layer.name, quantization.skip_refiners)
    if layer.kind != expected:
        raise Refused(f"layer {layer.name} is {_NAMES[layer.kind]}, but must be {_NAMES[expected]}")
    if layer.kind == "svdq" and layer.rank != quantization.rank:
        raise Refused(
            f"layer {layer.name} has rank {layer.rank}, and the metadata says {quantization.rank}"
        )
    module = architecture.modules[placements[0].module]
    shape = (placements[-1].stop, *module.shape[1:])
    if layer.shape != shape:
        raise Refused(f"layer {layer.name} is {list(layer.shape)}, not {list(shape)}")
    if layer.bias != module.bias:
        extra = "a bias too many" if layer.bias else "no bias"
        raise Refused(f"layer {layer.name} has {extra}")
    unsigned = layer.kind == "svdq" and family.after_gelu(layer.name)
    return PlacedLayer(layer, placements, unsigned)


_NAMES: Mapping[Kind, str] = {
    "svdq": "an SVDQuant layer",
    "awq": "an AWQ layer",
    "dense": "a plain layer",
}


def _placements(architecture: Architecture, name: str) -> tuple[LayerPlacement, ...]:
    """Return where the layer called `name` in the file goes; nothing if it is not in the model."""
    module, part = architecture.aliases.get(name, (name, None))
    if part is not None:
        first, stop = architecture.rows(module, part)
        return (LayerPlacement(module, 0, stop - first, first),)
    if module in architecture.fusions:
        blocks = architecture.fusions[module]
        return tuple(LayerPlacement(block.module, block.start, block.stop, 0) for block in blocks)
    if module in architecture.modules:
        return (LayerPlacement(module, 0, architecture.modules[module].shape[0], 0),)
    return ()


def _check_complete(placed: Iterable[PlacedLayer], architecture: Architecture) -> None:
    """Check that every row of every module comes from one layer."""
    rows: dict[str, int] = {}
    seen: set[tuple[str, int]] = set()
    for item in placed:
        for module, start, stop, first in item.placements:
            if (module, first) in seen:
                raise Refused(f"{module} is there twice, once as {item.layer.name}")
            seen.add((module, first))
            rows[module] = rows.get(module, 0) + stop - start
    modules = architecture.modules.values()
    wanted = {module.path: module.shape[0] for module in modules if not module.optional}
    if over := [path for path, count in rows.items() if count > wanted.get(path, count)]:
        raise Refused(f"fused and separate layers for the same module: {_some(over)}")
    if missing := [path for path, count in wanted.items() if rows.get(path, 0) < count]:
        raise Refused(f"incomplete: nothing, or too little, for {_some(missing)}")


def _some(names: Iterable[str], limit: int = 3) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more
