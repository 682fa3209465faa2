"""From the words after a command to values, without loading anything."""

from __future__ import annotations

from .errors import UsageError
from .spec import COMMON, Argument, Command, Option, Values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any


def parse(name: str, command: Command, words: Sequence[str]) -> Values:
    """Read the words of a command.

    Options that are not given have their default, or None; `--` ends the options.

    Raises:
        UsageError: an unknown, repeated, incomplete or missing option, a value that is none, or
            too few or too many arguments.
    """
    remedy = f"See 'vivace {name} --help'"
    options = (*command.options, *COMMON)
    given: dict[str, list[str]] = {}
    plain = _collect(list(words), options, given, remedy)
    _check(options, given, remedy)
    placed = _place(command.arguments, plain, remedy)
    raw = [(o, o.name, given[o.name]) for o in options if o.name in given and o.kind is not None]
    raw += [(a, a.metavar, placed[a.name]) for a in command.arguments if a.name in placed]
    values: dict[str, Any] = {o.attribute: _default(o) for o in options}
    values |= {a.name: [] if a.count in "*+" else None for a in command.arguments}
    values |= {o.attribute: True for o in options if o.name in given and o.kind is None}
    # Names of files last: reading them is what loads something.
    for item, label, texts in sorted(raw, key=lambda one: _kind(one[0]).files is not None):
        read = [_read(item, label, text, remedy) for text in texts]
        several = item.repeat if isinstance(item, Option) else item.count in "*+"
        key = item.attribute if isinstance(item, Option) else item.name
        values[key] = read if several else read[0]
    return Values(values)


def _default(option: Option) -> Any:
    if option.kind is None:
        return False
    return [] if option.repeat else option.default


def _kind(item: Argument | Option) -> Any:
    return item.kind


def _collect(
    words: list[str], options: Iterable[Option], given: dict[str, list[str]], remedy: str
) -> list[str]:
    """Take the options out of the words; return the others."""
    by_name = {option.name: option for option in options}
    by_name |= {option.short: option for option in options if option.short}
    plain: list[str] = []
    while words:
        word = words.pop(0)
        if word == "--":
            return plain + words
        if not looks_like_option(word):
            plain.append(word)
            continue
        name, equals, value = split_word(word)
        option = by_name.get(name)
        if option is None:
            raise UsageError(f"There is no option {name}{did_you_mean(name, by_name)}", remedy)
        values = given.setdefault(option.name, [])
        if values and not option.repeat:
            raise UsageError(f"{option.name} is given twice", remedy)
        if option.kind is None:
            if equals:
                raise UsageError(f"{option.name} takes no value", remedy)
            value = "yes"
        elif not equals:
            if not words or looks_like_option(words[0]):
                raise UsageError(f"{option.name} needs a value", remedy)
            value = words.pop(0)
        values.append(value)
    return plain


def looks_like_option(word: str) -> bool:
    """Whether a word is the name of an option; a number and ``-`` alone are none."""
    return len(word) > 1 and word[0] == "-" and not (word[1].isdigit() or word[1] == ".")


def split_word(word: str) -> tuple[str, str, str]:
    """``--name=value`` or ``-nvalue`` into name, what separates them, and value."""
    if word.startswith("--"):
        return word.partition("=")
    rest = word[2:]
    return word[:2], "=" if rest else "", rest.removeprefix("=")


def _check(options: Iterable[Option], given: dict[str, list[str]], remedy: str) -> None:
    groups: dict[str, str] = {}
    for option in options:
        if option.required and option.name not in given:
            raise UsageError(f"{option.name} is missing", remedy)
        if option.group is None or option.name not in given:
            continue
        other = groups.setdefault(option.group, option.name)
        if other != option.name:
            raise UsageError(f"{other} and {option.name} exclude each other", remedy)


def _place(arguments: Sequence[Argument], plain: list[str], remedy: str) -> dict[str, list[str]]:
    """Give each argument its words; one that takes several leaves enough for those behind it."""
    placed: dict[str, list[str]] = {}
    for index, argument in enumerate(arguments):
        behind = sum(other.count in "1+" for other in arguments[index + 1 :])
        # Too few words are the first ones, so that what is missing is the last.
        free = max(0, min(len(plain), 1) if argument.count in "1+" else 0, len(plain) - behind)
        taken = min(free, 1) if argument.count in "1?" else free
        if taken == 0 and argument.count in "1+":
            raise UsageError(f"{argument.metavar} is missing", remedy)
        if taken:
            placed[argument.name], plain = plain[:taken], plain[taken:]
    if plain:
        raise UsageError(f"'{plain[0]}' is one argument too many", remedy)
    return placed


def _read(item: Argument | Option, label: str, text: str, remedy: str) -> Any:
    if item.choices is not None and text not in item.choices:
        raise UsageError(f"{label} is '{text}', not one of {', '.join(item.choices)}", remedy)
    try:
        return _kind(item).read(text)
    except ValueError as error:
        raise UsageError(f"{label} is '{text}', which must be {error}", remedy) from None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question that names the nearest known word, if one is near; "" otherwise."""
    distance, best = min((_distance(word, other), other) for other in known)
    return f"; did you mean {best}?" if distance <= max(1, len(word) // 3) else ""


def _distance(a: str, b: str) -> int:
    """Least number of characters to insert, remove or replace. (`difflib` loads a lot.)"""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]
