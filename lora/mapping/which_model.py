"""Which model a file was made for, by all that speaks for one: names, shapes, labels, and names
that only another model has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..files.header import TensorInfo
from .adapter_config import AdapterConfig
from .architecture import Architecture
from .key_map import Names
from .observed_shape import observed_shape
from .other_models import (
    MAGE_FLOW_BLOCKS,
    MAGE_FLOW_MODULES,
    SIZES,
    TELLING_DEPTHS,
    TELLS,
    TWINS,
    WIDTHS,
    Twin,
    model_of_label,
)

Infos = Mapping[str, TensorInfo]
_LABELS = ("ss_base_model_version", "modelspec.architecture", "model_type", "ss_network_module")
_SHOWN = 40
_CLIP = "text_model"
_HEAD_NORMS = ("norm_q", "norm_k", "norm_added_q", "norm_added_k", "q_norm", "k_norm")


@dataclass(frozen=True)
class Verdict:
    """The model that a file is for; None if it is refused, for the reason in `refusal`."""

    architecture: Architecture | None
    refusal: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Module:
    """A module of the file that the chosen model has: its path, and whether the shape fits (None
    where the tensors do not tell)."""

    path: str
    shape: tuple[int | None, int | None] | None
    fits: bool | None
    block: int | None

    @property
    def common(self) -> bool:
        """Whether models of many kinds have it: what is in no block, and the norm of a head."""
        return self.block is None or self.path.endswith(_HEAD_NORMS)


@dataclass(frozen=True)
class Label:
    """What a file says of its model: where, the text, and what that means (None if unknown)."""

    place: str
    text: str
    model: str | None


def judge(
    names: Names,
    infos: Infos,
    labels: Iterable[Label],
    architectures: tuple[Architecture, ...],
) -> Verdict:
    """Choose the model, or say what speaks against every supported one."""
    said = [label for label in labels if label.model is not None]
    best, modules = _best(names, infos, said, architectures)
    tell = _tell(names, best)
    if best is None:
        return Verdict(None, f"made for {tell[1]} (it has {tell[0]!r})" if tell else None)
    if tell is not None:
        return Verdict(None, _contradiction(tell, modules, best))
    refusal = (
        _elsewhere(names, best)
        or _wrong_sizes(modules, best)
        or _wrong_label(modules, best, said)
        or _unmeasured(names, modules, best, said)
        or _unknown_modules(names, modules, best, said)
        or _telling_depth(modules, best, said)
    )
    if refusal is not None:
        return Verdict(None, refusal)
    return Verdict(best, None, tuple(_notes(modules, best, said)))


def labels_of(metadata: Mapping[str, str], config: AdapterConfig) -> list[Label]:
    """Return what a header, and the configuration of an adapter, call the model."""
    found = [(name, metadata[name]) for name in _LABELS if metadata.get(name)]
    found += [(config.source, name) for name in config.base_models]
    return [Label(place, text[:_SHOWN], model_of_label(text)) for place, text in found]


def _best(
    names: Names,
    infos: Infos,
    said: list[Label],
    architectures: tuple[Architecture, ...],
) -> tuple[Architecture | None, list[_Module]]:
    """The model that most shapes fit, then most names, then that a label names."""
    best: tuple[tuple[int, int, bool], Architecture, list[_Module]] | None = None
    for architecture in architectures:
        modules = _modules(names, infos, architecture)
        if not modules:
            continue
        fitting = sum(module.fits is True for module in modules)
        named = any(label.model == architecture.title for label in said)
        rank = fitting, len(modules), named
        if best is None or rank > best[0]:
            best = rank, architecture, modules
    return (None, []) if best is None else best[1:]


def _modules(names: Names, infos: Infos, architecture: Architecture) -> list[_Module]:
    found = []
    for stem in names.stems:
        target = stem.target(architecture)
        if target is None or all(claim.role is None for claim in stem.claims):
            continue
        shape = observed_shape(stem, infos, target.shape)
        known = None if shape is None else _fits(shape, target.shape)
        found.append(_Module(target.module, shape, known, _block(target.module)))
    return found


def _fits(shape: tuple[int | None, int | None], expected: tuple[int, ...]) -> bool:
    wanted = expected if len(expected) == 2 else (expected[0], None)
    return all(a is None or b is None or a == b for a, b in zip(shape, wanted, strict=True))


def _block(path: str) -> int | None:
    part = path.split(".", 2)
    return int(part[1]) if len(part) == 3 and part[1].isdecimal() else None


def _tell(names: Names, best: Architecture | None) -> tuple[str, str] | None:
    """A module that only another model has, and that model's title."""
    foreign = [*names.strange]
    if best is not None:
        foreign += [stem.name for stem in names.stems if stem.target(best) is None]
    flat = [(f"_{name.replace('.', '_')}_", name) for name in foreign]
    for piece, title in TELLS:
        for text, name in flat:
            if piece in text:
                return name[:100], title
    return None


