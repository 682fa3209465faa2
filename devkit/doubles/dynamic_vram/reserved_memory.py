"""Addresses that are reserved first and get memory later, and what may be done with them when."""

from __future__ import annotations

import ctypes
import mmap

import torch
from torch import Tensor

GRAIN = 512  # bytes; ComfyUI aligns what it puts into such memory to 512 or 1024
_POISON = 0xFF  # every float that has only such bytes is not a number


class WrongUseError(AssertionError):
    """Memory was used that a card would not have given, or not with these values."""


class ReservedMemory:
    """Host memory at an address of its own, with a note of what has been written there.

    It lives as long as a tensor looks at it, so that a wrong use is an error and not a crash.
    """

    def __init__(self, nbytes: int, what: str) -> None:
        self.what = what
        self.nbytes = -(-max(nbytes, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory = mmap.mmap(-1, self.nbytes)
        self._bytes = torch.frombuffer(self._memory, dtype=torch.uint8)
        self._written = bytearray(self.nbytes // GRAIN)
        self.start = self._bytes.data_ptr()

    def __contains__(self, address: int) -> bool:
        return self.start <= address < self.start + self.nbytes

    def host_bytes(self, offset: int, nbytes: int) -> Tensor:
        """A part as a tensor of the CPU, uint8 ``[nbytes]``."""
        return self._bytes[offset : offset + nbytes]

    def forget(self, offset: int, nbytes: int) -> None:
        """Lose what is there: afterwards it has to be written before it is read."""
        ctypes.memset(self.start + offset, _POISON, nbytes)
        grains = _grains(offset, nbytes)
        self._written[grains] = bytes(grains.stop - grains.start)

    def use(self, address: int, nbytes: int, write: bool) -> None:
        """Note a write, or check a read.

        Raises:
            WrongUseError: it is read, but was never written since it was given.
        """
        grains = _grains(address - self.start, nbytes)
        if write:
            self._written[grains] = b"\1" * (grains.stop - grains.start)
        elif 0 in self._written[grains]:
            raise WrongUseError(
                f"{self.what}: read at {address - self.start}, {nbytes} bytes, which nobody has"
                " written since the memory was given anew. Was the signature of vbar_fault not"
                " compared with the one of the copy that is kept?"
            )


def _grains(offset: int, nbytes: int) -> slice:
    return slice(offset // GRAIN, -(-(offset + nbytes) // GRAIN))
