"""The class that a module has while something of ours stands beside it.

While a model samples, the class of each module that a stack changes is replaced by a subclass whose
`__call__` goes through a layer. That keeps the module, its parameters, their names and `isinstance`
as they are; it covers a `forward` that other packs have replaced; and `torch.compile` sees it,
because its guards compare the types of modules.

Some functions of ComfyUI compute a linear from its weight and never call it, which would lose what
stands beside it. They leave a linear alone whose `_full_precision_mm` is true, so that is what a
module with a layer says to all but itself: its own forward has to see the real value, or quantized
weights would be computed in another way.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Protocol

import torch

MARK = "_vivace_branch"  # the attribute of a module where its layer is
CALL = "_vivace_call"  # and what its calls leave behind, of a watched one too
GUARD = "_full_precision_mm"


class Layer(Protocol):
    """What stands beside a module while a model samples: how its output is computed."""

    def product(self, module: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The module's output without LoRAs."""
        ...

    def __call__(self, x: torch.Tensor, y: torch.Tensor, module: Any) -> torch.Tensor:
        """`y`, the product of `module` for `x`, with the branch added."""
        ...


class Call:
    """What the calls of one module leave behind.

    Writing to it is all that a call costs; compiled code does so after its graph has run.

    Attributes:
        seen: whether the module was called since `put` or `watch`.
        inside: whether its own code runs now. An error leaves that as it is, which ends the run,
            and the next one has a new object; a `finally` would keep `torch.compile` from going on
            after a graph break.
        real: what the module's own code reads as `_full_precision_mm`; `...` if it has none. It
            is kept here, since `torch.compile` takes a look into the `__dict__` of a module for the
            property of that name, and never comes to an end.
    """

    __slots__ = ("inside", "real", "seen")

    def __init__(self, real: Any = ...) -> None:
        self.seen = False
        self.inside = False
        self.real = real


def put(module: Any, layer: Layer) -> None:
    """Make a module's calls go through a layer, until `take_off`."""
    real = getattr(module, GUARD, ...)
    module.__class__ = _with_layer(type(module))
    module.__dict__[MARK] = layer
    module.__dict__[CALL] = Call(real)


def watch(module: Any) -> bool:
    """Note whether a module is called, until `take_off`; False if that is noted already."""
    if CALL in module.__dict__:
        return False
    module.__class__ = _watched(type(module))
    module.__dict__[CALL] = Call()
    return True


def take_off(module: Any) -> None:
    """Undo `put` or `watch`, if it was done."""
    if module.__dict__.pop(CALL, None) is not None:
        module.__dict__.pop(MARK, None)
        module.__class__ = type(module).__base__


def was_called(module: Any) -> bool | None:
    """Whether a module was called since `put` or `watch`; None where neither was done."""
    call = module.__dict__.get(CALL)
    return None if call is None else call.seen


def plain_call(module: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
    """The module's own output, without its layer."""
    bare: Any = type(module).__base__
    call: Call = module.__dict__[CALL]
    call.inside = True
    y = bare.__call__(module, *args, **kwargs)
    call.inside = False
    return y


def _guard(self: Any) -> Any:
    call = self.__dict__[CALL]
    if not call.inside:
        return True
    if call.real is ...:
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {GUARD!r}")
    return call.real


def _set_guard(self: Any, value: Any) -> None:
    self.__dict__[GUARD] = self.__dict__[CALL].real = value  # the first stays after `take_off`


@lru_cache(maxsize=64)
def _with_layer(cls: type[torch.nn.Module]) -> type[torch.nn.Module]:
    def __call__(self: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:  # noqa: N807
        layer = self.__dict__[MARK]
        self.__dict__[CALL].seen = True
        return layer(x, layer.product(self, x, *args, **kwargs), self)

    guard = property(_guard, _set_guard)
    return _subclass(cls, {"__call__": __call__, GUARD: guard})


@lru_cache(maxsize=64)
def _watched(cls: type[torch.nn.Module]) -> type[torch.nn.Module]:
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        self.__dict__[CALL].seen = True
        return cls.__call__(self, *args, **kwargs)

    return _subclass(cls, {"__call__": __call__})


def _subclass(cls: type[torch.nn.Module], members: dict[str, Any]) -> type[torch.nn.Module]:
    return type(cls.__name__, (cls,), {**members, "__module__": cls.__module__})