def _contradiction(tell: tuple[str, str], modules: list[_Module], best: Architecture) -> str:
    name, title = tell
    fitting = [module for module in modules if module.fits is not False]
    own = next((m.path for m in fitting if not _shared_by_any(m, best)), None)
    if own is None:
        return f"made for {title} (it has {name!r})"
    return (
        f"its names contradict each other: {name!r} is a module of {title}, {own!r} one of"
        f" {best.title}"
    )


def _shared_by_any(module: _Module, best: Architecture) -> bool:
    return any(_could_be(twin, module) for twin in TWINS if twin.of == best.name)


def _could_be(twin: Twin, module: _Module) -> bool:
    """Whether another model has this module, by name, block and shape."""
    if module.block is not None and module.block >= twin.depth:
        return False
    return not twin.shared or any(piece in module.path for piece in twin.shared)


def _elsewhere(names: Names, best: Architecture) -> str | None:
    """Modules that only another supported model has."""
    for stem in names.stems:
        known = any(claim.role is not None for claim in stem.claims)
        if known and stem.target(best) is None:
            other = stem.owners[0].architecture.title
            own = next(s.name for s in names.stems if s.target(best) is not None)
            return (
                f"its names contradict each other: {stem.name[:100]!r} is a module of {other},"
                f" {own[:100]!r} one of {best.title}"
            )
    return None


def _wrong_sizes(modules: list[_Module], best: Architecture) -> str | None:
    wrong = [module for module in modules if module.fits is False]
    for module in wrong:
        for axis, size in enumerate(module.shape or ()):
            title = SIZES.get((module.path, axis, size or 0))
            if title is not None:
                place = ("rows", "inputs")[axis]
                return f"made for {title} ({module.path} has {size} {place})"
    fitting = sum(module.fits is True for module in modules)
    widths = [width for module in wrong if (width := _width(module, best)) is not None]
    known = [width for width in widths if width in WIDTHS and width != best.hidden]
    if len(wrong) <= fitting or not (known or fitting):
        return None  # where nothing fits, the modules are refused one by one, with their sizes
    if not known:
        return f"made for another model ({wrong[0].path} is {wrong[0].shape} there)"
    return f"made for {WIDTHS[known[0]]} (width {known[0]} instead of {best.hidden})"


def _width(module: _Module, best: Architecture) -> int | None:
    """The observed width, of a module that takes the model's own, or else returns it."""
    path = best.layout(module.path)[0].module
    shape = best.modules[path].shape
    for axis in range(len(shape) - 1, -1, -1):
        size = None if module.shape is None else module.shape[axis]
        if shape[axis] == best.hidden and size is not None:
            return size
    return None


def _wrong_label(modules: list[_Module], best: Architecture, said: list[Label]) -> str | None:
    """A label of another model, where names and shapes could be that model's too."""
    if any(label.model == best.title for label in said):
        return None
    fitting = [module for module in modules if module.fits is not False]
    nothing_own = all(module.common for module in fitting)
    for label in said:
        twins = [twin for twin in TWINS if (twin.title, twin.of) == (label.model, best.name)]
        if nothing_own or any(all(_could_be(t, m) for m in fitting) for t in twins):
            return f"made for {label.model} ({label.place} says {label.text!r})"
    return None


