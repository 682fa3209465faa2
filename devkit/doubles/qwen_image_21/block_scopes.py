"""The memory of one block, which newer ComfyUI takes back when the next one begins.

With dynamic VRAM it records what a block allocates, and lets every block have the same addresses:
a tensor that outlives its block ends the run. Here such tensors are counted.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Allocations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.made: list[weakref.ref[Tensor]] = []
        self.paused = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not self.paused:
            given = {_place(tensor) for tensor in _tensors((args, kwargs))}
            fresh = (tensor for tensor in _tensors(out) if _place(tensor) not in given)
            self.made += map(weakref.ref, fresh)  # a view allocates nothing
        return out


def _tensors(values: Any) -> Iterator[Tensor]:
    """The tensors that have a storage of their own: a quantized one is made of others."""
    leaves = (value for value in tree_leaves(values) if isinstance(value, Tensor))
    return (tensor for tensor in leaves if not hasattr(tensor, "_layout_cls"))


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class BlockScopes:
    """What is allocated between two calls of `turn` may live until the second.

    Attributes:
        blocks: how many blocks have ended.
        outlived: the shapes of tensors that outlived their block.
    """

    def __init__(self) -> None:
        self.blocks = 0
        self.outlived: list[tuple[int, ...]] = []
        self._open: _Allocations | None = None

    @contextmanager
    def around(self) -> Iterator[None]:
        """Watch the blocks of one forward."""
        with _Allocations() as self._open:
            yield
        self._open = None

    def turn(self, keep: Tensor) -> None:
        """End a block; `keep` is what it hands to the next one."""
        assert self._open is not None
        alive = [tensor for made in self._open.made if (tensor := made()) is not None]
        others = (tensor for tensor in alive if _place(tensor) != _place(keep))
        self.outlived += [tuple(tensor.shape) for tensor in others]
        self._open.made.clear()
        self.blocks += 1

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Leave out what is allocated meanwhile, which may live longer."""
        assert self._open is not None
        self._open.paused = True
        yield
        self._open.paused = False
