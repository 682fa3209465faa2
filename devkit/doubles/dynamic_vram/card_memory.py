"""The memory of a card with a budget, of which models' weights take what nothing else needs.

It follows what comfy-aimdo's sources do: which pages go first, when weights are told that there is
no room, what a signature says.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from .reserved_memory import ReservedMemory, WrongUseError

if TYPE_CHECKING:
    from .other_memory import CastMemory


class CardMemory:
    """What is on a card, and who has to go when more is wanted.

    Attributes:
        capacity: bytes.
        page_size: bytes of a page of weights; a real card's are of 32 MiB.
        models: the address spaces of models' weights, those that go first first.
        counts: `faults`, `paged in`, `evicted`, `no room`: how often each was seen.
        buffers: what weights are cast in.
        tensors: bytes of all other tensors.
    """

    def __init__(self, capacity: int, page_size: int, tensors: Callable[[], int]) -> None:
        self.capacity = capacity
        self.page_size = page_size
        self.models: list[ModelMemory] = []
        self.counts: Counter[str] = Counter()
        self.buffers: list[CastMemory] = []
        self.tensors = tensors

    @property
    def weights(self) -> int:
        """Bytes of all pages."""
        return sum(model.resident for model in self.models) * self.page_size

    @property
    def used(self) -> int:
        """Bytes of everything."""
        return self.weights + sum(buffer.allocated for buffer in self.buffers) + self.tensors()

    def deficit(self, more: int = 0) -> int:
        """Bytes that are missing for `more`; less than none is what is left."""
        return self.used + more - self.capacity

    def make_room(self, more: int) -> None:
        """Free pages of weights, so that `more` bytes fit, as far as there are any."""
        self.free_pages(-(-self.deficit(more) // self.page_size))

    def free_pages(self, wanted: int) -> None:
        """Lower the models' watermarks, from the first one on, until so many pages are free."""
        for model in self.models:
            while wanted > 0 and model.watermark > model.watermark_limit:
                model.watermark -= 1
                wanted -= model.evict(model.watermark)

    def free_pages_for(self, model: ModelMemory, end: int, surplus: int) -> None:
        """As `free_pages`, so that the absent pages of a model below `end` fit, first ones first.

        `surplus` are the bytes that are left, or less than none. The model's own watermark may be
        lowered as well, and then fewer pages are wanted.
        """
        absent = (n for n in itertools.count() if n >= model.watermark or not model.serials[n])
        wanted = next(absent)

        def spend() -> None:
            nonlocal surplus, wanted
            while surplus >= self.page_size and wanted < min(end, model.watermark):
                surplus -= self.page_size
                wanted = next(absent)

        spend()
        for other in self.models:
            while (wanted < min(end, model.watermark) or surplus < 0) and (
                other.watermark > other.watermark_limit
            ):
                if other.evict(other.watermark - 1):
                    surplus += self.page_size
                    spend()
                other.watermark -= 1


class ModelMemory(ReservedMemory):
    """The address space of a model's weights (a "VBAR").

    Attributes:
        serials: of each page a number that is new whenever the page gets memory; 0 without memory.
        resident: how many pages have memory.
        pins: of each page how many layers use it now.
        watermark: pages from here on get no memory until the model is prioritized again.
        watermark_limit: pages below this are never taken away.
    """

    def __init__(self, card: CardMemory, nbytes: int) -> None:
        pages = min(-(-nbytes // card.page_size), card.capacity // card.page_size)
        super().__init__(pages * card.page_size, "a weight in VRAM")
        self.card = card
        self.serials = [0] * pages
        self.pins = [0] * pages
        self.watermark = pages
        self.watermark_limit = 0
        self.resident = 0
        self.freed = False
        self._serial = itertools.count(1)
        card.models.append(self)

    def prioritize(self) -> None:
        """Become the model that goes last, with all of its pages allowed."""
        self.deprioritize()
        self.card.models.append(self.card.models.pop(0))
        self.watermark = len(self.serials)

    def deprioritize(self) -> None:
        """Become the model that goes first."""
        self.card.models.remove(self)
        self.card.models.insert(0, self)

    def fault(self, offset: int, nbytes: int) -> list[int] | None:
        """Give memory to the pages of a layer, and pin them; the serials, or None without room."""
        card, counts = self.card, self.card.counts
        counts["faults"] += 1
        card.make_room(0)
        pages = self._pages(offset, nbytes)
        if not self._fits(pages.stop):
            return None
        absent = [n for n in pages if not self.serials[n]]
        if absent:
            taken = (pages.stop - absent[0]) * card.page_size
            card.free_pages_for(self, pages.stop, -card.deficit(taken))
        for page in absent:
            if not self._fits(pages.stop):
                return None
            if card.deficit(card.page_size) > 0:
                card.free_pages(1)
                if not self._fits(pages.stop):
                    return None
            self.serials[page] = next(self._serial)
            self.resident += 1
            self.forget(page * card.page_size, card.page_size)
            counts["paged in"] += 1
        for page in pages:
            self.pins[page] += 1
        return [self.serials[page] for page in pages]

    def unpin(self, offset: int, nbytes: int) -> None:
        """Say that a layer is done; pages above the watermark go at once."""
        for page in self._pages(offset, nbytes):
            if page < len(self.pins):
                self.pins[page] -= self.pins[page] > 0
                if page >= self.watermark:
                    self.evict(page)

    def free(self, nbytes: int) -> int:
        """Free at least so many bytes from the end; returns how many it were."""
        freed = 0
        wanted = -(-nbytes // self.card.page_size)
        while freed < wanted and self.watermark > self.watermark_limit:
            self.watermark -= 1
            freed += self.evict(self.watermark)
        return freed * self.card.page_size

    def lower(self, watermark: int) -> None:
        """Set the watermark, a number of pages."""
        for page in range(watermark, self.watermark):
            self.evict(page)
        self.watermark = min(watermark, len(self.serials))

    def evict(self, page: int) -> bool:
        """Take a page's memory away, unless it is pinned or has none."""
        if not self.serials[page] or self.pins[page]:
            return False
        self.serials[page] = 0
        self.resident -= 1
        self.forget(page * self.card.page_size, self.card.page_size)
        self.card.counts["evicted"] += 1
        return True

    def release(self) -> None:
        """The model is gone, whatever is pinned."""
        self.freed = True
        self.card.models.remove(self)
        self.resident = 0
        self.serials = [0] * len(self.serials)
        self.pins = [0] * len(self.pins)

    def use(self, address: int, nbytes: int, write: bool) -> None:
        """As `ReservedMemory.use`.

        Raises:
            WrongUseError: also where a page has no memory, or is not pinned.
        """
        for page in self._pages(address - self.start, nbytes):
            if self.freed or not self.serials[page]:
                raise WrongUseError(
                    f"{self.what}: page {page} has no memory: it was not faulted in, or was taken"
                    " away since"
                )
            if not self.pins[page]:
                raise WrongUseError(
                    f"{self.what}: page {page} is used after vbar_unpin, when it may go any time"
                )
        super().use(address, nbytes, write)

    def _pages(self, offset: int, nbytes: int) -> range:
        return range(offset // self.card.page_size, -(-(offset + nbytes) // self.card.page_size))

    def _fits(self, end: int) -> bool:
        if end <= self.watermark:
            return True
        self.card.counts["no room"] += 1
        return False
