"""Node packs to compare ours with: the same nodes without the lazy registry, and none at all."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..rig.layout import ROOT

_LEFT_OUT = (".*", "__pycache__", "devkit", "docs", "example_workflows", "tests")
_NO_NODES = "NODE_CLASS_MAPPINGS = {}\n"
_EVERY_NODE = '''\
"""The same nodes, imported when the pack is."""

from importlib import import_module
{first}
from .lazy_registry import NODE_TABLE, register

WEB_DIRECTORY = "./web"
NODE_DISPLAY_NAME_MAPPINGS = register()["NODE_DISPLAY_NAME_MAPPINGS"]
NODE_CLASS_MAPPINGS = {{
    row.node_id: getattr(import_module(f".nodes.{{row.module}}", __name__), row.class_name)
    for row in NODE_TABLE
}}
'''


def no_nodes(folder: Path) -> Path:
    """A pack without nodes."""
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(_NO_NODES)
    return folder


def every_node(folder: Path) -> Path:
    """Our pack, which imports the modules of all nodes with itself; what they need when they run is
    imported then, as in ours.
    """
    return _copy(folder, "")


def every_import(folder: Path) -> Path:
    """As `every_node`, and all that the nodes and routes need when they run is imported, too: as if
    all imports stood at the top of their files.
    """
    pack = _copy(folder, "from . import all_imports")
    statements = dict.fromkeys(all_imports(pack))
    text = "\n".join(
        f"try:\n    {statement}\nexcept Exception:\n    pass  # an optional package is missing"
        for statement in statements
    )
    (pack / "all_imports.py").write_text(f"{text}\n")
    return pack


def _copy(folder: Path, first: str) -> Path:
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    (folder / "__init__.py").write_text(_EVERY_NODE.format(first=first))
    return folder


def all_imports(pack: Path) -> Iterator[str]:
    """The import statements of nodes and routes, and of all of the pack's modules that they import,
    wherever they stand, as they would be written in the pack's top folder.
    """
    waiting = [*sorted((pack / "nodes").glob("*.py")), *sorted((pack / "http_api").glob("*.py"))]
    seen = set(waiting)
    while waiting:
        path = waiting.pop(0)
        for node in _imports(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                node = _from_the_top(node, path.relative_to(pack))
                found = [file for file in _files(pack, node) if file not in seen]
                seen.update(found)
                waiting += found
            elif isinstance(node, ast.ImportFrom) and node.module == "__future__":
                continue
            yield ast.unparse(node)


def _imports(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """All import statements but those for type checkers."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node
        return
    children: Iterable[ast.AST] = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        children = node.orelse
    for child in children:
        yield from _imports(child)


def _from_the_top(node: ast.ImportFrom, place: Path) -> ast.ImportFrom:
    """A relative import of a module of the pack, relative to the pack's folder."""
    parents = place.parts[: len(place.parts) - node.level]
    module = ".".join([*parents, *([node.module] if node.module else [])])
    return ast.ImportFrom(module or None, node.names, 1)


def _files(pack: Path, node: ast.ImportFrom) -> Iterator[Path]:
    """The files of the modules that an import of ours runs."""
    folder = pack.joinpath(*(node.module or "").split(".")) if node.module else pack
    own = [folder.with_suffix(".py")] if node.module else []
    inner = [folder / f"{name.name}.py" for name in node.names]
    packages = [folder / "__init__.py"] if node.module else []
    yield from (file for file in (*own, *packages, *inner) if file.is_file())
