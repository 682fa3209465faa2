"""What a command takes, as data.

Plain classes: `dataclasses`, `enum`, `typing` and `pathlib` each take a good part of the time in
which help has to be there.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import Any


class Kind:
    """How a word of the command line is read.

    Attributes:
        metavar: what help shows in its place.
        read: from the word to the value; a ValueError says what it should be.
        files: suffixes of file names that completion offers ("" for any, "/" for folders only), or
            None where it is no file name.
    """

    def __init__(
        self, metavar: str, read: Callable[[str], Any], files: Sequence[str] | None = None
    ) -> None:
        self.metavar = metavar
        self.read = read
        self.files = files


def integer(least: int, most: int | None = None, metavar: str = "N") -> Kind:
    """Whole numbers in a range."""
    wanted = f"a whole number from {least}" + ("" if most is None else f" to {most}")

    def read(word: str) -> int:
        try:
            value = int(word)
        except ValueError:
            raise ValueError(wanted) from None
        if value < least or (most is not None and value > most):
            raise ValueError(wanted)
        return value

    return Kind(metavar, read)


def number(above: float, most: float, metavar: str = "X") -> Kind:
    """Numbers greater than `above`, up to `most`."""
    wanted = f"a number above {above:g}, at most {most:g}"

    def read(word: str) -> float:
        try:
            value = float(word)
        except ValueError:
            raise ValueError(wanted) from None
        if not above < value <= most:
            raise ValueError(wanted)
        return value

    return Kind(metavar, read)


def files(*suffixes: str, metavar: str = "FILE") -> Kind:
    """File names; completion offers those with one of the suffixes, and folders."""
    return Kind(metavar, _path, suffixes or ("",))


def folder(metavar: str = "FOLDER") -> Kind:
    """Names of folders."""
    return Kind(metavar, _path, ("/",))


def _path(word: str) -> Path:
    from pathlib import Path

    if not word:
        raise ValueError("a file name, not nothing")
    return Path(word).expanduser()


TEXT = Kind("TEXT", str)


class Argument:
    """A word without a name; `count` is ``"1"``, ``"?"``, ``"+"`` or ``"*"``, as in argparse.

    `choices` are the words it may be, if they are known beforehand; `completer` names a function
    that lists them when completion asks, as ``"module:function"`` within `vivace.cli`.
    """

    def __init__(
        self,
        name: str,
        kind: Kind,
        help: str,
        count: str = "1",
        choices: Sequence[str] | None = None,
        completer: str | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.help = help
        self.count = count
        self.choices = choices
        self.completer = completer

    @property
    def metavar(self) -> str:
        """What help shows."""
        return self.name.upper().replace("_", "-")


class Option:
    """A word with a name, such as ``--rank 8``; without a kind it is a flag.

    `setting` names the setting (see `settings`) that gives the value where the option is not
    given. A `repeat`ed option gives a list. Options that share a word in `group` exclude each
    other.
    """

    def __init__(
        self,
        name: str,
        kind: Kind | None,
        help: str,
        *,
        short: str | None = None,
        default: object = None,
        choices: Sequence[str] | None = None,
        completer: str | None = None,
        repeat: bool = False,
        required: bool = False,
        group: str | None = None,
        setting: str | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.help = help
        self.short = short
        self.default = default
        self.choices = choices
        self.completer = completer
        self.repeat = repeat
        self.required = required
        self.group = group
        self.setting = setting

    @property
    def attribute(self) -> str:
        """The name that `Values` has it under."""
        return self.name[2:].replace("-", "_")


class Command:
    """A command: what it does at length, what it takes, and examples (command, what it does).

    `status` says what exit status 1 means for it, where that is not plain failure.
    """

    def __init__(
        self,
        description: str,
        arguments: Sequence[Argument] = (),
        options: Sequence[Option] = (),
        examples: Sequence[tuple[str, str]] = (),
        status: str = "",
    ) -> None:
        self.description = description
        self.arguments = arguments
        self.options = options
        self.examples = examples
        self.status = status


class Values:
    """The values of a command's arguments and options, by name with underscores."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.__dict__.update(values)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...


WHEN = ("auto", "always", "never")
COMMON = (
    Option("--json", None, "one JSON document on standard output, also for errors"),
    Option("--quiet", None, "no progress and no remarks on standard error", short="-q"),
    Option(
        "--color",
        Kind("WHEN", str),
        "colours and tables: auto (on a terminal), always, never",
        choices=WHEN,
        setting="color",
    ),
    Option("--config", files(".yaml", ".yml"), "the configuration file to use"),
    Option("--help", None, "show this help", short="-h"),
)
