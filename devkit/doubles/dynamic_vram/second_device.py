"""A second torch device whose memory is the host's: for what depends on where a tensor is.

Tensors on `DEVICE` are plain tensors of torch (``type(t) is torch.Tensor``), are made by
``device=DEVICE`` and ``.to(DEVICE)``, and refuse operands in host memory as a card's do. Every
operation runs on the CPU, on a tensor that shares the memory, so values are those of the CPU.

Unlike a card: nothing runs asynchronously; attention is computed by products and a softmax; a view
that an operation other than those of `_VIEWS` returns shares memory but not the storage's object;
and ``device.type`` is ``"privateuseone"``, never ``"cuda"``.

The device is torch's place for others' back ends, set up once for the process. Whoever wants to
know what is read and written sets `watch`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import backend_registration

KIND = "privateuseone"
DEVICE = torch.device(KIND, 0)

Watch = Callable[[int, int, bool], None]
"""Told the address, the bytes and whether it is written, before an operation uses a tensor."""

_HOST, _CARD = 1, 12  # DLPack's kinds of devices: the CPU, and an extension's
_KERNELS: list[torch.library.Library] = []
_ON_CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
_VIEWS = ("as_strided", "view", "_reshape_alias", "unfold", "set_.source_Storage_storage_offset")
# What takes tensors of both sides, by the names of torch's operators.
_MIXES = ("aten::_copy_from", "aten::index", "aten::index_put_", "aten::_index_put_impl_")

watch: Watch | None = None
before_allocation: Callable[[int], None] | None = None  # told the bytes that are to be allocated
_allocated: list[tuple[StorageWeakRef, int]] = []


class _DLTensor(ctypes.Structure):
    """The head of what DLPack's capsule points to."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_kind", ctypes.c_int),
        ("device_index", ctypes.c_int),
    )


_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype = ctypes.c_void_p
_pointer.argtypes = (ctypes.py_object, ctypes.c_char_p)


def set_up() -> None:
    """Make torch know the device; once for a process, and nothing undoes it."""
    if _KERNELS:
        return
    backend_registration._setup_privateuseone_for_python_backend()
    fallback = torch.library.Library("_", "IMPL")
    fallback.fallback(_run, KIND_KEY)
    kernels = torch.library.Library("aten", "IMPL")
    kernels.impl("empty.memory_format", _empty, KIND_KEY)
    kernels.impl("empty_strided", _empty_strided, KIND_KEY)
    kernels.impl("resize_", _resize, KIND_KEY)
    kernels.impl("record_stream", lambda tensor, stream: None, KIND_KEY)
    for name in _VIEWS:
        kernels.impl(name, _view_kernel(_operator(name)), KIND_KEY)
    _KERNELS.extend((fallback, kernels))


KIND_KEY = "PrivateUse1"


def _set_data(parameter: torch.nn.Parameter, value: Tensor) -> None:
    if parameter.device.type != value.device.type and KIND in (
        parameter.device.type,
        value.device.type,
    ):
        torch.utils.swap_tensors(parameter, torch.nn.Parameter(value, parameter.requires_grad))
    else:
        Tensor.data.__set__(parameter, value)  # pyright: ignore[reportAttributeAccessIssue]


PARAMETER_DATA = property(lambda parameter: Tensor.data.__get__(parameter), _set_data)  # pyright: ignore[reportAttributeAccessIssue]
"""`torch.nn.Parameter.data` that can be set across devices, which torch allows for cards only."""


def allocated() -> int:
    """Bytes of the tensors that are on the device now, without those that `from_memory` made."""
    _allocated[:] = [entry for entry in _allocated if not entry[0].expired()]
    return sum(nbytes for _, nbytes in _allocated)


def from_memory(host: Tensor) -> Tensor:
    """The same memory as a tensor on the device; somebody else counts its bytes."""
    return _turned(host, _CARD)


def on_host(tensor: Tensor) -> Tensor:
    """The same memory as a tensor of the CPU. `watch` is not told."""
    return _turned(tensor, _HOST)


def _turned(tensor: Tensor, kind: int) -> Tensor:
    dtype = tensor.dtype
    with torch._C._AutoDispatchBelowAutograd():
        capsule = torch._C._to_dlpack(tensor.detach())
    address = _pointer(capsule, b"dltensor")
    assert address is not None
    head = _DLTensor.from_address(address)
    head.device_kind, head.device_index = kind, 0
    turned = torch._C._from_dlpack(capsule)
    assert turned.dtype == dtype
    return turned


def _placed(host: Tensor) -> Tensor:
    """A tensor that the CPU made, as one that the device has allocated."""
    nbytes = host.untyped_storage().nbytes()
    if before_allocation is not None:
        before_allocation(nbytes)
    placed = from_memory(host)
    _allocated.append((StorageWeakRef(placed.untyped_storage()), nbytes))
    if len(_allocated) > 4096:
        allocated()
    return placed


