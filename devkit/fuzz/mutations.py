"""Ways to damage an input: its bytes, or the values that they stand for."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

_SIZES = (0, 1, 2, 3, 15, 16, 17, 64, 127, 128, 255, 256, 2**31 - 1, 2**31, 2**32, 2**63, 2**64)
_NUMBERS = (
    *_SIZES, -1, -(2**31), 10**30, 10**400, 10**4000, 0.5, -0.5, 1e-320, 1e308,
    float("inf"), float("nan"),
)  # fmt: skip
_TEXTS = (
    "", " ", "None", "null", "nan", "1e999", "0", "-1", "\0", "\n", "\ud800", "\udfff\ud800", "é",
    "e\u0301", "\u202e", "𝄞", "..", "../x", "/", "a/b", "\\", "{", "}", "[]", "<", "|", '"', "%s",
    "x" * 300, "A", "a",
)  # fmt: skip
_TOKENS = (
    b"\0", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"9" * 30, b"9" * 4000, b"-1", b"1e999", b"NaN",
    b"null", b"{", b"}", b"[", b"]", b'"', b"\\", b"\\ud800", b",", b":", b"\n", b"\r\n", b"",
)  # fmt: skip
_DEPTHS = (5, 60, 300, 700, 5000)
# Stands for a list in a list and so on, which the encoder could not write.
_DEEP = "\u2603deep:"


def bytes_of(data: bytes, chance: random.Random) -> bytes:
    """Change a few bytes or runs of bytes."""
    found = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        where = chance.randrange(len(found) + 1)
        length = chance.choice((1, 2, 4, 8, 20, 100))
        kind = chance.randrange(7)
        if kind == 0 and where < len(found):
            found[where] = chance.randrange(256)
        elif kind == 1 and where < len(found):
            found[where] ^= 1 << chance.randrange(8)
        elif kind == 2:
            del found[where : where + length]
        elif kind == 3:
            found[where:where] = found[where : where + length]
        elif kind == 4:
            source = chance.randrange(len(found) + 1)
            found[where : where + length] = found[source : source + length]
        elif kind == 5 and chance.random() < 0.3:
            del found[where:]
        else:
            found[where : where + chance.randrange(2)] = chance.choice(_TOKENS)
    return bytes(found)


def json_of(data: bytes, chance: random.Random, words: Sequence[str] = ()) -> bytes:
    """Change values, names and structure of JSON, or, seldom, its bytes; the latter of all else.

    Args:
        words: strings and names that mean something to the target.
    """
    if chance.random() < 0.08:
        return bytes_of(data, chance)
    try:
        return encoded(value_of(json.loads(data), chance, words), chance)
    except (ValueError, RecursionError):
        return bytes_of(data, chance)


def encoded(value: Any, chance: random.Random) -> bytes:
    """JSON text, in one of the ways that it can be written, of a value that `value_of` returned."""
    text = json.dumps(value, ensure_ascii=chance.random() < 0.8)
    for depth in _DEPTHS:
        if (name := f"{_DEEP}{depth}") in text or (name := json.dumps(name)[1:-1]) in text:
            shell = ("[", "]") if chance.random() < 0.5 else ('{"a":', "}")
            text = text.replace(f'"{name}"', f"{shell[0] * depth}0{shell[1] * depth}")
    return text.encode("utf-8", "surrogatepass")


def value_of(value: Any, chance: random.Random, words: Sequence[str] = ()) -> Any:
    """A JSON value with up to three changes anywhere in it."""
    root = [value]
    for _ in range(chance.choice((1, 1, 2, 3))):
        places = _places(root)
        holder, key = chance.choice(places)
        _change(holder, key, places, chance, words)
    return root[0] if root else None


def _places(root: list[Any]) -> list[tuple[Any, Any]]:
    """Every list or object with each of its keys, without going down by recursion."""
    found: list[tuple[Any, Any]] = []
    waiting: list[Any] = [root]
    while waiting:
        item = waiting.pop()
        keys = list(item) if isinstance(item, dict) else range(len(item))
        for key in keys:
            found.append((item, key))
            if isinstance(item[key], (dict, list)):
                waiting.append(item[key])
    return found or [([None], 0)]


def _change(
    holder: Any,
    key: Any,
    places: list[tuple[Any, Any]],
    chance: random.Random,
    words: Sequence[str],
) -> None:
    old = holder[key]
    other_holder, other_key = chance.choice(places)
    kind = chance.randrange(10)
    if kind < 3:
        holder[key] = _like(old, chance, words)
    elif kind == 3:
        holder[key] = _leaf(chance, words)
    elif kind == 4:
        holder[key] = json.loads(json.dumps(other_holder[other_key]))  # of its own, and no circle
    elif kind == 5:
        del holder[key]
    elif kind == 6:
        name = chance.choice(words) if words and chance.random() < 0.6 else chance.choice(_TEXTS)
        if isinstance(holder, dict):
            holder[name] = holder.pop(key) if chance.random() < 0.6 else _leaf(chance, words)
        else:
            holder.insert(key, json.loads(json.dumps(old)))
    elif kind == 7:
        holder[key], other_holder[other_key] = json.loads(
            json.dumps([other_holder[other_key], old])
        )
    elif kind == 8:
        holder[key] = [old] if chance.random() < 0.5 else {chance.choice(words or _TEXTS): old}
    elif isinstance(holder, dict) and isinstance(key, str):
        holder[_text_like(key, chance, words)] = holder.pop(key)
    else:
        holder[key] = _leaf(chance, words)


def _like(old: Any, chance: random.Random, words: Sequence[str]) -> Any:
    """A value of the same type."""
    if isinstance(old, bool):
        return not old
    if isinstance(old, (int, float)):
        near = (old + 1, old - 1, -old, old * 2, old // 2 if old == old else 0)
        return chance.choice((*near, *_NUMBERS)) if abs(old) < 1e300 else chance.choice(_NUMBERS)
    if isinstance(old, str):
        return _text_like(old, chance, words)
    return _leaf(chance, words)


def _leaf(chance: random.Random, words: Sequence[str]) -> Any:
    kind = chance.randrange(8)
    if kind == 0:
        return chance.choice((None, True, False))
    if kind < 3:
        return chance.choice(_NUMBERS)
    if kind == 3:
        return [] if chance.random() < 0.5 else {}
    if kind == 4 and chance.random() < 0.3:
        return f"{_DEEP}{chance.choice(_DEPTHS)}"
    return chance.choice(words) if words and chance.random() < 0.6 else chance.choice(_TEXTS)


def _text_like(old: str, chance: random.Random, words: Sequence[str]) -> str:
    kind, where = chance.randrange(6), chance.randrange(len(old) + 1)
    piece = chance.choice(words) if words and chance.random() < 0.5 else chance.choice(_TEXTS)
    if kind == 0:
        return piece
    if kind == 1:
        return old[:where] + piece + old[where:]
    if kind == 2:
        return old[:where] + old[where + chance.randint(1, 8) :]
    if kind == 3:
        return old[:where] + old[where:] * 2
    if kind == 4:
        return old.swapcase()
    # Names are made of parts, of which one is exchanged.
    mark = chance.choice("._:/ ")
    parts, others = old.split(mark), piece.split(mark)
    parts[chance.randrange(len(parts))] = chance.choice(others)
    return mark.join(parts)
