"""Counts what torch's operations write, so that a copy that nobody needs is seen."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_NO_WORK = ("aten.empty", "aten.detach", "aten.lift_fresh")


class MovedBytes(TorchDispatchMode):
    """Within it, `written` grows by the bytes of each operation's result that is not a view."""

    def __init__(self) -> None:
        super().__init__()
        self.written = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        known = set() if func._schema.is_mutable else {storage(tensor) for tensor in inputs}
        if not str(func).startswith(_NO_WORK):
            for leaf in tree_leaves(result):
                if isinstance(leaf, torch.Tensor) and storage(leaf) not in known:
                    self.written += leaf.nbytes
        return result


def storage(tensor: torch.Tensor) -> int:
    """The address of a tensor's memory."""
    return tensor.untyped_storage().data_ptr()
