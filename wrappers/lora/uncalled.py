"""Tells of layers whose branch a run has lost, since nobody called them.

A branch acts when its layer is called. Code that computes a layer from its weight loses it, and the
picture is one without the LoRA, without a word. So a run notes which layers were called, and at its
end those are named that were not, although the module around them was: a block that a cache, a
patch or the model itself leaves out is no loss. A run that an error ends tells nothing.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from ..targets.layered_class import MARK, was_called, watch
from .node_text import show_at_node
from .placement import SHOWN

if TYPE_CHECKING:
    from .running_model import RunningModel

log = logging.getLogger(__name__)


def unit_of(path: str) -> str:
    """The module around a layer, as `layers.0` or `cap_embedder`; "" where it is the network."""
    parts = path.split(".")
    length = 2 if len(parts) > 2 and parts[1].isdigit() else 1
    return ".".join(parts[:length]) if len(parts) > length else ""


def watch_units(paths: Iterable[str], running: RunningModel) -> list[Any]:
    """Watch the modules around these layers; returns those that `take_off` has to undo."""
    modules = (running.module(unit) for unit in _units(paths, running))
    return [module for module in modules if module is not None and watch(module)]


def uncalled(paths: Collection[str], running: RunningModel) -> list[str]:
    """Return the layers that were not called, although the module around them was."""
    called = {path: _called(path, running) for path in paths}
    ran = {unit_of(path) for path, seen in called.items() if seen}
    ran |= {unit for unit in _units(paths, running) if was_called(running.module(unit))}
    if ran:
        ran.add("")
    return [path for path, seen in called.items() if seen is False and unit_of(path) in ran]


def tell(paths: Collection[str], running: RunningModel) -> None:
    """Say at the end of a run which of these layers were not called, and keep it for reports."""
    if sys.exc_info()[0] is not None:
        return
    lost = uncalled(paths, running)
    running.uncalled = frozenset(lost)
    if lost:
        text = warning(lost)
        log.warning("%s", text)
        show_at_node(text)


def warning(lost: Collection[str]) -> str:
    """What a user reads of layers that were not called."""
    names = ", ".join(sorted(lost)[:SHOWN])
    more = f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
    layers = "1 layer was" if len(lost) == 1 else f"{len(lost)} layers were"
    return (
        f"LoRA without effect: {layers} computed without being called, which leaves out what runs"
        f" beside: {names}{more}. Set `mode` to `merge`, or take off what replaces the"
        " model's own code (an attention or speed patch of another pack)."
    )


def _units(paths: Iterable[str], running: RunningModel) -> list[str]:
    """The modules to watch for these layers.

    The network is not watched, since its compiled form keeps the call that it was made with; its
    first block tells of it.
    """
    units = dict.fromkeys(unit_of(path) for path in paths)
    if "" in units:
        del units[""]
        units.setdefault(f"{next(iter(running.architecture.depths))}.0")
    return list(units)


def _called(path: str, running: RunningModel) -> bool | None:
    place = running.offload.copy_of(path) if running.offload else None
    if place is None:
        return was_called(running.module(path))
    block, copy = place
    layer = copy.__dict__.get(MARK)
    return None if layer is None else block in layer.seen
