"""A stack of LoRAs with strengths, as a value."""

from __future__ import annotations

import math
from collections.abc import Iterable
from hashlib import blake2b

from .loader import Lora, LoraKey


class LoraSet:
    """LoRAs with strengths, as a value: immutable, hashable, independent of order.

    The same LoRA twice counts with the sum of its strengths; strength 0 counts as absent.

    Attributes:
        rows: the (LoRA, strength) pairs as given.
        identity: digest of files and strengths; equal digests mean equal results.

    Raises:
        ValueError: a strength is not finite, or the LoRAs are for different models.
    """

    def __init__(self, rows: Iterable[tuple[Lora, float]] = ()) -> None:
        self.rows = tuple((lora, float(strength)) for lora, strength in rows)
        strengths: dict[LoraKey, float] = {}
        self.loras: dict[LoraKey, Lora] = {}
        for lora, strength in sorted(self.rows, key=lambda row: (row[0].key, row[1])):
            if not math.isfinite(strength):
                raise ValueError(f"{lora.path.name}: strength {strength} is not a finite number")
            strengths[lora.key] = strengths.get(lora.key, 0.0) + strength
            self.loras[lora.key] = lora
        if len({lora.architecture.name for lora in self.loras.values()}) > 1:
            raise ValueError("the LoRAs of a stack are for different models")
        self.strengths = {key: value for key, value in strengths.items() if value != 0.0}
        self.identity = _digest([(*key, value.hex()) for key, value in self.strengths.items()])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LoraSet) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)


def _digest(content: object) -> str:
    return blake2b(repr(content).encode(), digest_size=16).hexdigest()
