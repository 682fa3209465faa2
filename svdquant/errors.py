"""The exception of the SVDQuant checkpoints."""

from __future__ import annotations

import os

SUPPORTED = (
    "Supported are int4 SVDQuant checkpoints of Qwen-Image and Z-Image as Nunchaku publishes them "
    "(svdq-int4_r32-..., r128, r256; safetensors)"
)


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file, the fault and the remedy."""

    def __init__(self, path: str | os.PathLike[str], problem: str, remedy: str = SUPPORTED) -> None:
        self.path = os.fspath(path)
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{self.path}: {problem}. {remedy}")

    def __reduce__(self) -> tuple[type[CheckpointError], tuple[str, str, str]]:
        return type(self), (self.path, self.problem, self.remedy)


class Refused(ValueError):  # noqa: N818  (a verdict, turned into a CheckpointError with the path)
    """Why a header is no supported checkpoint, in words that follow the file's name."""
