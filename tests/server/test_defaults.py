"""What an input is where nobody says otherwise stands in one table."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from vivace.defaults import DEFAULTS
from vivace.devkit.rig.client import ComfyClient
from vivace.devkit.rig.layout import ROOT

ROOMS = ("cli", "migrate", "music", "nodes", "vlm", "wrappers")
KNOWN = {
    (name.rpartition(".")[2], value)
    for inputs in DEFAULTS.values()
    for name, value in inputs.items()
    # What is off, nothing or first is no decision that could be made twice.
    if not isinstance(value, bool | tuple) and value not in ("", 0, 1, "auto", "none", "text")
}


def second_defaults(tree: ast.AST) -> Iterator[str]:
    """Values of the table that are written down again as the default of the same input."""
    for node in ast.walk(tree):
        for name, value in _named_values(node):
            if isinstance(value, ast.Constant) and (name, value.value) in KNOWN:
                yield f"line {value.lineno}: {name} = {value.value!r}"


def _named_values(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(node, ast.FunctionDef):
        with_default = node.args.args[len(node.args.args) - len(node.args.defaults) :]
        yield from zip((a.arg for a in with_default), node.args.defaults, strict=True)
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
        yield node.target.id, node.value
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        name = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
        if node.func.attr == "get" and len(node.args) == 2:
            yield str(name), node.args[1]
        for keyword in node.keywords:
            if keyword.arg == "default":
                yield str(name), keyword.value


def modules(*rooms: str) -> Iterator[Path]:
    for room in rooms:
        yield from sorted((ROOT / room).rglob("*.py"))


def test_no_default_is_written_down_twice() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): lines
        for path in modules(*ROOMS)
        if (lines := [*second_defaults(ast.parse(path.read_text(encoding="utf-8")))])
    }
    assert not found, "read it from defaults.py"


@pytest.mark.parametrize(
    "code",
    [
        "io.Float.Input('timeout', default=180.0)",
        "def execute(cls, max_tokens: int = 512): ...",
        "class Choice:\n    concurrency: int = 4",
        "given.get('image_quality', 'balanced')",
    ],
)
def test_a_second_default_is_found(code: str) -> None:
    assert [*second_defaults(ast.parse(code))]


def test_schemas_state_no_default_of_their_own() -> None:
    own = [
        f"{path.name}, line {call.lineno}"
        for path in modules("nodes")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
        if call.func.attr == "Input"
        for keyword in call.keywords
        if keyword.arg == "default" and isinstance(keyword.value, ast.Constant)
    ]
    assert not own


def stated(prefix: str, definitions: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Inputs with their defaults as the editor gets them, those below choices by their full name.

    A choice begins with its first option.
    """
    for inputs in definitions.values():
        for name, (type_, options) in inputs.items():
            if type_ == "COMFY_DYNAMICCOMBO_V3":
                yield prefix + name, options["options"][0]["key"]
                for option in options["options"]:
                    yield from stated(f"{prefix}{name}.", option["inputs"])
            elif "default" in options:
                yield prefix + name, options["default"]


def test_the_editor_gets_the_values_of_the_table(client: ComfyClient) -> None:
    info = client.get_json("/object_info")
    for node, defaults in DEFAULTS.items():
        found = dict(
            stated("", {k: info[node]["input"].get(k, {}) for k in ("required", "optional")})
        )
        missing = found.keys() - defaults.keys() - {"size"}
        assert not missing, f"{node}: {missing}"
        assert found == {
            name: _plain(defaults[name]) if name in defaults else found[name] for name in found
        }
        # What the table has beyond that are lists of files, which have no default.
        assert defaults.keys() - found.keys() <= {"engine.model", "model"}, node


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