def _unmeasured(
    names: Names, modules: list[_Module], best: Architecture, said: list[Label]
) -> str | None:
    """Rotations that all blocks share, which fit any width, of names that other models have too."""
    roles = {claim.role for stem in names.stems for claim in stem.claims}
    if "oft_R" not in roles or any(label.model == best.title for label in said):
        return None
    if any(m.fits is not None or not (m.common or _shared_by_any(m, best)) for m in modules):
        return None
    others = _could_be_whose(modules, best)
    return f"its tensors do not tell the width of the model, and its names are in {others} too"


def _unknown_modules(
    names: Names, modules: list[_Module], best: Architecture, said: list[Label]
) -> str | None:
    """Modules that no supported model has, or not of this size, beside such as others have too."""
    if any(label.model == best.title for label in said):
        return None
    partial = [twin for twin in TWINS if twin.of == best.name and twin.shared]
    fitting = [module for module in modules if module.fits is not False]
    if not all(m.common or any(_could_be(twin, m) for twin in partial) for m in fitting):
        return None
    others = f"and the others are in {_could_be_whose(fitting, best)} too"
    # A few may be somebody's own; another model has more of them.
    if 3 * len(names.strange) >= max(len(fitting), 1):
        name = names.strange[0][:100]
        return f"{len(names.strange)} of its modules are in no supported model ({name!r}), {others}"
    clip = next((key for key in names.foreign if _CLIP in key), None)
    if clip is not None:
        return f"no supported model has the text encoder of {clip[:100]!r}, {others}"
    # In a block, a size that differs from those of its neighbours is a fault of the file.
    wrong = next((m for m in modules if m.fits is False and m.block is None), None)
    if wrong is not None and fitting:
        return f"its {wrong.path} of size {wrong.shape} is in no supported model, {others}"
    return None


def _could_be_whose(modules: list[_Module], best: Architecture) -> str:
    titles = dict.fromkeys(
        twin.title
        for twin in TWINS
        if twin.of == best.name and all(_could_be(twin, module) for module in modules)
    )
    *first, last = [*titles][:3] or ["other models"]
    return f"{', '.join(first)} and {last}" if first else last


def _telling_depth(modules: list[_Module], best: Architecture, said: list[Label]) -> str | None:
    """All blocks of a model with fewer of them, and no other, where nothing says whose they are."""
    if best.name != "qwen_image" or any(label.model == best.title for label in said):
        return None
    by_block: dict[int, set[str]] = {}
    for module in modules:
        if module.block is None or not module.path.startswith("transformer_blocks."):
            continue
        by_block.setdefault(module.block, set()).add(module.path.split(".", 2)[2])
    count = len(by_block)
    if sorted(by_block) != list(range(count)):
        return None
    kinds = by_block[0] if by_block else set()
    if any(found != kinds for found in by_block.values()):
        return None
    title = TELLING_DEPTHS.get(count)
    if title and all(".attn." in f".{kind}" for kind in kinds):
        return f"probably made for {title} (the attention of just {count} blocks, and no label)"
    whole = {path for path in best.modules if path.startswith("transformer_blocks.0.")}
    linears = {f"transformer_blocks.0.{kind}" for kind in kinds} & whole
    linears = {path for path in linears if best.modules[path].kind == "linear"}
    if count == MAGE_FLOW_BLOCKS and len(linears) == MAGE_FLOW_MODULES:
        return f"probably made for Mage Flow (all modules of just {count} blocks, and no label)"
    return None


def _notes(modules: list[_Module], best: Architecture, said: list[Label]) -> list[str]:
    other = next((label for label in said if label.model != best.title), None)
    if other is not None:
        return [
            f"{other.place} says {other.text!r}, but its module names and shapes are those of"
            f" {best.title}, so it is applied"
        ]
    fitting = [module for module in modules if module.fits is not False]
    if said or not fitting or best.name == "z_image":
        return []
    if not all(module.common or _shared_by_any(module, best) for module in fitting):
        return []
    others = _could_be_whose(fitting, best)
    return [f"its names and sizes fit {others} too, without a label"]
