"""Prompts with variables, `{name}`, and alternatives, `{red|green|{dark|light} blue}`.

The same text, values and seed give the same prompt on every machine and Python version. A literal
brace or bar is written with a backslash before it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

MAX_DEPTH = 32
_NAME = re.compile(r"[^\W\d]\w*")
_ESCAPED = frozenset("{}|\\")


class TemplateError(ValueError):
    """A prompt that cannot be expanded; the message says where and what to write instead."""


@dataclass(frozen=True)
class _Variable:
    name: str


@dataclass(frozen=True)
class _Choice:
    number: int  # of all choices of the text, in the order of their opening braces
    options: tuple[_Parts, ...]


_Parts = tuple["str | _Variable | _Choice", ...]


def expand(text: str, variables: Mapping[str, str] | None = None, seed: int = 0) -> str:
    """Put in the variables and choose among the alternatives.

    Each choice depends on the seed and on its place among the text's choices, not on what the
    others chose. Values are put in as they are: braces in them mean nothing.

    Raises:
        TemplateError: unbalanced braces, nesting too deep, or a variable without a value.
    """
    return _render(_parse(text), variables or {}, seed)


def variable_names(text: str) -> list[str]:
    """The variables of a text, each once, in order of appearance.

    Raises:
        TemplateError: unbalanced braces, or nesting too deep.
    """
    names: dict[str, None] = {}

    def walk(parts: _Parts) -> None:
        for part in parts:
            if isinstance(part, _Variable):
                names[part.name] = None
            elif isinstance(part, _Choice):
                for option in part.options:
                    walk(option)

    walk(_parse(text))
    return list(names)


def _render(parts: _Parts, variables: Mapping[str, str], seed: int) -> str:
    words: list[str] = []
    for part in parts:
        if isinstance(part, str):
            words.append(part)
        elif isinstance(part, _Variable):
            if part.name not in variables:
                given = ", ".join(sorted(variables)) or "none"
                raise TemplateError(
                    f"the variable {{{part.name}}} has no value; given are: {given}."
                    " Give it one, or write \\{ for a brace"
                )
            words.append(variables[part.name])
        else:
            option = part.options[_draw(seed, part.number, len(part.options))]
            words.append(_render(option, variables, seed))
    return "".join(words)


def _draw(seed: int, number: int, count: int) -> int:
    # Not random.Random: its choices may differ between Python versions.
    digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % count


def _parse(text: str) -> _Parts:
    return _Parser(text).parse()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._choices = 0

    def parse(self) -> _Parts:
        parts = self._parts(0)
        if self._at < len(self._text):
            raise self._error(self._at, "a closing brace without an opening one")
        return parts

    def _parts(self, depth: int) -> _Parts:
        """Up to the end, or, inside of braces, up to a bar or the closing brace."""
        parts: list[str | _Variable | _Choice] = []
        literal: list[str] = []
        while self._at < len(self._text):
            character = self._text[self._at]
            following = self._text[self._at + 1 : self._at + 2]
            if character == "\\" and following and following in _ESCAPED:
                literal.append(following)
                self._at += 2
            elif character == "{":
                if literal:
                    parts.append("".join(literal))
                    literal = []
                parts.append(self._braces(depth + 1))
            elif character == "}" or (character == "|" and depth > 0):
                break
            else:
                literal.append(character)
                self._at += 1
        if literal:
            parts.append("".join(literal))
        return tuple(parts)

    def _braces(self, depth: int) -> _Variable | _Choice:
        start = self._at
        if depth > MAX_DEPTH:
            raise self._error(start, f"braces nested more than {MAX_DEPTH} deep")
        number = self._choices
        self._choices += 1
        options: list[_Parts] = []
        while True:
            self._at += 1
            options.append(self._parts(depth))
            if self._at == len(self._text):
                raise self._error(start, "an opening brace without a closing one")
            if self._text[self._at] == "}":
                break
        self._at += 1
        if len(options) > 1:
            return _Choice(number, tuple(options))
        self._choices -= 1  # a variable is no choice; nothing in it can have been one
        name = self._text[start + 1 : self._at - 1].strip()
        if not _NAME.fullmatch(name):
            problem = f"{{{name[:40]}}} is neither a variable nor has it alternatives"
            raise self._error(start, problem)
        return _Variable(name)

    def _error(self, at: int, problem: str) -> TemplateError:
        line = self._text.count("\n", 0, at) + 1
        column = at - self._text.rfind("\n", 0, at)
        return TemplateError(
            f"line {line}, column {column}: {problem}. Write {{name}} or {{this|that}},"
            " and \\{ \\} \\| for the characters themselves"
        )
