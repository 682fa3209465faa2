"""Settings from options, environment variables and a YAML file, in that order."""

from __future__ import annotations

import os
import sys

from .errors import UsageError
from .parser import did_you_mean
from .settings import SETTINGS, Setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .spec import Command, Option, Values

FILE_VARIABLE = "VIVACE_CONFIG"
_MOST_BYTES = 2**20


class Found:
    """The value of a setting and where it comes from, for people: ``"default"``, a file…"""

    def __init__(self, value: Any, source: str) -> None:
        self.value = value
        self.source = source


def default_file() -> str:
    """Where the configuration file lies unless another one is named."""
    if sys.platform == "win32":
        base = os.environ.get("APPDATA") or os.path.expanduser("~\\AppData\\Roaming")  # noqa: PTH111
    else:
        base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111
    return os.path.join(base, "vivace", "config.yaml")  # noqa: PTH118  (pathlib takes long to load)


def apply(command: Command, values: Values, common: tuple[Option, ...]) -> None:
    """Give options that were not given the values of their settings.

    `values.settings` becomes what every setting is, for this command.

    Raises:
        UsageError: the file or a variable holds something else than it should.
    """
    found = load(values.config)
    for option in (*command.options, *common):
        if option.setting is None:
            continue
        value = getattr(values, option.attribute)
        if value is not None:
            found[option.setting] = Found(value, option.name)
        setattr(values, option.attribute, found[option.setting].value)
    values.settings = found


def load(chosen: object = None) -> dict[str, Found]:
    """Every setting, from environment, file and defaults. `chosen` is the file that was named.

    Raises:
        UsageError: the file or a variable holds something else than it should.
    """
    path, content = read_file(chosen)
    found: dict[str, Found] = {}
    for name, setting in SETTINGS.items():
        if text := os.environ.get(setting.variable):
            found[name] = Found(_value(setting, text, setting.variable), setting.variable)
        elif content.get(name) is not None:
            found[name] = Found(_value(setting, content[name], f"{path}: {name}"), path)
        else:
            found[name] = Found(setting.default, "default")
    return found


def read_file(chosen: object = None) -> tuple[str, Mapping[str, Any]]:
    """The configuration file's path and content; no content if there is none.

    Raises:
        UsageError: a file that was named is missing, or it is not what it should be.
    """
    named = str(chosen) if chosen else os.environ.get(FILE_VARIABLE)
    path = named or default_file()
    try:
        with open(path, "rb") as file:  # noqa: PTH123  (pathlib takes long to load)
            text = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        if named:
            raise UsageError(f"There is no configuration file {path}", "Check the name") from None
        return path, {}
    except OSError as error:
        problem = f"The configuration file {path} cannot be read ({error.strerror})"
        raise UsageError(problem, "Check the path and its permissions") from None
    if len(text) > _MOST_BYTES:
        raise UsageError(f"{path} is larger than 1 MiB", "Name a configuration file")
    return path, _checked(path, _parsed(path, text))


def _parsed(path: str, text: bytes) -> object:
    try:
        import yaml
    except ImportError:
        remedy = "Install it (pip install pyyaml), or use environment variables and options"
        raise UsageError(f"{path} cannot be read without the package pyyaml", remedy) from None
    try:
        return yaml.safe_load(text.decode("utf-8-sig"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        why = " ".join(str(error).split())
        raise UsageError(f"{path} is not valid YAML ({why})", "Correct it") from None


def _checked(path: str, content: object) -> Mapping[str, Any]:
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"{path} is not a table of settings", "Write lines such as 'server: URL'")
    for name in content:
        if name not in SETTINGS:
            problem = f"{path} has no setting '{name}'{did_you_mean(str(name), SETTINGS)}"
            raise UsageError(problem, "See 'vivace config show' for all of them")
    return content


def _value(setting: Setting, raw: object, place: str) -> Any:
    text = str(raw)
    if isinstance(raw, (dict, list, bool)):
        raise UsageError(f"{place} must be a {setting.kind.metavar}, not {raw!r}", "Correct it")
    if setting.choices and text not in setting.choices:
        raise UsageError(f"{place} is '{text}', not one of {', '.join(setting.choices)}")
    try:
        return setting.kind.read(text)
    except ValueError as error:
        raise UsageError(f"{place} is '{text}', which must be {error}", "Correct it") from None
