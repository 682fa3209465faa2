"""Image embeddings kept on disk, one safetensors file each, across restarts.

A file appears under its name only when it is complete (`os.replace`), and is believed only if key,
size and checksum are right. Several processes may share a folder: each keeps to the limit by what
it has seen there in the last `disk_room.LOOK_AGAIN` seconds and has written since.
"""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
import time
import zlib
from contextlib import suppress
from pathlib import Path

import torch

from .disk_room import DiskRoom, StoredFile
from .embedding_cache import ImageEmbedding
from .hashing import EmbeddingKey

logger = logging.getLogger(__name__)

DEFAULT_LIMIT = 4 * 2**30
# A temporary file this old, in seconds, was left by a process that died.
ABANDONED_AFTER = 600.0

_ENTRY = re.compile(r"[0-9a-f]{32}\.safetensors")
_TEMPORARY_PREFIX = "writing-"
_TEMPORARY_SUFFIX = ".tmp"


class DiskTier:
    """A folder of embeddings, bounded in bytes; those not used for longest are removed first.

    Faults of the disk never raise: what cannot be read is a miss, what cannot be written is not
    kept, and `last_error` says why. Only files named like entries are ever touched.

    Args:
        folder: is made when the first embedding is stored.
        limit: bytes to keep there.
    """

    def __init__(self, folder: str | os.PathLike[str], limit: int = DEFAULT_LIMIT) -> None:
        self.folder = Path(folder)
        self.limit = limit
        self.last_error: str | None = None
        self._room = DiskRoom(self._look, self._remove)

    @property
    def nbytes(self) -> int:
        """The bytes of all entries."""
        return sum(entry.size for entry in self._known())

    def __len__(self) -> int:
        return len(self._known())

    def get(self, key: EmbeddingKey) -> ImageEmbedding | None:
        """Return the embedding and mark it as used, or None; a damaged file is removed."""
        path = self.folder / key.file_name
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._note("cannot be read", error)
            return None
        try:
            embedding = _parse(content, key)
        except ValueError as error:
            logger.warning("Removing a damaged image embedding, %s: %s", path, error)
            self._remove(path)
            self._room.forget()
            return None
        with suppress(OSError):
            os.utime(path)
        return embedding

    def put(self, key: EmbeddingKey, embedding: ImageEmbedding) -> bool:
        """Store an embedding; return whether that was possible."""
        content = _serialize(key, embedding)
        if len(content) > self.limit:
            return False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._room.make(len(content), self.limit, self.folder / key.file_name)
            self._write(self.folder / key.file_name, content)
        except OSError as error:
            self._room.forget()
            self._note("cannot be written", error)
            return False
        return True

    def clear(self) -> None:
        """Remove every entry; other files in the folder stay."""
        for entry in self._known():
            self._remove(entry.path)
        self._room.forget()

    def _known(self) -> list[StoredFile]:
        """All entries; none where the folder cannot be listed."""
        try:
            return _entries(self._files())
        except OSError as error:
            self._note("cannot be looked for", error)
            return []

    def _write(self, path: Path, content: bytes) -> None:
        handle, name = tempfile.mkstemp(_TEMPORARY_SUFFIX, _TEMPORARY_PREFIX, self.folder)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _look(self) -> list[StoredFile]:
        """All entries; what processes that died have left is removed on the way."""
        files = self._files()
        for path, status in files:
            named_so = path.name.startswith(_TEMPORARY_PREFIX) and path.suffix == _TEMPORARY_SUFFIX
            # The clock may have been set in between, either way.
            if named_so and abs(time.time() - status.st_mtime) > ABANDONED_AFTER:
                self._remove(path)
        return _entries(files)

    def _files(self) -> list[tuple[Path, os.stat_result]]:
        found = []
        with suppress(FileNotFoundError), os.scandir(self.folder) as files:
            for file in files:
                # Another process may remove it at any time.
                with suppress(FileNotFoundError):
                    if file.is_file(follow_symlinks=False):
                        found.append((Path(file.path), file.stat(follow_symlinks=False)))
        return found

    def _remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            self._note("cannot be removed", error)

    def _note(self, problem: str, error: OSError) -> None:
        self.last_error = f"{self.folder}: an image embedding {problem} ({error.strerror})"
        logger.warning("%s", self.last_error)


def _entries(files: list[tuple[Path, os.stat_result]]) -> list[StoredFile]:
    return [
        StoredFile(status.st_mtime_ns, status.st_size, path)
        for path, status in files
        if _ENTRY.fullmatch(path.name)
    ]


def _serialize(key: EmbeddingKey, embedding: ImageEmbedding) -> bytes:
    from safetensors.torch import save

    packed = embedding.packed.contiguous()
    metadata = {
        "key": repr(key),
        "crc32": str(_checksum(packed)),
        "encode_ms": repr(embedding.encode_ms),
    }
    return save({"packed": packed}, metadata)


def _parse(content: bytes, key: EmbeddingKey) -> ImageEmbedding:
    """Read what `_serialize` wrote.

    Raises:
        ValueError: it is damaged, or belongs to another key.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        packed = load(content)["packed"]
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = header["__metadata__"]
        encode_ms = float(metadata["encode_ms"])
        intact = metadata["crc32"] == str(_checksum(packed)) and metadata["key"] == repr(key)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a safetensors file of this cache ({error!r})") from None
    if not intact:
        raise ValueError("the checksum or the key is wrong")
    return ImageEmbedding(packed, key.grid_thw, encode_ms)


def _checksum(packed: torch.Tensor) -> int:
    return zlib.crc32(packed.detach().view(-1).view(torch.uint8).numpy().data)
