"""What comfy-aimdo's Python calls of its compiled library, done in this process's own memory.

The package's classes (`ModelVBAR`, `HostBuffer`, `VRAMBuffer`, `ModelMMAP`) stay the real ones, of
0.4.11 as of 0.6.0; `AimdoLibrary` takes the place of the library that they have loaded. Handles are
Python objects here.
"""

from __future__ import annotations

import ctypes
from typing import Any

from torch import Tensor

from . import second_device
from .card_memory import CardMemory, ModelMemory
from .other_memory import CastMemory, HostMemory, ModelFile, PinnedMemory
from .reserved_memory import ReservedMemory

SUCCESS, NO_ROOM = 0, 1


class AimdoLibrary:
    """The functions of the library, by their names there.

    Attributes:
        card: the memory of the only device.
        pinned: host memory that the card may read by itself.
    """

    def __init__(self, card: CardMemory, pinned: PinnedMemory) -> None:
        self.card = card
        self.pinned = pinned
        self._memory: list[ReservedMemory] = []

    def use(self, address: int, nbytes: int, write: bool) -> None:
        """Check that memory may be read or written, if it is of what was given here.

        Raises:
            WrongUseError: it may not.
        """
        for memory in self._memory:
            if address in memory:
                memory.use(address, nbytes, write)
                return

    def tensor(self, address: int, nbytes: int, device: Any) -> Tensor:
        """Memory that was given here as a tensor on the device, uint8 ``[nbytes]``."""
        memory = next(each for each in self._memory if address in each)
        return second_device.from_memory(memory.host_bytes(address - memory.start, nbytes))

    def get_devctx(self, device: int) -> int:
        return 1

    # Weights in VRAM.

    def vbar_allocate(self, _: Any, size: int, device: int, *callback: Any) -> ModelMemory:
        return self._known(ModelMemory(self.card, size))

    def vbar_get(self, _: Any, model: ModelMemory) -> int:
        return model.start

    def vbar_free(self, _: Any, model: ModelMemory) -> None:
        model.release()

    def vbar_prioritize(self, _: Any, model: ModelMemory, *clamp: Any) -> None:
        model.prioritize()

    def vbar_deprioritize(self, _: Any, model: ModelMemory) -> None:
        model.deprioritize()

    def vbar_fault(self, _: Any, model: ModelMemory, offset: int, size: int, out: Any) -> int:
        """The signature has room for pages of 32 MiB: what it says of smaller ones is the newest of
        their serials, and all of them together."""
        serials = model.fault(offset, size)
        if serials is None:
            return NO_ROOM
        if len(serials) > len(out):
            serials = [max(serials), sum(serials)]
        for place, serial in enumerate(serials):
            out[place] = serial & 0xFFFFFFFF
        return SUCCESS

    def vbar_unpin(self, _: Any, model: ModelMemory, offset: int, size: int) -> bool:
        model.unpin(offset, size)
        return True

    def vbar_loaded_size(self, _: Any, model: ModelMemory) -> int:
        return model.resident * self.card.page_size

    def vbar_free_memory(self, _: Any, model: ModelMemory, size: int) -> int:
        return model.free(size)

    def vbar_set_watermark(self, _: Any, model: ModelMemory, size: int) -> bool:
        model.lower(-(-size // self.card.page_size))
        return True

    def vbar_set_watermark_limit(self, _: Any, model: ModelMemory, size: int) -> None:
        model.watermark_limit = -(-size // self.card.page_size)

    def vbars_reset_watermark_limits(self, _: Any) -> None:
        for model in self.card.models:
            model.watermark_limit = 0

    def vbars_analyze(self, _: Any, only_dirty: bool) -> int:
        return self.card.weights

    def vbar_get_nr_pages(self, _: Any, model: ModelMemory) -> int:
        return len(model.serials)

    def vbar_get_watermark(self, _: Any, model: ModelMemory) -> int:
        return model.watermark

    def vbar_get_residency(self, _: Any, model: ModelMemory, out: Any, pages: int) -> None:
        for page in range(pages):
            out[page] = (model.serials[page] > 0) | (model.pins[page] > 0) << 1

    # What weights are cast in on their way.

    def vrambuf_create(self, device: int, max_size: int) -> CastMemory:
        return self._known(CastMemory(self.card, max_size))

    def vrambuf_grow(self, buffer: CastMemory, size: int) -> bool:
        return buffer.grow(size)

    def vrambuf_get(self, buffer: CastMemory) -> int:
        return buffer.start

    def vrambuf_destroy(self, buffer: CastMemory) -> bool:
        buffer.release()
        return True

    # Host memory, pinned or not.

    def hostbuf_allocate(self, prewarm: int, size: int, mark_cold: bool) -> HostMemory:
        return HostMemory(self.pinned, size + prewarm)

    def hostbuf_get_raw_address(self, buffer: HostMemory) -> int:
        return buffer.start

    def hostbuf_extend(
        self, buffer: HostMemory, size: int, reallocate: bool, register: bool, grown: Any
    ) -> int:
        start, grown._obj.value = buffer.extend(size, reallocate, register)
        return start

    def hostbuf_register(self, buffer: HostMemory, offset: int, size: int) -> bool:
        return self.pinned.register(buffer.start + offset, size, 0) == 0

    def hostbuf_unregister(self, buffer: HostMemory, offset: int) -> bool:
        return self.pinned.unregister(buffer.start + offset) == 0

    def hostbuf_truncate(self, buffer: HostMemory, size: int, unregister: bool) -> bool:
        return buffer.truncate(size, unregister)

    def hostbuf_free(self, buffer: HostMemory) -> None:
        buffer.release()

    # Files.

    def model_mmap_allocate(self, path: bytes) -> ModelFile:
        return ModelFile(path)

    def model_mmap_get(self, file: ModelFile) -> int:
        return file.start

    def model_mmap_get_file_handle(self, file: ModelFile) -> int:
        return file.handle

    def model_mmap_bounce(self, file: ModelFile) -> bool:
        return True

    def model_mmap_deallocate(self, file: ModelFile) -> None:
        pass

    def hostbuf_read_file_slice(
        self,
        buffer: HostMemory,
        device: int,
        handle: int,
        file_offset: int,
        size: int,
        offset: int,
        stream: int | None,
        device_address: int,
    ) -> bool:
        """Into a host buffer, and on to the device only where there is a stream, as the library."""
        source = ModelFile.by_handle(handle).start + file_offset
        self._copy(buffer.start + offset, source, size)
        if stream and device_address:
            self._copy(device_address, source, size)
        return True

    def hostbuf_file_reader_read(
        self,
        device: int,
        handle: int,
        file_offset: int,
        size: int,
        stream: int | None,
        device_address: int,
        mark_cold: bool,
    ) -> bool:
        self._copy(device_address, ModelFile.by_handle(handle).start + file_offset, size)
        return True

    def hostbuf_file_reader_cleanup(self) -> None:
        pass

    def _copy(self, address: int, source: int, nbytes: int) -> None:
        self.use(address, nbytes, True)
        ctypes.memmove(address, source, nbytes)

    def _known(self, memory: Any) -> Any:
        self._memory.append(memory)
        return memory
