"""Values of a prompt's variables, as a text: `name = value` lines, or a JSON object."""

from __future__ import annotations

import json
import re

_LINE = re.compile(r"\s*([^\W\d]\w*)\s*[=:]\s?(.*?)\s*")


class VariablesError(ValueError):
    """A text that gives no values; the message says which line is wrong."""


def parse_variables(text: str) -> dict[str, str]:
    """The values by name. Empty lines count for nothing, nor do lines that begin with ``#``.

    Values in JSON may be texts, numbers or booleans.

    Raises:
        VariablesError: neither such lines nor JSON, or a name is given twice.
    """
    if text.lstrip().startswith("{"):
        return _from_json(text)
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise VariablesError(
                f"line {number} of variables gives no value: {line.strip()[:40]!r}."
                " Write name = value, one a line"
            )
        name, value = match.groups()
        if name in values:
            raise VariablesError(f"variables gives '{name}' twice, again in line {number}")
        values[name] = value
    return values


def _from_json(text: str) -> dict[str, str]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise VariablesError(f"variables begins like JSON, but is none ({error})") from None
    values: dict[str, str] = {}
    for name, value in content.items():
        if not isinstance(value, str | int | float):
            raise VariablesError(f"the value of '{name}' in variables is no text or number")
        values[name] = value if isinstance(value, str) else json.dumps(value)
    return values
