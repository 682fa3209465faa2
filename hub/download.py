"""Downloads a model into a folder: when asked to, at a pinned commit, resumable, all or nothing.

The files grow in a folder of the same name with ``.partial`` behind, which becomes the model's
folder once it is complete. What an interrupted download left there is not fetched again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..defaults import DEFAULTS
from .model_check import INDEX, MARKER, SINGLE, CheckedModel, check_complete
from .model_folders import PARTIAL_SUFFIX, ModelFolderError, read_json
from .repository import HubFile, HubModel, by_hand, look_up

# What a cut connection loses at most: a chunk is handed over whole or not at all.
CHUNK_BYTES = 2**16
_INCOMPLETE = ".incomplete"
_SPARE_BYTES = 64 * 2**20  # left free on the disk


class DownloadCancelledError(Exception):
    """The caller's `cancelled` said so; what has come is kept for the next time."""


@dataclass(frozen=True)
class Progress:
    """Bytes of the model that are here, of `total`; `file` is the one being fetched."""

    file: str
    done: int
    total: int


@dataclass(frozen=True)
class DownloadSettings:
    """Seconds that the hub may say nothing, tries without progress, seconds between them."""

    timeout: float = 20.0
    tries: int = 4
    pause: float = 1.0


def download_model(
    repo: str,
    folder: Path,
    revision: str = DEFAULTS["VivaceQwenVLDownload"]["revision"],
    endpoint: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    settings: DownloadSettings | None = None,
    check: Callable[[Path], CheckedModel] = check_complete,
) -> CheckedModel:
    """Download `repo` to `folder` unless it is there already, and check it.

    Args:
        revision: a branch, tag or commit; what it points to now is pinned for the whole download.
        endpoint: the hub's address; that of huggingface_hub (``HF_ENDPOINT``) unless given.
        on_progress: called after each 64 KiB, and for each file that was there.
        cancelled: asked as often. A hub that says nothing is noticed after the time-out.
        check: tells whether a folder is complete, and what it holds.

    Raises:
        ModelFolderError: the hub cannot be reached or lacks the model, the disk is full, the folder
            holds something else, or the files that came are not those promised.
        DownloadCancelledError: `cancelled` said so.
    """
    if (folder / MARKER).is_file():
        marker = read_json(folder, MARKER)
        if marker.get("repo") == repo and revision in (marker.get("revision"), marker.get("asked")):
            return check(folder)
    if folder.exists():
        problem = f"there is a folder already, which is not {repo} at {revision}"
        raise ModelFolderError(folder, problem, "Delete or rename it, or choose another name")
    model = look_up(repo, revision, str(folder), endpoint)
    with _locked(folder):
        partial = folder.with_name(folder.name + PARTIAL_SUFFIX)
        _prepare(partial, model, folder)
        job = _Job(folder, partial, model, on_progress, cancelled, settings or DownloadSettings())
        sizes = job.run()
        marker = {"repo": repo, "revision": model.revision, "asked": revision, "files": sizes}
        (partial / MARKER).write_text(json.dumps(marker, indent=1), encoding="utf-8")
        check(partial)
        try:
            partial.rename(folder)
        except OSError as error:
            raise _disk_error(folder, error) from None
    return check(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes from downloading to the same place."""
    from filelock import FileLock, Timeout

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0)
        lock.acquire()
    except Timeout:
        problem = "it is being downloaded by another process"
        raise ModelFolderError(folder, problem, "Wait until that is done") from None
    except OSError as error:
        raise _disk_error(folder, error) from None
    try:
        yield
    finally:
        lock.release()


def _prepare(partial: Path, model: HubModel, folder: Path) -> None:
    """Make the partial folder; one of another commit is of no use and starts anew."""
    note = partial / MARKER
    pinned = {"repo": model.repo, "revision": model.revision}
    try:
        if partial.exists() and not note.is_file():
            problem = f"{partial.name} beside it was not made by this download"
            raise ModelFolderError(folder, problem, "Delete or rename that folder")
        if note.is_file():
            noted = read_json(partial, MARKER)
            if any(noted.get(name) != value for name, value in pinned.items()):
                shutil.rmtree(partial)
        partial.mkdir(exist_ok=True)
        note.write_text(json.dumps(pinned), encoding="utf-8")
    except OSError as error:
        raise _disk_error(folder, error) from None


def _disk_error(folder: Path, error: OSError) -> ModelFolderError:
    problem = f"cannot be written ({error.strerror or error})"
    return ModelFolderError(folder, problem, "Check the folder's permissions and the disk")


class _Job:
    """The files of one model, fetched one after the other."""

    def __init__(
        self,
        folder: Path,
        partial: Path,
        model: HubModel,
        on_progress: Callable[[Progress], None] | None,
        cancelled: Callable[[], bool] | None,
        settings: DownloadSettings,
    ) -> None:
        self._folder = folder
        self._partial = partial
        self._model = model
        self._on_progress = on_progress
        self._cancelled = cancelled
        self._settings = settings
        self._done = 0
        self._total = 0

    def run(self) -> dict[str, int]:
        """Fetch what is missing; return the size of every file."""
        import requests

        with requests.Session() as session:
            session.headers.update({**self._model.headers, "Accept-Encoding": "identity"})
            small = self._model.small
            self._total = sum(file.size for file in (*small, *self._model.weights))
            for file in small:
                self._file(session, file)
            weights = self._wanted_weights()
            self._total = sum(file.size for file in (*small, *weights))
            self._check_space(weights)
            for file in weights:
                self._file(session, file)
        return {file.name: file.size for file in (*small, *weights)}

    def _wanted_weights(self) -> list[HubFile]:
        """The weights that the index names: a model may hold further copies of them."""
        if (self._partial / INDEX).is_file():
            places = read_json(self._partial, INDEX).get("weight_map")
            names = set(places.values()) if isinstance(places, dict) else set()
        else:
            names = {SINGLE}
        wanted = [file for file in self._model.weights if file.name in names]
        if not wanted or len(wanted) < len(names):
            problem = f"{self._model.repo} on the hub lacks weight files that it names itself"
            raise ModelFolderError(self._folder, problem, "Choose another model or revision")
        return wanted

    def _check_space(self, files: list[HubFile]) -> None:
        here = (self._partial / (file.name + _INCOMPLETE) for file in files)
        missing = sum(file.size for file in files if not (self._partial / file.name).is_file())
        missing -= sum(path.stat().st_size for path in here if path.is_file())
        free = shutil.disk_usage(self._partial).free
        if missing + _SPARE_BYTES > free:
            problem = f"needs {missing / 2**30:.1f} GiB, but the disk has {free / 2**30:.1f} GiB"
            raise ModelFolderError(self._folder, problem, "Free some space, or use another disk")

    def _file(self, session: Any, file: HubFile) -> None:
        """Fetch one file, going on where it was cut as long as something comes."""
        final = self._partial / file.name
        if final.is_file() and final.stat().st_size == file.size:
            self._report(file, file.size)
            self._done += file.size
            return
        growing = self._partial / (file.name + _INCOMPLETE)
        fruitless = 0
        try:
            growing.touch()
            while (before := growing.stat().st_size) < file.size:
                reason = self._fetch(session, file, growing, before)
                if reason:
                    fruitless = 0 if growing.stat().st_size > before else fruitless + 1
                    if fruitless >= self._settings.tries:
                        raise self._unreachable(file, reason)
                    self._pause()
            self._verify(file, growing)
            growing.replace(final)
        except OSError as error:
            raise _disk_error(self._folder, error) from None
        self._done += file.size

    def _fetch(self, session: Any, file: HubFile, growing: Path, begin: int) -> str:
        """Append what comes; return why it ended early, or nothing."""
        import requests

        headers = {"Range": f"bytes={begin}-"} if begin else {}
        try:
            with session.get(
                file.url, headers=headers, stream=True, timeout=self._settings.timeout
            ) as response:
                status = response.status_code
                if 400 <= status < 500 and status not in (408, 429):
                    raise self._unreachable(file, f"HTTP {status}")
                if status not in (200, 206):
                    return f"HTTP {status}"
                # A server without ranges starts over.
                mode = "ab" if begin and status == 206 else "wb"
                with growing.open(mode) as out:
                    for chunk in response.iter_content(CHUNK_BYTES):
                        out.write(chunk)
                        self._report(file, out.tell())
                        if out.tell() > file.size:
                            break
        except requests.RequestException as error:
            return type(error).__name__
        return "" if growing.stat().st_size >= file.size else "the connection was cut"

    def _verify(self, file: HubFile, path: Path) -> None:
        size = path.stat().st_size
        if size == file.size and file.sha256 is not None:
            with path.open("rb") as content:
                digest = hashlib.sha256()
                while chunk := content.read(CHUNK_BYTES):
                    digest.update(chunk)
            right = digest.hexdigest() == file.sha256
        else:
            right = size == file.size
        if not right:
            path.unlink()
            problem = f"{file.name} came with other content than the hub promises"
            remedy = "Download it again; if it happens again, check proxies and the disk"
            raise ModelFolderError(self._folder, problem, remedy, (file.name,))

    def _unreachable(self, file: HubFile, reason: str) -> ModelFolderError:
        host = file.url.split("/")[2]
        problem = f"{file.name} cannot be fetched from {host} ({reason}); the rest is kept"
        remedy = f"Try again later. {by_hand(self._model.repo, str(self._folder))}"
        return ModelFolderError(self._folder, problem, remedy, (file.name,))

    def _pause(self) -> None:
        until = time.monotonic() + self._settings.pause
        while time.monotonic() < until:
            self._check_cancelled()
            time.sleep(min(0.05, self._settings.pause))

    def _check_cancelled(self) -> None:
        if self._cancelled is not None and self._cancelled():
            raise DownloadCancelledError(f"the download of {self._model.repo} was cancelled")

    def _report(self, file: HubFile, here: int) -> None:
        self._check_cancelled()
        if self._on_progress is not None:
            self._on_progress(Progress(file.name, self._done + here, self._total))
