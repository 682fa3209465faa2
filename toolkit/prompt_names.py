"""Names of prompts as paths below the library: the same on every system, and never out of it."""

from __future__ import annotations

import unicodedata

MAX_PART_BYTES = 120  # of UTF-8; file systems allow 255, and ours add suffixes
MAX_NAME_CHARACTERS = 200  # Windows allows 260 for a whole path
MAX_PARTS = 8
_FORBIDDEN = frozenset('<>:"\\|?*')
_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [f"{device}{digit}" for device in ("com", "lpt") for digit in "0123456789¹²³"]
)
# Joiners, which emoji and some scripts need; other invisible characters could fake a name.
_JOINERS = frozenset("\u200c\u200d")


class PromptNameError(ValueError):
    """A name that cannot be a file's on every system; the message says why."""


def check_name(name: str) -> str:
    """Return the name in its one form: Unicode NFC, single slashes between folders.

    Raises:
        PromptNameError: empty, too long or deep, absolute, with ``..``, hidden, reserved by
            Windows, or with characters that file systems forbid or nobody sees.
    """
    normal = unicodedata.normalize("NFC", name)
    if not normal:
        raise PromptNameError("the name is empty. Give one, such as 'portraits/soft light'")
    if fault := find_fault(normal):
        shown = normal if len(normal) <= 60 else f"{normal[:60]}..."
        raise PromptNameError(
            f"{shown!r} cannot name a prompt: it has {fault}. Use plain words, with / between"
            " folders"
        )
    return normal


def find_fault(name: str) -> str | None:
    """What keeps a name in Unicode NFC from being a file's on every system, or None."""
    if len(name) > MAX_NAME_CHARACTERS:
        return f"more than {MAX_NAME_CHARACTERS} characters"
    parts = name.split("/")
    if len(parts) > MAX_PARTS:
        return f"more than {MAX_PARTS} folders"
    if any(part.casefold().endswith(".json") for part in parts[:-1]):
        return "a folder that ends in .json, as the file of a prompt does"
    return next((fault for part in parts if (fault := _part_fault(part))), None)


def _part_fault(part: str) -> str | None:
    if not part:
        return "a slash at the beginning, at the end, or twice"
    if part.startswith("."):
        return "a part that begins with a dot"
    if part != part.strip() or part.endswith("."):
        return "a part that begins or ends with a space, or ends with a dot"
    for character in part:
        hidden = unicodedata.category(character)[0] in "C" or character in "\u2028\u2029"
        if character in _FORBIDDEN or (hidden and character not in _JOINERS):
            return f"the character {character!a}"
    if len(part.encode()) > MAX_PART_BYTES:
        return f"a part longer than {MAX_PART_BYTES} bytes"
    if part.partition(".")[0].rstrip().casefold() in _RESERVED:
        return "a part that Windows reserves"
    return None
