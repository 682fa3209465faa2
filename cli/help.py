"""The help of the program, of a group and of a command, as text."""

from __future__ import annotations

import os

from .spec import COMMON, Argument, Command, Option
from .table import COMMANDS, GROUPS, members

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_ABOUT = "LoRA files, workflows and models for ComfyUI from the shell."
_STATUS = (
    "Exit status: 0 done, 1 failed, 2 wrong usage or configuration, 3 no server answers,"
    " 130 interrupted."
)
_LEAST, _MOST, _COLUMN = 40, 100, 26


def root_help(bold: bool) -> str:
    """What `vivace --help` shows."""
    return _listing("vivace", _ABOUT, "", bold)


def group_help(group: str, bold: bool) -> str:
    """What `vivace GROUP --help` shows."""
    return _listing(f"vivace {group}", _sentence(GROUPS[group]), group, bold)


def _listing(prog: str, about: str, group: str, bold: bool) -> str:
    parts = [
        f"{_title('Usage', bold)} {prog} COMMAND [OPTION…] [ARGUMENT…]",
        _wrap(about),
        f"{_title('Commands', bold)}\n{_rows(members(group).items())}",
    ]
    if not group:
        common = [*map(_option, COMMON), ("    --version", "show the version, without a command")]
        parts.append(f"{_title('Options of every command', bold)}\n{_rows(common)}")
        parts.append(_wrap(_STATUS))
    parts.append(_wrap(f"'{prog} COMMAND --help' tells more of one."))
    return "\n\n".join(parts)


def command_help(name: str, command: Command, bold: bool) -> str:
    """What `vivace NAME --help` shows."""
    words = [_usage(option) for option in command.options]
    words += [_place(argument) for argument in command.arguments]
    usage = " ".join(["vivace", name, *words])
    indent = len("Usage: vivace ") + len(name) + 1
    parts = [
        _title("Usage", bold) + _wrap(f"Usage: {usage}", indent)[len("Usage:") :],
        _wrap(_sentence(COMMANDS[name][1])),
        *(_wrap(paragraph) for paragraph in command.description.split("\n\n") if paragraph),
    ]
    if command.arguments:
        rows = [(_place(a), _with_choices(a)) for a in command.arguments]
        parts.append(f"{_title('Arguments', bold)}\n{_rows(rows)}")
    if command.options:
        parts.append(f"{_title('Options', bold)}\n{_rows(map(_option, command.options))}")
    parts.append(f"{_title('Options of every command', bold)}\n{_rows(map(_option, COMMON))}")
    if command.examples:
        lines = [f"  {what}\n    {line}" for line, what in command.examples]
        parts.append("\n".join([_title("Examples", bold), *lines]))
    if command.status:
        parts.append(_wrap(f"Exit status 1: {command.status}"))
    return "\n\n".join(parts)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _title(text: str, bold: bool) -> str:
    return f"\x1b[1m{text}:\x1b[0m" if bold else f"{text}:"


def _option(option: Option) -> tuple[str, str]:
    name = f"{option.short}, {option.name}" if option.short else f"    {option.name}"
    if option.kind is not None:
        name += f" {option.kind.metavar}"
    return name, _with_choices(option)


def _with_choices(item: Argument | Option) -> str:
    text = item.help
    if item.choices and not any(choice in text for choice in item.choices):
        text += f" ({', '.join(item.choices)})"
    if isinstance(item, Option):
        if item.repeat:
            text += " (may be repeated)"
        if item.default is not None:
            text += f" (default: {item.default})"
        if item.setting:
            text += f" [setting: {item.setting}]"
    return text


def _usage(option: Option) -> str:
    text = (option.short or option.name) + (f" {option.kind.metavar}" if option.kind else "")
    return text if option.required else f"[{text}]"


def _place(argument: Argument) -> str:
    name = argument.metavar
    return {"1": name, "?": f"[{name}]", "+": f"{name}…", "*": f"[{name}…]"}[argument.count]


def _rows(rows: Iterable[tuple[str, str]]) -> str:
    """Two columns; a first column that is too long has a line for itself."""
    lines: list[str] = []
    for left, right in rows:
        text = _wrap(right, _COLUMN, start=_COLUMN)
        if len(left) + 4 > _COLUMN:
            lines.append(f"  {left}\n{' ' * _COLUMN}{text}")
        else:
            lines.append(f"  {left}".ljust(_COLUMN) + text)
    return "\n".join(lines)


def _width() -> int:
    try:
        columns = int(os.environ.get("COLUMNS", "")) or _MOST
    except ValueError:
        try:
            columns = os.get_terminal_size().columns
        except OSError:
            columns = _MOST
    return max(_LEAST, min(columns, _MOST))


def _wrap(text: str, indent: int = 0, start: int = 0) -> str:
    """Break lines at spaces. (`textwrap` loads `re`.)"""
    width = _width()
    lines: list[str] = [""]
    used = start
    for word in text.split():
        if lines[-1] and used + 1 + len(word) > width:
            lines.append(word)
            used = indent + len(word)
        else:
            used += len(word) + bool(lines[-1])
            lines[-1] += f" {word}" if lines[-1] else word
    return f"\n{' ' * indent}".join(lines)
