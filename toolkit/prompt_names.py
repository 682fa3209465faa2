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
    if len(normal) > MAX_NAME_CHARACTERS:
        raise _error(normal, f"longer than {MAX_NAME_CHARACTERS} characters")
    parts = normal.split("/")
    if len(parts) > MAX_PARTS:
        raise _error(normal, f"more than {MAX_PARTS} folders deep")
    for part in parts:
        _check_part(normal, part)
    return normal


def _check_part(name: str, part: str) -> None:
    if not part:
        raise _error(name, "a slash at the beginning, at the end, or twice")
    if part.startswith("."):
        raise _error(name, "a part that begins with a dot")
    if part != part.strip() or part.endswith("."):
        raise _error(name, "a part that begins or ends with a space, or ends with a dot")
    for character in part:
        hidden = unicodedata.category(character)[0] in "C" or character in "\u2028\u2029"
        if character in _FORBIDDEN or (hidden and character not in _JOINERS):
            raise _error(name, f"the character {character!a}")
    try:
        size = len(part.encode())
    except UnicodeEncodeError:
        raise _error(name, "half a character") from None
    if size > MAX_PART_BYTES:
        raise _error(name, f"a part longer than {MAX_PART_BYTES} bytes")
    if part.partition(".")[0].rstrip().casefold() in _RESERVED:
        raise _error(name, "a part that Windows reserves")


def _error(name: str, problem: str) -> PromptNameError:
    shown = name if len(name) <= 60 else f"{name[:60]}..."
    return PromptNameError(
        f"{shown!r} cannot name a prompt: it has {problem}. Use plain words, with / between folders"
    )
