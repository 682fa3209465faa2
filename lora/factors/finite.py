"""NaN and infinity in a file, found without a pass of its own over main memory.

The sum of values is NaN or infinite as soon as one of them is. So one reduction over many tensors
at once, done while they are in the cache (or on the device), clears nearly every file; only where
the sum is not finite, each tensor is looked at. A sum may also overflow where no value is infinite:
that costs the second look, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)


class FiniteCheck:
    """Looks at the pieces of a file as they are read; `LoraFile.read` shows them to `watch`.

    Attributes:
        looked_at: how many tensors had to be looked at one by one.
    """

    def __init__(self) -> None:
        self.looked_at = 0
        self._sums: list[tuple[Tensor, tuple[str, ...]]] = []
        self._suspects: set[str] = set()

    def watch(self, values: Tensor, names: tuple[str, ...]) -> None:
        """Take note of flat `values` of any dtype, which are of the tensors `names`, or zeros."""
        if values.dtype in _FP8:  # torch has no sum of them
            self._suspects.update(names)
        elif values.is_floating_point():
            self._sums.append((values.sum(), names))

    def non_finite(self, tensors: Mapping[str, Tensor]) -> set[str]:
        """Return the names of the watched tensors that hold NaN or infinity, given all of them.

        It waits once for each device that there are tensors on.
        """
        suspects = set(self._suspects)
        for device in {total.device for total, _ in self._sums}:
            here = [(total, names) for total, names in self._sums if total.device == device]
            finite = torch.stack([total.double() for total, _ in here]).isfinite().tolist()
            for (_, names), good in zip(here, finite, strict=True):
                suspects.update(() if good else names)
        self.looked_at += len(suspects)
        return non_finite({name: tensors[name] for name in tensors if name in suspects})


def non_finite(tensors: Mapping[str, Tensor]) -> set[str]:
    """Return the names of tensors that hold NaN or infinity.

    The smallest and the largest value of a tensor are finite exactly if all are: one pass at memory
    speed that copies nothing, with one synchronization for all tensors of a device.
    """
    floats = {
        name: tensor.to(torch.bfloat16) if tensor.dtype in _FP8 else tensor
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and tensor.numel()
    }
    bad: set[str] = set()
    for device in {tensor.device for tensor in floats.values()}:
        names = [name for name, tensor in floats.items() if tensor.device == device]
        extremes = [torch.stack(torch.aminmax(floats[name])).float() for name in names]
        finite = torch.stack(extremes).isfinite().all(dim=1).tolist()
        bad.update(name for name, good in zip(names, finite, strict=True) if not good)
    return bad
