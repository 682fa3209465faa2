"""The files that other tools leave beside a LoRA: what they say about it, and its preview image."""

from __future__ import annotations

import html
import json
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .open_file import Stamp

# The ones that people edit come before those that were downloaded.
_JSON_ENDINGS = (".metadata.json", ".json", ".civitai.info", ".info")
_NOTES_ENDING = ".txt"
_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif")
PREVIEW_ENDINGS = (*_IMAGES, *(f".preview{image}" for image in _IMAGES))
MAX_BYTES = 4 * 2**20
MAX_TEXT = 20_000
_UNKNOWN = frozenset({"", "unknown", "none", "other"})

# Of every file beside a LoRA: its ending, size in bytes, and what else tells whether it changed.
Stamps = tuple[tuple[str, int, Stamp], ...]


@dataclass(frozen=True)
class Facts:
    """What one file says; None or empty is what it does not say. `notes` are the user's own."""

    title: str | None = None
    base_model: str | None = None
    trigger_words: tuple[str, ...] = ()
    notes: str | None = None
    description: str | None = None


def stamps(lora: Path) -> Stamps:
    """What tells whether any file beside a LoRA has changed. Previews are not among them."""
    found = []
    for ending in (*_JSON_ENDINGS, _NOTES_ENDING):
        try:
            status = lora.with_name(lora.stem + ending).stat()
        except (OSError, ValueError):
            continue
        if stat.S_ISREG(status.st_mode):
            found.append((ending, status.st_size, Stamp.of(status)))
    return tuple(found)


def read_facts(lora: Path, present: Stamps) -> tuple[list[Facts], list[str]]:
    """Read the files of `present`, those that people edit first.

    Returns:
        What each says, and why any was ignored.
    """
    facts, problems = [], []
    for ending, size, _ in present:
        path = lora.with_name(lora.stem + ending)
        try:
            text = _read(path, size)
            said = Facts(notes=plain(text)) if ending == _NOTES_ENDING else _facts(_object(text))
        except OSError as error:
            problems.append(f"{path.name} is ignored: it cannot be read ({error.strerror}).")
        except ValueError as error:
            problems.append(f"{path.name} is ignored: {error}.")
        else:
            # Notes in a file of their own go before all others.
            facts.insert(0 if ending == _NOTES_ENDING else len(facts), said)
    return facts, problems


def previews(names: Iterable[str]) -> dict[str, str]:
    """The preview image for each stem, among the names of the files in one folder."""
    found: dict[str, tuple[int, str]] = {}
    for name in names:
        lower = name.lower()
        for rank, ending in enumerate(PREVIEW_ENDINGS):
            if lower.endswith(ending):
                stem = name[: -len(ending)]
                found[stem] = min(found.get(stem, (rank, name)), (rank, name))
    return {stem: name for stem, (_, name) in found.items()}


def find_preview(lora: Path) -> Path | None:
    """The preview image beside a LoRA, if there is one."""
    try:
        with os.scandir(lora.parent) as entries:
            name = previews(entry.name for entry in entries if entry.is_file()).get(lora.stem)
    except OSError:
        return None
    return None if name is None else lora.with_name(name)


def unique(words: Iterable[Any]) -> tuple[str, ...]:
    """The texts among `words` that say something, each once, without outer blanks and commas."""
    texts = (plain(word).strip(", ") for word in words if isinstance(word, str))
    return tuple(dict.fromkeys(text for text in texts if text))


def plain(text: str) -> str:
    """A text without outer blanks and half characters, of at most `MAX_TEXT` characters."""
    return text.strip()[:MAX_TEXT].encode("utf-8", "replace").decode("utf-8").rstrip()


def _read(path: Path, size: int) -> str:
    if size > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES >> 20} MiB")
    with path.open("rb") as file:
        return file.read(MAX_BYTES).decode("utf-8-sig", errors="replace")


def _object(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    return value


def _facts(content: Mapping[str, Any]) -> Facts:
    """Read the fields of a web UI's model card, of LoRA Manager, and of Civitai's own answer."""
    nested = content.get("civitai")
    civitai: Mapping[str, Any] = nested if isinstance(nested, dict) else content
    model = civitai.get("model")
    words = civitai.get("trainedWords")
    activation = content.get("activation text")
    more = activation.split(",") if isinstance(activation, str) else ()
    title = model.get("name") if isinstance(model, dict) else None
    return Facts(
        title=_first(content.get("model_name"), title),
        base_model=_first(
            content.get("base_model"), civitai.get("baseModel"), content.get("sd version")
        ),
        trigger_words=unique([*(words if isinstance(words, list) else ()), *more]),
        notes=_first(content.get("notes")),
        description=_first(
            _from_html(content.get("description")), _from_html(content.get("modelDescription"))
        ),
    )


def _first(*values: object) -> str | None:
    """The first of the values that is a text and says something."""
    texts = (plain(value) for value in values if isinstance(value, str))
    return next((text for text in texts if text and text.lower() not in _UNKNOWN), None)


def _from_html(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    text = re.sub(r"<(br|/p|/li)\b[^<>]*>", "\n", value[: 4 * MAX_TEXT], flags=re.IGNORECASE)
    return html.unescape(re.sub(r"</?[a-z][^<>]*>", "", text, flags=re.IGNORECASE))
