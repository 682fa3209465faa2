"""Which functions and classes of ComfyUI a model's code can reach, from the text of its files."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Source:
    """A file, as text that is never run.

    Attributes:
        file: the path.
        module: the dotted name that others import it by.
    """

    file: Path
    module: str

    @cached_property
    def tree(self) -> ast.Module:
        """The file, parsed."""
        return ast.parse(self.file.read_bytes(), str(self.file))

    @cached_property
    def definitions(self) -> dict[str, Definition]:
        """Its functions and classes by name; those under an `if` or `try`, too."""
        return {node.name: node for node in _outside_of_functions(self.tree)}

    @cached_property
    def imports(self) -> dict[str, str]:
        """The dotted name of what each imported name stands for."""
        found: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    first = alias.name.partition(".")[0]
                    found[alias.asname or first] = alias.name if alias.asname else first
            elif isinstance(node, ast.ImportFrom):
                base = self._package(node)
                found |= {
                    alias.asname or alias.name: f"{base}.{alias.name}" for alias in node.names
                }
        return found

    def _package(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.module.split(".")
        inside = self.file.name == "__init__.py"
        base = parts[: len(parts) - node.level + inside]
        return ".".join([*base, *([node.module] if node.module else [])])


@dataclass
class Library:
    """The files of packages that lie in folders, by their dotted names.

    Attributes:
        folders: where each top-level package lies.
    """

    folders: Mapping[str, Path]
    _known: dict[str, Source | None] = field(default_factory=dict)

    def source(self, module: str) -> Source | None:
        """The file of a module; None for one of another package, or none at all."""
        if module not in self._known:
            first, *rest = module.split(".")
            self._known[module] = None
            if first in self.folders:
                path = self.folders[first].joinpath(*rest)
                for file in (path.with_suffix(".py"), path / "__init__.py"):
                    if file.is_file():
                        self._known[module] = Source(file, module)
                        break
        return self._known[module]

    def name_of(self, file: Path) -> str:
        """A file as people write it, from its package on."""
        for first, folder in self.folders.items():
            if file.is_relative_to(folder):
                return f"{first}/{file.relative_to(folder).as_posix()}"
        return str(file)

    def find(self, dotted: str) -> tuple[Source, str] | None:
        """The file and name of a function or class; through files that only import it."""
        for _ in range(8):
            module, _dot, name = dotted.rpartition(".")
            source = self.source(module)
            while source is None and module:
                module, _dot, name = module.rpartition(".")
                source = self.source(module)
            if source is None:
                return None
            if name in source.definitions:
                return source, name
            if name not in source.imports:
                return None
            dotted = source.imports[name]
        return None


def reached(
    library: Library, starts: list[str]
) -> dict[tuple[str, str], tuple[Source, Definition]]:
    """All functions and classes that the modules `starts` use, and what these use, and so on."""
    waiting = [(s, name) for m in starts if (s := library.source(m)) for name in s.definitions]
    found: dict[tuple[str, str], tuple[Source, Definition]] = {}
    while waiting:
        source, name = waiting.pop()
        if (source.module, name) in found:
            continue
        definition = source.definitions[name]
        found[source.module, name] = source, definition
        waiting += _used(library, source, definition)
    return found


def _used(library: Library, source: Source, node: ast.AST) -> Iterator[tuple[Source, str]]:
    for inner in ast.walk(node):
        name = dotted_name(inner)
        if name is None:
            continue
        first, dot, rest = name.partition(".")
        if first in source.definitions:
            yield source, first
        elif first in source.imports:
            target = library.find(source.imports[first] + dot + rest)
            if target is not None:
                yield target


def dotted_name(node: ast.AST) -> str | None:
    """`a.b.c` as text; None for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (base := dotted_name(node.value)) is not None:
        return f"{base}.{node.attr}"
    return None


def _outside_of_functions(node: ast.AST) -> Iterator[Definition]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            yield child
        elif not isinstance(child, ast.expr):
            yield from _outside_of_functions(child)
