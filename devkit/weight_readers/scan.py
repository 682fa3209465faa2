"""Finds code that computes a layer from its weight, or hands the layer to a function that may."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from .reached import Definition, Library, Source, dotted_name, reached

# The models that LoRAs are put on; all that they use is looked at, too.
MODELS = ["comfy.ldm.qwen_image.model", "comfy.ldm.qwen_image21.model", "comfy.ldm.lumina.model"]
# What is looked at as a whole, since layers are made of it.
WHOLE = ["comfy.ops", "comfy.quant_ops"]
KITCHEN = "comfy_kitchen"
# Functions that take a module, or weights of several, and never call it.
READERS = frozenset({
    "cast_bias_weight", "CastBiasWeightContext", "linear_input_act",
    "svdquant_w4a4_grouped_linear", "svdquant_w4a4_fuse_linear_weights",
    "svdquant_w4a4_fused_grouped_linear",
})  # fmt: skip
_FORWARDS = frozenset({"forward", "forward_comfy_cast_weights", "_forward"})
_ONLY_ABOUT = frozenset({"dtype", "shape", "device", "ndim", "dim", "size", "numel", "is_cuda"})
_HARMLESS = frozenset({
    "enumerate", "len", "zip", "isinstance", "hasattr", "getattr", "setattr", "range", "reversed",
    "iter", "list", "tuple", "id", "type", "print", "append", "extend", "add_module",
})  # fmt: skip
_OWN = frozenset({"self", "cls"})


class Reader(NamedTuple):
    """One place.

    Attributes:
        file: as `comfy/ops.py`.
        line: in that file.
        where: the function, with its class.
        what: the expression, as `self.to_q.weight` or `cast_bias_weight(self.norm_q)`.
    """

    file: str
    line: int
    where: str
    what: str


def scan(comfyui: Path, kitchen: Path | None = None) -> list[Reader]:
    """All places in the code of our models and in what they use.

    Args:
        comfyui: the folder of a ComfyUI.
        kitchen: the folder of the `comfy_kitchen` package; None leaves it out.
    """
    folders = {"comfy": comfyui / "comfy"}
    if kitchen is not None:
        folders[KITCHEN] = kitchen
    library = Library(folders)
    found = reached(library, MODELS)
    whole = [*WHOLE, *(_module(kitchen, file) for file in sorted(_files(kitchen)))]
    for module in whole:
        source = library.source(module)
        for name, node in source.definitions.items() if source else ():
            found.setdefault((module, name), (source, node))  # pyright: ignore[reportArgumentType]
    return _readers(library, found.values())


def _files(folder: Path | None) -> Iterable[Path]:
    return () if folder is None else folder.rglob("*.py")


def _module(folder: Path | None, file: Path) -> str:
    parts = file.relative_to(folder or "").with_suffix("").parts
    return ".".join([KITCHEN, *(part for part in parts if part != "__init__")])


def installed_kitchen() -> Path | None:
    """The folder of the installed `comfy_kitchen`; None where there is none."""
    spec = importlib.util.find_spec(KITCHEN)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def scan_file(file: Path) -> list[Reader]:
    """All places in one file."""
    source = Source(file, file.stem)
    return _readers(Library({}), [(source, node) for node in source.definitions.values()])


def _readers(library: Library, found: Iterable[tuple[Source, Definition]]) -> list[Reader]:
    found = list(found)
    layers = _layer_names([node for _, node in found])
    places = {
        Reader(library.name_of(source.file), line, where, what)
        for source, node in found
        for line, where, what in _in_definition(node, "", layers)
    }
    return sorted(places)


def _layer_names(nodes: list[Definition]) -> set[str]:
    """The attributes that hold a linear layer, or a module with one in it."""
    held = [(n.name, list(_assigned(n))) for n in nodes if isinstance(n, ast.ClassDef)]
    holders, names, before = {"Linear"}, set[str](), -1
    while before != len(names):
        before = len(names)
        for owner, assigned in held:
            for attribute, made in assigned:
                if made & holders:
                    names.add(attribute)
                    holders.add(owner)
    return names


def _assigned(node: ast.ClassDef) -> Iterator[tuple[str, set[str]]]:
    """The attributes that a class sets on itself, and the classes that their values call."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Assign):
            for target in inner.targets:
                if isinstance(target, ast.Attribute) and _is_own(target.value):
                    yield target.attr, _called(inner.value)
        elif isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute):
            held_in = inner.func.value  # `self.net.append(...)`
            if inner.func.attr == "append" and isinstance(held_in, ast.Attribute):
                yield held_in.attr, {name for item in inner.args for name in _called(item)}


