"""The tensors of a Nunchaku checkpoint as layers, from names, shapes and dtypes alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..lora.files.header import TensorInfo
from .errors import Refused

Kind = Literal["svdq", "awq", "dense"]

GROUP = 64  # inputs that share a scale, in int4 and AWQ weights
COMPUTE_DTYPES = frozenset({"BF16", "F16", "F32"})

SVDQ_TENSORS = frozenset({"qweight", "wscales", "smooth_factor", "proj_down", "proj_up"})
AWQ_TENSORS = frozenset({"qweight", "wscales", "wzeros"})
# Per-channel and per-tensor scales, which exist in nvfp4 weights only.
NVFP4_TENSORS = frozenset({"wcscales", "wtscale"})
# The smoothing of the calibration; nothing computes with it.
UNUSED_TENSORS = frozenset({"smooth_factor_orig"})

_OPTIONAL = {
    "svdq": frozenset({"bias"}) | UNUSED_TENSORS,
    "awq": frozenset({"bias"}),
    "dense": frozenset({"bias"}),
}
_ROLES = SVDQ_TENSORS | AWQ_TENSORS | NVFP4_TENSORS | UNUSED_TENSORS | {"weight", "bias"}


@dataclass(frozen=True)
class CheckpointLayer:
    """One layer as stored.

    Attributes:
        name: as in the file, without the parameter's name.
        kind: an int4 layer with a low-rank branch, a 4-bit weight-only layer, or plain tensors.
        tensors: full tensor names by role (``"qweight"``, ``"weight"``, ...). A bare parameter,
            such as a pad token, has the role ``""``.
        shape: of the logical weight, ``(N, K)`` or ``(n,)``.
        dtype: safetensors name of the dtype that the layer computes in.
        rank: of the low-rank branch; 0 if there is none.
    """

    name: str
    kind: Kind
    tensors: Mapping[str, str] = field(repr=False)
    shape: tuple[int, ...]
    dtype: str
    rank: int = 0

    @property
    def bias(self) -> bool:
        """Whether the layer has a bias."""
        return "bias" in self.tensors


def group_layers(tensors: Mapping[str, TensorInfo]) -> list[CheckpointLayer]:
    """Return the layers of a checkpoint in file order, each complete and consistent in itself.

    Raises:
        Refused: nvfp4 layers; tensors missing from a layer, unknown ones, or wrong shapes or
            dtypes; the message names the layer.
    """
    groups: dict[str, dict[str, str]] = {}
    for name in tensors:
        stem, _, role = name.rpartition(".")
        if not stem or role not in _ROLES:
            stem, role = name, ""
        groups.setdefault(stem, {})[role] = name
    return [_layer(stem, names, tensors) for stem, names in groups.items()]


def _layer(
    name: str, names: Mapping[str, str], tensors: Mapping[str, TensorInfo]
) -> CheckpointLayer:
    infos = {role: tensors[full] for role, full in names.items()}
    if found := sorted(NVFP4_TENSORS & infos.keys()):
        raise Refused(f"layer {name} has a {found[0]}, so it is nvfp4")
    if "" in infos:
        kind, needed = "dense", frozenset({""})
    elif "qweight" not in infos:
        kind, needed = "dense", frozenset({"weight"})
    elif "wzeros" in infos:
        kind, needed = "awq", AWQ_TENSORS
    else:
        kind, needed = "svdq", SVDQ_TENSORS
    if missing := sorted(needed - infos.keys()):
        raise Refused(f"layer {name} has no {', '.join(missing)}")
    if unknown := sorted(infos.keys() - needed - _OPTIONAL[kind]):
        raise Refused(f"layer {name} has a {' and a '.join(unknown)} that it should not have")
    if kind == "svdq":
        shape, rank = _check_svdq(name, infos)
    elif kind == "awq":
        shape, rank = _check_awq(name, infos), 0
    else:
        shape, rank = _check_dense(name, infos, min(needed)), 0
    main = infos[min(needed) if kind == "dense" else "wscales"]
    return CheckpointLayer(name, kind, dict(names), shape, main.dtype, rank)


def _check_svdq(name: str, infos: Mapping[str, TensorInfo]) -> tuple[tuple[int, int], int]:
    n, half = _matrix(name, infos["qweight"], "I8")
    k = half * 2
    if n % 128 or k % 128:
        raise Refused(f"layer {name} has {n} outputs and {k} inputs, not multiples of 128")
    rank = infos["proj_down"].shape[-1] if infos["proj_down"].shape else 0
    if not rank or rank % 16:
        raise Refused(f"layer {name} has rank {rank}, not a multiple of 16")
    vectors = {"smooth_factor": (k,), "smooth_factor_orig": (k,), "bias": (n,)}
    _check(name, infos, {
        "wscales": (k // GROUP, n), "proj_down": (k, rank), "proj_up": (n, rank), **vectors,
    })  # fmt: skip
    return (n, k), rank


def _check_awq(name: str, infos: Mapping[str, TensorInfo]) -> tuple[int, int]:
    quarter, half = _matrix(name, infos["qweight"], "I32")
    n, k = quarter * 4, half * 2
    if k % GROUP:
        raise Refused(f"layer {name} has {k} inputs, not a multiple of {GROUP}")
    _check(name, infos, {"wscales": (k // GROUP, n), "wzeros": (k // GROUP, n), "bias": (n,)})
    return n, k


def _check_dense(name: str, infos: Mapping[str, TensorInfo], main: str) -> tuple[int, ...]:
    weight = infos[main]
    for info in infos.values():
        if info.dtype not in COMPUTE_DTYPES:
            raise Refused(f"layer {name} is in {info.dtype}; supported are BF16, F16 and F32")
    if "bias" in infos and infos["bias"].shape != weight.shape[:1]:
        shapes = f"{list(weight.shape)} and a bias {list(infos['bias'].shape)}"
        raise Refused(f"layer {name} has a weight {shapes}")
    return weight.shape


def _matrix(name: str, info: TensorInfo, dtype: str) -> tuple[int, int]:
    if info.dtype != dtype or len(info.shape) != 2 or 0 in info.shape:
        shape = list(info.shape)
        raise Refused(f"layer {name} has a qweight {info.dtype} {shape}, not {dtype} [.., ..]")
    return info.shape[0], info.shape[1]


def _check(
    name: str, infos: Mapping[str, TensorInfo], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    dtype = infos["wscales"].dtype
    if dtype not in COMPUTE_DTYPES:
        raise Refused(f"layer {name} has scales in {dtype}; int4 layers have them in BF16 or F16")
    for role, shape in shapes.items():
        info = infos.get(role)
        if info is not None and info.shape != shape:
            raise Refused(f"layer {name} has a {role} {list(info.shape)}, not {list(shape)}")
        if info is not None and info.dtype != dtype:
            raise Refused(f"layer {name} has a {role} in {info.dtype}, but wscales in {dtype}")
