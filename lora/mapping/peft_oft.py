"""What peft's configuration says of its OFT, without which the tensors have no meaning.

Source: peft 0.16 to 0.21 (``tuners/oft/{config,layer}.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any

from ..errors import Unusable

_MOST_TERMS = 64


@dataclass(frozen=True)
class OftSettings:
    """How R is made of the skew-symmetric Q that the tensors give.

    Attributes:
        terms: of the series that stands for the inverse; None for the inverse itself.
        last_is_halved: whether the last power counts once, as since peft 0.18, instead of twice.
        shared: whether all blocks of inputs are turned alike.
        size, count: of the blocks, as far as stated.
    """

    terms: int | None
    last_is_halved: bool
    shared: bool
    size: int | None = None
    count: int | None = None

    def blocks(self, shape: tuple[int, ...], inputs: int) -> tuple[int, int]:
        """Return number and size of the blocks of tensors ``[blocks, size * (size - 1) / 2]``.

        Raises:
            Unusable: they do not cover the inputs.
        """
        if len(shape) == 2:
            size = size_of_triangle(shape[1])
            count = inputs // size
            expected = 1 if self.shared else count
            if shape == (expected, size * (size - 1) // 2) and size > 1 and count * size == inputs:
                self._check(count, size, inputs)
                return count, size
        raise Unusable(f"oft_R has shape {list(shape)} for {inputs} inputs")

    def _check(self, count: int, size: int, inputs: int) -> None:
        # A size that does not divide the inputs is replaced by peft, and stated all the same.
        for name, stated, actual in (
            ("block size", self.size, size),
            ("blocks", self.count, count),
        ):
            if stated is not None and stated != actual and inputs % stated == 0:
                raise Unusable(f"its rotation has {name} {actual}, but its configuration {stated}")


def size_of_triangle(count: int) -> int:
    """Return the rows of a square matrix with `count` values above its diagonal."""
    return (1 + isqrt(1 + 8 * count)) // 2


def read_settings(fields: Mapping[str, Any]) -> OftSettings | str:
    """Return the settings in a configuration of peft, or why they are not known."""
    if fields.get("coft"):  # peft, too, asks for truth only
        return "is constrained OFT of peft (coft), which has no exact form here"
    if "oft_block_size" not in fields:
        return "is OFT of a peft before 0.15, which later ones read otherwise"
    approximate = fields.get("use_cayley_neumann")
    terms = fields.get("num_cayley_neumann_terms")
    if not isinstance(approximate, bool):
        return "is OFT of peft, and its configuration does not say how it rotates"
    if approximate and (type(terms) is not int or not 0 < terms <= _MOST_TERMS):
        return f"is OFT of peft with num_cayley_neumann_terms {str(terms)[:20]!r}"
    stated: dict[str, int | None] = {}
    for name, what in (("oft_block_size", "size"), ("r", "count")):
        value = fields.get(name)
        if type(value) is not int or value < 0:
            return f"is OFT of peft with {name} {str(value)[:20]!r}"
        stated[what] = value or None
    return OftSettings(
        terms if approximate else None,
        # 0.18 was the first to write its version, and to halve the last term.
        isinstance(fields.get("peft_version"), str),
        fields.get("block_share") is True,
        **stated,
    )
