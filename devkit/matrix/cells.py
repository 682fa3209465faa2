"""The combinations that are tried."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from ..rig.layout import MATRIX_RELEASES, DevError

PYTHONS = ("3.13", "3.12", "3.11", "3.10")
TRANSFORMERS = {"4.57": "transformers==4.57.*", "5": "transformers>=5,<6"}
"""What pip is asked for, by the name in tables: the oldest with Qwen3-VL, and the newest."""


@dataclass(frozen=True)
class Cell:
    """One combination.

    Attributes:
        comfyui: version of one of `MATRIX_RELEASES`.
        python: its first two numbers.
        transformers: a key of `TRANSFORMERS`.
        extras: whether the optional packages of `pyproject.toml` are installed.
    """

    comfyui: str
    python: str
    transformers: str
    extras: bool

    @property
    def name(self) -> str:
        """Such as ``0.30.0-py3.13-transformers5-extras``."""
        rest = "-extras" if self.extras else ""
        return f"{self.comfyui}-py{self.python}-transformers{self.transformers}{rest}"


def all_cells() -> list[Cell]:
    """The whole product; the cells of one Python stand together."""
    versions = [release.version for release in MATRIX_RELEASES]
    axes = product(PYTHONS, versions, TRANSFORMERS, (False, True))
    return [Cell(comfyui, python, kind, extras) for python, comfyui, kind, extras in axes]


def default_cells() -> list[Cell]:
    """Every ComfyUI with every Python; a quarter of the product.

    Transformers and optional packages go round (a Latin square), so that every ComfyUI and every
    Python meets each of the four ways to have them.
    """
    versions = [release.version for release in MATRIX_RELEASES]
    packages = list(product(TRANSFORMERS, (False, True)))
    return [
        Cell(comfyui, python, *packages[(j - i - 1) % len(packages)])
        for (i, python), (j, comfyui) in product(enumerate(PYTHONS), enumerate(versions))
    ]


def chosen(substring: str | None, everything: bool = False) -> list[Cell]:
    """The cells whose name has the substring in it: of the default ones, or of all.

    Raises:
        DevError: there is none.
    """
    cells = all_cells() if everything else default_cells()
    found = [cell for cell in cells if (substring or "") in cell.name]
    if not found:
        raise DevError(f"No cell has '{substring}' in its name; --list shows the names.")
    return found
