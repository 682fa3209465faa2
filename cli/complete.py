"""What may stand at the end of an unfinished command line; the shells ask by `vivace __complete`.

The answer has a line for each candidate, the word and what it means, with a tab between. A line
``:files`` and suffixes behind it, or ``:folders``, tells the shell to offer names of files instead.
"""

from __future__ import annotations

from .errors import CliError
from .parser import looks_like_option, split_word
from .spec import COMMON, Argument, Command, Option
from .table import COMMANDS, load, members, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


def complete(words: Sequence[str]) -> list[str]:
    """Candidates for the last of the words, which the shell puts behind an equals sign."""
    before, last = list(words[:-1]), "".join(words[-1:]).removeprefix("=")
    name, rest = split(before)
    if name in COMMANDS:
        return _in_command(load(name).COMMAND, rest, last)
    if rest:
        return []
    if looks_like_option(last) and name == "":
        return _starting(last, [*map(_described, COMMON), "--version\tthe version"])
    return _starting(last, [f"{word}\t{what}" for word, what in members(name).items()])


def _in_command(command: Command, before: list[str], last: str) -> list[str]:
    options = (*command.options, *COMMON)
    by_name = {name: option for option in options for name in (option.name, option.short) if name}
    used: list[str] = []
    plain = 0
    waiting: Option | None = None
    dashes = False
    for word in before:
        if waiting is not None:
            waiting = None
        elif word == "--":
            dashes = True
        elif dashes or not looks_like_option(word):
            plain += 1
        else:
            name, equals, _ = split_word(word)
            option = by_name.get(name)
            if option is not None:
                used.append(option.name)
                waiting = option if option.kind is not None and not equals else None
    if waiting is not None:
        return _values(waiting, last)
    if not dashes and last.startswith("--") and "=" in last:
        name, _, value = last.partition("=")
        option = by_name.get(name)
        if option is None or option.kind is None:
            return []
        found = _values(option, value)
        return [one if one[:1] == ":" else f"{name}={one}" for one in found]
    if not dashes and last.startswith("-"):
        free = [option for option in options if option.repeat or option.name not in used]
        return _starting(last, map(_described, free))
    argument = _argument(command, plain)
    return [] if argument is None else _values(argument, last)


def _argument(command: Command, index: int) -> Argument | None:
    for position, argument in enumerate(command.arguments):
        if position == index or argument.count in "*+":
            return argument
    return None


def _values(item: Argument | Option, last: str) -> list[str]:
    if item.completer is not None:
        try:
            return _starting(last, _function(item.completer)(last))
        except (CliError, OSError, ValueError):
            return []  # nothing that could be printed here would be read by a person
    if item.choices is not None:
        return _starting(last, item.choices)
    kind = item.kind
    if kind is None or kind.files is None:
        return []
    if "/" in kind.files:
        return [":folders"]
    return [" ".join((":files", *filter(None, kind.files)))]


def _function(name: str) -> Callable[[str], Sequence[str]]:
    from importlib import import_module

    module, _, function = name.partition(":")
    return getattr(import_module(f".{module}", __package__), function)


def _described(option: Option) -> str:
    return f"{option.name}\t{option.help}"


def _starting(last: str, lines: Iterable[str]) -> list[str]:
    return [line for line in lines if line.startswith(last)]
