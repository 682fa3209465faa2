"""Captions beside images: ``cat.png`` has its caption in ``cat.txt``, as training tools expect."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from ..defaults import DEFAULTS
from ..hub.model_folders import PARTIAL_SUFFIX

_EXISTING = DEFAULTS["VivaceQwenVLBatch"]["existing"]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
CAPTION_SUFFIX = ".txt"
# What to do where there is a caption already.
EXISTING = ("skip", "overwrite", "append")
MAX_CAPTION_BYTES = 16 * 2**20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class CaptionError(ValueError):
    """A folder, image or caption that cannot be used; the message names it and the remedy."""

    def __init__(self, path: Path, problem: str, remedy: str) -> None:
        self.path = path
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{path} {problem}. {remedy}")

    def __reduce__(self) -> tuple[type[CaptionError], tuple[Path, str, str]]:
        return type(self), (self.path, self.problem, self.remedy)


class ImageFolder:
    """The images of a folder.

    Args:
        path: absolute, or beginning with ``~``.
        recursive: take the folders below as well.

    Raises:
        ValueError: the path is relative.
        CaptionError: there is no such folder, or it is a file.
    """

    def __init__(self, path: str, recursive: bool = False) -> None:
        self.path = _absolute(path)
        self.recursive = recursive
        if os.path.isfile(self.path):  # noqa: PTH113  (pathlib's raises where entry is forbidden)
            problem = "is a file, not a folder"
            raise CaptionError(self.path, problem, f"Give its folder: {self.path.parent}")
        if not os.path.isdir(self.path):  # noqa: PTH112
            problem = "is no folder, or may not be entered"
            raise CaptionError(self.path, problem, "Check the path and the permissions")

    def images(self) -> list[Path]:
        """List the image files, in natural order: ``2.png`` before ``10.png``.

        Hidden and partial files and folders are left out, so are links that lead out of the folder,
        and linked folders.

        Raises:
            CaptionError: a folder cannot be read, there are no images, or two would share a
                caption.
        """
        try:
            images = list(self._find())
        except OSError as error:
            raise _system_error(Path(error.filename), "read", error) from None
        if not images:
            where = "and the folders below it hold" if self.recursive else "holds"
            endings = ", ".join(sorted(IMAGE_SUFFIXES))
            raise CaptionError(self.path, f"{where} no images ({endings})", "Choose another folder")
        images.sort(key=lambda path: _natural(path.relative_to(self.path)))
        _check_captions_differ(images)
        return images

    def _find(self) -> Iterator[Path]:
        root = os.path.realpath(self.path)
        for folder, folders, files in os.walk(self.path, onerror=_raise):
            folders[:] = [name for name in folders if self.recursive and not _left_out(name)]
            for name in files:
                path = Path(folder, name)
                if path.suffix.lower() not in IMAGE_SUFFIXES or _left_out(name):
                    continue
                if path.is_file() and Path(os.path.realpath(path)).is_relative_to(root):
                    yield path

    def pending(self, existing: str = _EXISTING) -> list[Path]:
        """List the images that are to be captioned, in the order of `images`.

        With ``"skip"`` these are the images without a caption, or with an empty one: an interrupted
        run continues where it stopped. Otherwise they are all images.

        Raises:
            ValueError: `existing` is none of `EXISTING`.
            CaptionError: as `images`, or a caption cannot be read.
        """
        _check_existing(existing)
        images = self.images()
        if existing != "skip":
            return images
        return [image for image in images if _is_blank(_read(caption_path(image)))]


def caption_path(image: Path) -> Path:
    """Return the path of an image's caption: the image's, with the suffix ``.txt``."""
    return image.with_suffix(CAPTION_SUFFIX)


def write_caption(image: Path, text: str, existing: str = _EXISTING) -> bool:
    """Write a caption beside its image, in UTF-8; readers find the old or the new file, whole.

    Args:
        text: white space around it is left out.
        existing: what to do where there is a caption that is not empty. ``"skip"`` leaves it alone,
            ``"overwrite"`` replaces it, ``"append"`` adds the text on a new line, unless the
            caption has the same lines already.

    Returns:
        Whether anything was written.

    Raises:
        ValueError: `existing` is none of `EXISTING`.
        CaptionError: the text is empty, the caption cannot be written, or what is there is no
            text file in UTF-8 to append to. What was there is still there.
    """
    _check_existing(existing)
    # Half characters, which a model may write and UTF-8 does not have, become question marks.
    text = text.replace("\ufeff", "").encode(errors="replace").decode()
    caption = "\n".join(text.strip().splitlines())
    if not caption:
        raise CaptionError(image, "was given an empty caption", "Change the prompt and run again")
    path = caption_path(image)
    old = _read(path)
    if _is_blank(old):
        old = b""
    elif existing == "skip":
        return False
    elif existing == "overwrite":
        old = b""
    elif f"\n{caption}\n" in f"\n{_lines(path, old)}\n":
        return False
    if old and not old.endswith(b"\n"):
        old += b"\n"
    _replace(path, old + f"{caption}\n".encode())
    return True


def _absolute(text: str) -> Path:
    text = text.strip()
    if not text:
        raise ValueError("No folder is given. Write the path of a folder with images")
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise ValueError(f"'{text}' names no user of this system. Write the whole path") from None
    if not path.is_absolute():
        raise ValueError(
            f"'{text}' is a relative path. Write the absolute one, such as {path.absolute()}"
        )
    return path


def _left_out(name: str) -> bool:
    return name.startswith(".") or PARTIAL_SUFFIX in (s.lower() for s in Path(name).suffixes)


def _natural(path: Path) -> tuple[tuple[tuple[str | int, ...], str], ...]:
    """Return a key that sorts numbers in names by value, and ties by the name itself."""

    def key(name: str) -> tuple[str | int, ...]:
        parts = re.split(r"([0-9]+)", name.casefold())  # text and number in turn
        return tuple(int(part) if place % 2 else part for place, part in enumerate(parts))

    return tuple((key(name), name) for name in path.parts)


def _check_captions_differ(images: Iterable[Path]) -> None:
    """Refuse images of one caption, also where only some file systems tell the names apart."""
    owners: dict[str, Path] = {}
    for image in images:
        name = unicodedata.normalize("NFC", str(caption_path(image))).casefold()
        other = owners.setdefault(name, image)
        if other is not image:
            problem = f"and {other} would share the caption {caption_path(image).name}"
            raise CaptionError(image, problem, "Rename one of the two, or move it away")


def _check_existing(existing: str) -> None:
    if existing not in EXISTING:
        raise ValueError(f"existing is {existing!r}. Choose one of {', '.join(EXISTING)}")


def _read(path: Path) -> bytes:
    """Read a caption; nothing if there is none."""
    if not os.path.lexists(path):
        return b""
    if not path.is_file():  # reading a pipe would never end
        raise CaptionError(path, "is no file, so no caption can be kept there", "Move it away")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CAPTION_BYTES + 1)
    except OSError as error:
        raise _system_error(path, "read", error) from None
    if len(content) > MAX_CAPTION_BYTES:
        problem = f"is larger than {MAX_CAPTION_BYTES >> 20} MiB, so it is no caption"
        raise CaptionError(path, problem, "Move it away")
    return content


def _is_blank(content: bytes) -> bool:
    return not content.removeprefix(_BYTE_ORDER_MARK).strip()


def _lines(path: Path, content: bytes) -> str:
    try:
        return "\n".join(content.decode("utf-8-sig").splitlines())
    except UnicodeDecodeError:
        problem = "is not in UTF-8, so nothing can be appended"
        raise CaptionError(path, problem, "Save it as UTF-8 in an editor") from None


def _replace(path: Path, content: bytes) -> None:
    if path.is_symlink():
        problem = "is a link, which a new caption would replace"
        raise CaptionError(path, problem, "Put a copy of the file in its place, or move it away")
    # In the same folder, since a file can be replaced only within one file system.
    temporary = path.with_name(f".{secrets.token_hex(8)}{PARTIAL_SUFFIX}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileNotFoundError):
            shutil.copymode(path, temporary)
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise _system_error(path, "written", error) from None


def _raise(error: OSError) -> None:
    raise error


def _system_error(path: Path, what: str, error: OSError) -> CaptionError:
    reason = error.strerror or type(error).__name__
    problem = f"cannot be {what} ({reason})"
    return CaptionError(path, problem, "Check the permissions and the disk")
