"""Finds where a source uses a name that another file of the pack keeps for itself."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from textwrap import dedent
from typing import NamedTuple

# Names of other projects, on values of which the source does not tell where they come from.
THIRD_PARTY = frozenset(
    {
        "_asdict", "_replace",  # of named tuples
        "_buffers", "_cdata", "_forward_pre_hooks", "_modules", "_parameters",  # of torch
        "_schema",  # of its operators
        "_layout_cls", "_params", "_qdata",  # of comfy_kitchen
        "_obj",  # of ctypes
        "_attn_implementation", "_prepare_audio_encoder_kwargs_for_generation",  # of transformers
        "_collate_lora_metadata",  # of diffusers
        "_org_weight",  # of LyCORIS
    }
)  # fmt: skip
_PACK = ("vivace", "support")
_TAKE_A_NAME = ("setattr", "getattr", "hasattr", "delattr", "object")  # `mock.patch.object`
_DOTTED = re.compile(rf"(?:{'|'.join(_PACK)})(?:\.\w+)*?\.(_[A-Za-z]\w*)")


class Use(NamedTuple):
    """A private name, and the line that has it."""

    line: int
    name: str


def private_uses(source: str) -> list[Use]:
    """Return where `source` uses a private name of the pack that it does not define itself.

    It may import the name, read it off a value, or hand it to `setattr` and the like. A string may
    be the whole name of something, or a program.
    """
    return sorted(set(_Reader(ast.parse(source)).uses()))


class _Reader:
    """Reads one syntax tree."""

    def __init__(self, tree: ast.Module) -> None:
        self.nodes = list(ast.walk(tree))
        self.own = set(self._defined())
        self.pack: set[str] = set()
        self.foreign: set[str] = set()
        for node in self.nodes:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                for alias in node.names:
                    bound = alias.asname or alias.name.partition(".")[0]
                    (self.pack if _of_pack(node, alias) else self.foreign).add(bound)

    def uses(self) -> Iterator[Use]:
        for node in self.nodes:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                yield from _imported(node)
            elif isinstance(node, ast.Attribute) and self._anothers(node.value, node.attr):
                yield Use(node.lineno, node.attr)
            elif isinstance(node, ast.Call):
                yield from self._handed_over(node)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield from _in_string(node.lineno, node.value)

    def _defined(self) -> Iterator[str]:
        """Names that this source gives to a function, a class, a variable or an attribute."""
        for node in self.nodes:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                yield node.name
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id
            elif isinstance(node, ast.Attribute) and _given_to_self(node):
                yield node.attr

    def _anothers(self, value: ast.expr, name: str) -> bool:
        """Whether a private attribute of a value is of the pack, and of another file."""
        if not _private(name):
            return False
        while isinstance(value, (ast.Attribute, ast.Call, ast.Subscript)):
            value = value.func if isinstance(value, ast.Call) else value.value
        root = value.id if isinstance(value, ast.Name) else ""
        if root in self.pack:
            return name not in THIRD_PARTY
        return root not in self.foreign and name not in self.own | THIRD_PARTY

    def _handed_over(self, call: ast.Call) -> Iterator[Use]:
        function = call.func
        called = function.attr if isinstance(function, ast.Attribute) else None
        called = function.id if isinstance(function, ast.Name) else called
        if called in _TAKE_A_NAME and len(call.args) > 1 and isinstance(call.args[1], ast.Constant):
            name = call.args[1].value
            if isinstance(name, str) and self._anothers(call.args[0], name):
                yield Use(call.lineno, name)


def _given_to_self(node: ast.Attribute) -> bool:
    owner = node.value
    return isinstance(node.ctx, ast.Store) and isinstance(owner, ast.Name) and owner.id == "self"


def _imported(node: ast.Import | ast.ImportFrom) -> Iterator[Use]:
    above = (node.module or "").split(".") if isinstance(node, ast.ImportFrom) else []
    for alias in node.names:
        if _of_pack(node, alias):
            names = [*above, *alias.name.split(".")]
            yield from (Use(node.lineno, name) for name in names if _private(name))


def _in_string(line: int, text: str) -> Iterator[Use]:
    dotted = _DOTTED.fullmatch(text)
    if dotted:
        yield Use(line, dotted[1])
    elif "import " in text and any(package in text for package in _PACK):
        try:
            program = ast.parse(dedent(text))
        except SyntaxError:
            return
        yield from (Use(line, use.name) for use in _Reader(program).uses())


def _of_pack(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> bool:
    if isinstance(node, ast.ImportFrom) and node.level:
        return True
    module = node.module if isinstance(node, ast.ImportFrom) else alias.name
    return (module or "").partition(".")[0] in _PACK


def _private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name.strip("_") != ""
