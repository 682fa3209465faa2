"""Where values of settings come from: option, variable, file, default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.cli_command import vivace_command
from vivace.cli.settings import SETTINGS


def show(home: Path, *words: str | Path, **variables: str) -> dict[str, tuple[Any, str]]:
    done = vivace_command(home, "config", "show", "--json", *words, variables=variables)
    assert done.status == 0, done.err
    settings = done.json()["settings"]
    assert set(settings) == set(SETTINGS)
    return {name: (one["value"], one["source"]) for name, one in settings.items()}


def write(home: Path, text: str) -> Path:
    path = home / "vivace" / "config.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


VALUES = {
    "server": ("http://one", "http://two", "http://three"),
    "timeout": (5, 6, 7),
    "comfyui": ("/one", "/two", "/three"),
    "python": ("one", "two", "three"),
    "models": ("/m1", "/m2", "/m3"),
    "color": ("never", "always", "auto"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_each_source_goes_before_the_next(tmp_path: Path, name: str) -> None:
    in_option, in_variable, in_file = VALUES[name]
    default = SETTINGS[name].default
    variable = {f"VIVACE_{name.upper()}": str(in_variable)}
    option = [f"--{name}", str(in_option)]
    assert show(tmp_path)[name] == (default, "default")
    path = write(tmp_path, f"{name}: {in_file}\n")
    assert show(tmp_path)[name] == (in_file, str(path))
    assert show(tmp_path, **variable)[name] == (in_variable, f"VIVACE_{name.upper()}")
    assert show(tmp_path, *option, **variable)[name] == (in_option, f"--{name}")
    assert show(tmp_path, *option)[name] == (in_option, f"--{name}")


def test_an_empty_variable_says_nothing(tmp_path: Path) -> None:
    assert show(tmp_path, VIVACE_TIMEOUT="")["timeout"] == (30, "default")


def test_which_file(tmp_path: Path) -> None:
    write(tmp_path, "timeout: 1")
    named, other = tmp_path / "named.yaml", tmp_path / "other.yaml"
    named.write_text("timeout: 2")
    other.write_text("timeout: 3")
    assert show(tmp_path, VIVACE_CONFIG=str(other))["timeout"] == (3, str(other))
    found = show(tmp_path, "--config", named, VIVACE_CONFIG=str(other))
    assert found["timeout"] == (2, str(named))
    assert show(tmp_path, "--config=named.yaml")["timeout"] == (2, "named.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("timeout: soon", "timeout is 'soon', which must be a whole number from 1 to 86400"),
        ("timeout: 0", "timeout is '0', which must be"),
        ("timeout: [1]", "timeout must be a N, not [1]"),
        ("color: blue", "color is 'blue', not one of auto, always, never"),
        ("servr: x", "has no setting 'servr'; did you mean server?"),
        ("- a", "is not a table of settings"),
        ("a: [", "is not valid YAML"),
        ("a: !!python/object:os.system x", "is not valid YAML"),
    ],
)
def test_a_file_that_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path, text)
    done = vivace_command(tmp_path, "config", "show")
    assert done.status == 2
    assert done.out == ""
    assert done.err.startswith(f"vivace: {path}")
    assert words in done.err


def test_a_variable_that_is_wrong(tmp_path: Path) -> None:
    done = vivace_command(tmp_path, "config", "show", variables={"VIVACE_TIMEOUT": "x"})
    assert done.status == 2
    assert "VIVACE_TIMEOUT is 'x', which must be a whole number" in done.err


def test_commands_use_the_settings(tmp_path: Path) -> None:
    write(tmp_path, "server: http://127.0.0.1:9\n")
    (tmp_path / "w.json").write_text('{"1": {"class_type": "A", "inputs": {}}}')
    done = vivace_command(tmp_path, "run", "w.json")
    assert done.status == 3
    assert "No server answers at http://127.0.0.1:9" in done.err
