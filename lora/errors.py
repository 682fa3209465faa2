"""The exceptions of the LoRA engine."""

from __future__ import annotations

import os


class LoraError(ValueError):
    """A LoRA file that cannot be used; the message names the file, the fault and the remedy."""

    def __init__(self, path: str | os.PathLike[str], problem: str, remedy: str) -> None:
        self.path = os.fspath(path)
        self.problem = problem
        self.remedy = remedy
        shown = "".join(c if c.isprintable() else "?" for c in problem)  # it may quote the file
        super().__init__(f"{self.path}: {shown}. {remedy}")

    def __reduce__(self) -> tuple[type[LoraError], tuple[str, str, str]]:
        return type(self), (self.path, self.problem, self.remedy)


class LoraFileError(LoraError):
    """The file is missing, is no regular file, cannot be read, or changed while being read."""


class LoraFormatError(LoraError):
    """The bytes are not a valid safetensors or restricted pickle file."""


class LoraModelError(LoraError):
    """The file is readable but holds nothing for a supported model."""


class Unusable(ValueError):  # noqa: N818  (a verdict on one module, caught by its caller)
    """A module's tensors cannot be applied; the message says why."""
