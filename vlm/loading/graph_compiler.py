"""What all compiled graphs share: how they are compiled, called, and why they fail."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch

Backend = str | Callable[..., Any]

COMPILE_MODES = ("auto", "on", "off")


def compile_whole(
    function: FunctionType, device: torch.device, backend: Backend
) -> Callable[..., torch.Tensor]:
    """Compile a function to one graph of fixed shapes; on CUDA, it is recorded and replayed.

    Args:
        backend: of `torch.compile`.
    """
    replayed = device.type == "cuda" and backend == "inductor"
    return torch.compile(
        _with_own_code(function),
        fullgraph=True,
        dynamic=False,
        backend=backend,
        mode="reduce-overhead" if replayed else None,
    )


def call_graph(
    function: Callable[..., torch.Tensor], device: torch.device, *arguments: Any
) -> torch.Tensor:
    """Call what `compile_whole` returned."""
    if device.type != "cuda":
        return function(*arguments)
    torch.compiler.cudagraph_mark_step_begin()
    # The next replay of a CUDA graph overwrites what this one returns.
    return function(*arguments).clone()


def warm_up(function: Callable[..., torch.Tensor], device: torch.device, *arguments: Any) -> None:
    """Call what `compile_whole` returned until it is as fast as it will be."""
    # On CUDA the first run compiles, the second records a CUDA graph, and only the third is fast.
    for _ in range(2 if device.type == "cuda" else 1):
        call_graph(function, device, *arguments)
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def failure_cause(error: Exception) -> Exception:
    """Return what a backend of `torch.compile` raised, or else the error itself."""
    return getattr(error, "inner_exception", error)


def failure_reason(error: Exception) -> str:
    """Say in one line why compiling, or what was compiled, failed."""
    cause = failure_cause(error)
    reason = str(cause).strip().partition("\n")[0] or "no reason given"
    return f"compiling failed ({type(cause).__name__}: {reason})"


def _with_own_code(function: FunctionType) -> Callable[..., torch.Tensor]:
    """Copy a function together with its code object.

    Compiled variants are kept per code object: up to a limit, found by trying them in turn, and for
    as long as it lives. With its own one, each graph is found at once and can be dropped.
    """
    return FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
