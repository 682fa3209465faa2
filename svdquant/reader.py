"""One open checkpoint file, as Nunchaku publishes it or as converted by us."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from ..lora.errors import LoraError
from ..lora.files.open_file import LoraFile
from .checkpoint import describe
from .errors import CheckpointError
from .state_dict_names import MARKER, with_current_names
from .stream import converted

_REMEDY = "Choose a checkpoint in a diffusion_models folder; if it is damaged, download it again"


class CheckpointFile:
    """A checkpoint, opened once and read once; use as a context manager.

    Attributes:
        converted: the file holds what `pieces` yields: it was written by `save.write_converted`.
        count: number of pieces, for progress.
        metadata: of the file's header.

    Raises:
        CheckpointError: the file cannot be read, or is no supported checkpoint.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        with self._errors():
            self._file = LoraFile(path)
        try:
            header = self._file.header
            self.metadata = header.metadata
            self.converted = any(name.endswith(f".{MARKER}") for name in header.tensors)
            self._checkpoint = None if self.converted else describe(header, path)
            layers = self._modules() if self._checkpoint is None else self._checkpoint.layers
            self.count = len(layers)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> CheckpointFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def pieces(self) -> Iterator[dict[str, Tensor]]:
        """Yield the state_dict of ComfyUI's model, in file order, a layer at a time.

        Raises:
            CheckpointError: the file cannot be read to the end, or changed meanwhile.
        """
        with self._errors():
            if self._checkpoint is not None:
                yield from converted(self._checkpoint, self._file.read)
            else:
                for names in self._modules():
                    yield with_current_names(self._file.read(names))
            self._file.check_unchanged(self._file.stamp)

    def _modules(self) -> list[list[str]]:
        """The tensor names of each module, in file order."""
        found: dict[str, list[str]] = {}
        for name in self._file.header.tensors:
            found.setdefault(name.rpartition(".")[0] or name, []).append(name)
        return list(found.values())

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except LoraError as error:
            raise CheckpointError(self.path, error.problem, _REMEDY) from None
        except CheckpointError:
            raise
        except ValueError as error:
            raise CheckpointError(self.path, str(error)) from None