def _called(node: ast.AST) -> set[str]:
    return {_last(n.func) for n in ast.walk(node) if isinstance(n, ast.Call)}


def _in_definition(
    node: Definition, outer: str, layers: set[str]
) -> Iterator[tuple[int, str, str]]:
    where = f"{outer}.{node.name}" if outer else node.name
    inner: list[Definition] = []
    parents: dict[ast.AST, ast.AST] = {}
    nodes: list[ast.AST] = list(node.body)
    for current in nodes:
        if isinstance(current, Definition):
            inner.append(current)
            continue
        for child in ast.iter_child_nodes(current):
            parents[child] = current
            nodes.append(child)
        if (what := _reading(current, parents, layers)) is not None:
            yield getattr(current, "lineno", node.lineno), where, what
    for definition in inner:
        yield from _in_definition(definition, where, layers)


def _reading(node: ast.AST, parents: dict[ast.AST, ast.AST], layers: set[str]) -> str | None:
    if isinstance(node, ast.Attribute):
        return _of_attribute(node, parents)
    return _of_call(node, layers) if isinstance(node, ast.Call) else None


def _of_attribute(node: ast.Attribute, parents: dict[ast.AST, ast.AST]) -> str | None:
    """A weight that is read of a module other than the one whose code this is."""
    if node.attr != "weight" or not isinstance(node.ctx, ast.Load) or _is_own(node.value):
        return None
    parent = parents.get(node)
    if isinstance(parent, ast.Attribute) and parent.attr in _ONLY_ABOUT:
        return None
    if isinstance(parent, ast.Compare) and all(
        isinstance(o, ast.Is | ast.IsNot) for o in parent.ops
    ):
        return None
    if isinstance(parent, ast.Call) and _last(parent.func) in ("isinstance", "hasattr"):
        return None
    return ast.unparse(node)


def _of_call(node: ast.Call, layers: set[str]) -> str | None:
    """A module that is given away, or whose code is called in place of it."""
    name = _last(node.func)
    if name in _FORWARDS and isinstance(node.func, ast.Attribute):
        mine = _is_own(node.func.value) or "super()" in ast.unparse(node.func.value)
        return None if mine else f"{ast.unparse(node.func)}()"
    arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
    if name == "getattr" and len(node.args) > 1 and not _is_own(node.args[0]):
        asked = node.args[1]
        if isinstance(asked, ast.Constant) and asked.value == "weight":
            return f"{ast.unparse(node.args[0])}.weight"
    if name in READERS:
        if not arguments or _is_own(arguments[0]):
            return None
        return f"{name}({ast.unparse(arguments[0])})"
    if name in _HARMLESS:
        return None
    given = [
        ast.unparse(item) for a in arguments for item in _unpacked(a) if _is_layer(item, layers)
    ]
    return f"{name}({', '.join(given)})" if given else None


def _is_layer(node: ast.AST, layers: set[str]) -> bool:
    return isinstance(node, ast.Attribute) and node.attr in layers and dotted_name(node) is not None


def _unpacked(node: ast.AST) -> Iterator[ast.AST]:
    """What a list, a tuple or a `list(...)` in an argument holds."""
    if isinstance(node, ast.Tuple | ast.List):
        for item in node.elts:
            yield from _unpacked(item)
    elif isinstance(node, ast.Starred):
        yield from _unpacked(node.value)
    elif isinstance(node, ast.Call) and _last(node.func) in ("list", "tuple"):
        for item in node.args:
            yield from _unpacked(item)
    else:
        yield node


def _is_own(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in _OWN


def _last(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
