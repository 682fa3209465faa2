"""A model as a list of modules, with every other name that files have for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Kind = Literal["linear", "norm", "embedding", "parameter"]


@dataclass(frozen=True)
class Module:
    """One module of a model.

    `shape` is that of the weight: ``(out, in)`` for a linear layer, ``(n,)`` for a norm. A
    ``parameter`` is a bare tensor, such as a pad token. An `optional` module exists only in some
    variants of the model.
    """

    path: str
    kind: Kind
    shape: tuple[int, ...]
    bias: bool = False
    optional: bool = False

    def parameter_name(self, parameter: str = "weight") -> str:
        """Return the state_dict name of this module's ``"weight"`` or ``"bias"``."""
        return self.path if self.kind == "parameter" else f"{self.path}.{parameter}"


class RowBlock(NamedTuple):
    """Rows ``start:stop`` of a weight, and the module (or part of a module) they belong to."""

    module: str
    part: str | None
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Target:
    """What a spelling in a file names: a module, a part of one, or a fusion of several.

    `shape` is ``(out, in)`` (or ``(n,)``) of the delta that the file may hold for it, and `blocks`
    tells which canonical rows that delta covers, in order.
    """

    module: str
    part: str | None
    shape: tuple[int, ...]
    bias: bool
    linear: bool
    blocks: tuple[RowBlock, ...]


@dataclass(frozen=True, eq=False)
class Architecture:
    """A model: its modules, the parts of fused modules, and every other name for them.

    `parts` maps a fused canonical module to its row blocks (Z-Image ``attention.qkv``). `fusions`
    maps the name of a projection that other implementations fuse to the row blocks it is made of.
    `aliases` maps a foreign module name to ``(module, part)``; part is None for the whole module.
    """

    name: str
    title: str
    hidden: int
    depths: Mapping[str, int]
    modules: Mapping[str, Module] = field(repr=False)
    parts: Mapping[str, tuple[RowBlock, ...]] = field(default_factory=dict, repr=False)
    fusions: Mapping[str, tuple[RowBlock, ...]] = field(default_factory=dict, repr=False)
    aliases: Mapping[str, tuple[str, str | None]] = field(default_factory=dict, repr=False)

    def layout(self, name: str) -> tuple[RowBlock, ...]:
        """Return the row blocks of a module or fusion, in row order.

        Raises:
            KeyError: `name` is neither a module nor a fusion of this architecture.
        """
        if name in self.fusions:
            return self.fusions[name]
        if name in self.parts:
            return self.parts[name]
        return (RowBlock(name, None, 0, self.modules[name].shape[0]),)

    def target(self, name: str, part: str | None = None) -> Target:
        """Return the target for a module, a part of one, or a fusion.

        Raises:
            KeyError: there is no such module, part or fusion.
        """
        blocks = self.layout(name)
        if part is not None:
            block = {block.part: block for block in blocks}[part]
            blocks = (RowBlock(name, part, 0, block.stop - block.start),)
        first = self.modules[blocks[0].module]
        shape = (blocks[-1].stop, *first.shape[1:])
        return Target(name, part, shape, first.bias, first.kind == "linear", blocks)

    def rows(self, module: str, part: str | None) -> tuple[int, int]:
        """Return the rows ``(start, stop)`` that `part` occupies in `module`."""
        if part is None:
            return 0, self.modules[module].shape[0]
        block = {block.part: block for block in self.parts[module]}[part]
        return block.start, block.stop


def linear(path: str, out: int, inp: int, *, bias: bool = True) -> Module:
    """Return a linear layer with a weight ``[out, inp]``."""
    return Module(path, "linear", (out, inp), bias)


def stacked(members: Iterable[tuple[str, str | None]], height: int) -> tuple[RowBlock, ...]:
    """Return row blocks of one height, one below the other, for ``(module, part)`` pairs."""
    return tuple(
        RowBlock(module, part, i * height, (i + 1) * height)
        for i, (module, part) in enumerate(members)
    )


def by_path(modules: Iterable[Module]) -> dict[str, Module]:
    """Return modules by their path."""
    return {module.path: module for module in modules}