def _empty(
    size: Any, *, dtype: Any = None, memory_format: Any = None, **_: Any
) -> Tensor:  # what is left are the layout, the device, pinning
    return _placed(
        torch.empty(size, dtype=dtype, memory_format=memory_format or torch.contiguous_format)
    )


def _empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> Tensor:
    return _placed(torch.empty_strided(size, stride, dtype=dtype))


def _resize(tensor: Tensor, size: Any, *, memory_format: Any = None) -> Tensor:
    grown = torch.empty(size, dtype=tensor.dtype)
    kept = min(grown.numel(), tensor.numel())
    grown.view(-1)[:kept] = on_host(tensor).reshape(-1)[:kept]
    return _adopt(tensor, grown)


def _adopt(tensor: Tensor, host: Tensor) -> Tensor:
    placed = _placed(host)
    set_ = torch.ops.aten.set_.source_Storage_storage_offset
    storage = placed.untyped_storage()
    set_.redispatch(_ON_CPU, tensor, storage, 0, list(host.shape), list(host.stride()))
    return tensor


def _view_kernel(operator: Any) -> Callable[..., Tensor]:
    """The CPU's kernel: it reads sizes and strides, not the memory."""

    def view(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return operator.redispatch(_ON_CPU, tensor, *args, **kwargs)

    return view


def _operator(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


@cache
def _written(operator: Any) -> dict[int | str, bool]:
    """The arguments that an operator writes, by place and by name: whether it only writes them."""
    written: dict[int | str, bool] = {}
    name = operator._schema.name
    for place, argument in enumerate(operator._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            only = argument.is_out or name in ("aten::fill_", "aten::zero_", "aten::copy_")
            written[place] = written[argument.name] = only
    if name == "aten::_copy_from":
        written[1] = written["dst"] = True
    return written


class _Call:
    """One operation, with its tensors in host memory."""

    def __init__(self, operator: Any) -> None:
        self.operator = operator
        self.written = _written(operator)
        self.pairs: list[tuple[Tensor, Tensor]] = []  # on the device, and where it runs
        self.grown: list[Tensor] = []  # results of a size that is not known yet
        self.foreign: Tensor | None = None

    def lower(self, value: Any, key: int | str) -> Any:
        if isinstance(value, Tensor):
            return self._tensor(value, key)
        if isinstance(value, list | tuple):
            return type(value)(self.lower(each, key) for each in value)
        if isinstance(value, torch.device) and value.type == KIND:
            return torch.device("cpu")
        return value

    def _tensor(self, tensor: Tensor, key: int | str) -> Tensor:
        if tensor.device.type != KIND:
            if tensor.dim() and tensor.device.type == "cpu":
                self.foreign = tensor
            return tensor
        if key in self.written and not tensor.numel():
            host = torch.empty(0, dtype=tensor.dtype)
            self.grown.append(tensor)
        else:
            self._tell(tensor, key)
            host = on_host(tensor)
        self.pairs.append((tensor, host))
        return host

    def _tell(self, tensor: Tensor, key: int | str) -> None:
        if watch is None or not tensor.numel():
            return
        last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
        address, nbytes = tensor.data_ptr(), (last + 1) * tensor.element_size()
        if not self.written.get(key, False):
            watch(address, nbytes, False)
        if key in self.written:
            watch(address, nbytes, True)

    def check(self) -> None:
        if self.pairs and self.foreign is not None and self.operator._schema.name not in _MIXES:
            raise RuntimeError(
                f"Expected all tensors to be on the same device: {self.operator} was given one of"
                f" shape {list(self.foreign.shape)} in host memory and one on {DEVICE}"
            )

    def raise_(self, result: Any) -> Any:
        """What the CPU returned, on the device; what it wrote into is what was given."""
        if isinstance(result, list | tuple):
            return type(result)(self.raise_(each) for each in result)
        if not isinstance(result, Tensor):
            return result
        for tensor, host in self.pairs:
            if host is result:
                return tensor
        return _placed(result)


def _run(operator: Any, *args: Any, **kwargs: Any) -> Any:
    call = _Call(operator)
    host_args = [call.lower(value, place) for place, value in enumerate(args)]
    host_kwargs = {name: call.lower(value, name) for name, value in kwargs.items()}
    call.check()
    if operator._schema.name == "aten::_copy_from":
        return _copy_from(args[1], *host_args)
    result = operator(*host_args, **host_kwargs)
    for tensor, host in call.pairs:
        if any(tensor is grown for grown in call.grown) and host.numel():
            _adopt(tensor, host)
    return call.raise_(result)


def _copy_from(
    destination: Tensor, source: Tensor, host_destination: Tensor, non_blocking: bool = False
) -> Tensor:
    host_destination.copy_(source)
    return destination
