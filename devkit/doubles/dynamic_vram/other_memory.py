"""What takes memory beside models' weights: buffers for casts, host buffers, mapped files."""

from __future__ import annotations

import itertools
import mmap
import os
import weakref
from pathlib import Path
from typing import ClassVar

import torch

from .card_memory import CardMemory
from .reserved_memory import ReservedMemory, WrongUseError

CAST_CHUNK = 1 << 16  # bytes by which a cast buffer grows; 16 MiB on a card
ALREADY, NOT_REGISTERED = 712, 713  # CUDA's errors


class PinnedMemory:
    """Host memory that the card may read by itself: CUDA's register of it.

    Attributes:
        blocks: bytes by address.
        leaks: what was given back to the system while it was registered.
    """

    def __init__(self) -> None:
        self.blocks: dict[int, int] = {}
        self.leaks: list[str] = []

    def register(self, address: int, nbytes: int, flags: int) -> int:
        """``cudaHostRegister``."""
        if self.within(address, nbytes):
            return ALREADY
        self.blocks[address] = nbytes
        return 0

    def unregister(self, address: int) -> int:
        """``cudaHostUnregister``."""
        return NOT_REGISTERED if self.blocks.pop(address, None) is None else 0

    def within(self, address: int, nbytes: int) -> list[int]:
        """The registered blocks that lie in a range, or reach into it."""
        end = address + nbytes
        return [
            start for start, size in self.blocks.items() if start < end and address < start + size
        ]


class CastMemory(ReservedMemory):
    """A buffer on the card in which weights are cast (a "VRAMBuffer").

    Attributes:
        allocated: bytes that are in use on the card.
    """

    def __init__(self, card: CardMemory, nbytes: int) -> None:
        super().__init__(min(nbytes, card.capacity), "a buffer for casts")
        self.card = card
        self.allocated = 0
        card.buffers.append(self)

    def grow(self, nbytes: int) -> bool:
        """Have at least so many bytes; weights make room for them."""
        if nbytes > self.nbytes:
            return False
        wanted = min(-(-nbytes // CAST_CHUNK) * CAST_CHUNK, self.nbytes)
        if wanted > self.allocated:
            self.card.make_room(wanted - self.allocated)
            self.forget(self.allocated, wanted - self.allocated)
            self.allocated = wanted
        return True

    def release(self) -> None:
        """Give all of it back."""
        self.card.buffers.remove(self)
        self.allocated = 0

    def use(self, address: int, nbytes: int, write: bool) -> None:
        """As `ReservedMemory.use`.

        Raises:
            WrongUseError: also where the buffer has not grown so far, or is gone.
        """
        if address - self.start + nbytes > self.allocated:
            raise WrongUseError(f"{self.what}: used beyond its {self.allocated} bytes")
        super().use(address, nbytes, write)


class HostMemory:
    """A host buffer that grows and shrinks at its end (a "HostBuffer")."""

    def __init__(self, pinned: PinnedMemory, reserved: int) -> None:
        self.pinned = pinned
        self.reserved = reserved
        self.size = 0
        self._last = 0
        self._memory: ReservedMemory | None = None

    @property
    def start(self) -> int:
        """The address; 0 while nothing is in it."""
        return self._memory.start if self._memory else 0

    def extend(self, nbytes: int, reallocate: bool, register: bool) -> tuple[int, int]:
        """Have more at the end: its address, 0 if that is too much; and by how much it grew."""
        before = self.size
        if reallocate and self._last:
            self.truncate(self.size - self._last, register)
        if self.size + nbytes > self.reserved:
            return 0, self.size - before
        if self._memory is None:
            self._memory = ReservedMemory(self.reserved, "a host buffer")
        offset, self.size, self._last = self.size, self.size + nbytes, nbytes
        if register:
            self.pinned.register(self.start + offset, nbytes, 0)
        return self.start + offset, self.size - before

    def truncate(self, size: int, unregister: bool) -> bool:
        """Give back what lies beyond `size`; what was there is lost.

        Raises:
            WrongUseError: a part of it stays registered, of which nobody would know any more.
        """
        memory = self._memory
        if size >= self.size or memory is None:
            return False
        address, nbytes = memory.start + size, self.size - size
        if unregister and self.pinned.unregister(address) != 0:
            return False
        if self.pinned.within(address, nbytes):
            raise WrongUseError(
                "a host buffer: cut off where memory is still registered with the card"
            )
        memory.forget(size, nbytes)
        self.size = size
        if not size:
            self._memory = None
        return True

    def release(self) -> None:
        """Give all of it back. What is still registered is noted: this is called by ``__del__``."""
        if self._memory is not None:
            left = self.pinned.within(self.start, self.size)
            if left:
                self.pinned.leaks.append(f"{len(left)} blocks of a host buffer that is gone")
        self._memory = None


class ModelFile:
    """A file of weights, mapped into memory.

    Attributes:
        handle: the number by which others name it.
    """

    _known: ClassVar[weakref.WeakValueDictionary[int, ModelFile]] = weakref.WeakValueDictionary()
    _handles = itertools.count(3)

    def __init__(self, path: bytes) -> None:
        with Path(os.fsdecode(path)).open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self._bytes = torch.frombuffer(mapped, dtype=torch.uint8)
        self.start = self._bytes.data_ptr()
        self.handle = next(self._handles)
        self._known[self.handle] = self

    @classmethod
    def by_handle(cls, handle: int) -> ModelFile:
        """The file of a number."""
        return cls._known[handle]
