"""The entry point: find the command, show help or run it, and turn errors into exit status."""

from __future__ import annotations

import sys

from . import errors
from .errors import CliError, UsageError
from .parser import did_you_mean, looks_like_option, parse, split_word
from .spec import COMMON
from .table import COMMANDS, GROUPS, load, members, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status; see `errors` for what each means."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        # Names of files may hold what the terminal's encoding cannot say.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        status = _dispatch(words)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return _report("interrupted", errors.INTERRUPTED, words)
    except BrokenPipeError:
        return _pipe_closed()
    except CliError as error:
        return _report(str(error), error.code, words)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        return _report(f"{name}{error.strerror or error}", errors.FAILED, words)
    except ValueError as error:
        # The errors of the layers below that are made for people name their remedy; their classes
        # would have to be imported to be caught by name.
        if not hasattr(error, "remedy"):
            raise
        return _report(str(error), errors.FAILED, words)


def _dispatch(words: list[str]) -> int:
    if words and words[0] == "__complete":
        from .complete import complete

        print("\n".join(complete(words[1:])))  # noqa: T201
        return errors.OK
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    before = _leading(words)
    name, rest = split(words[len(before) :])
    if name in COMMANDS:
        return _run(name, before + rest)
    if "--version" in before:
        from .version import version

        print(f"vivace {version()}")  # noqa: T201
        return errors.OK
    asked = not {"--help", "-h"}.isdisjoint(before + rest)
    word = next((word for word in rest if not looks_like_option(word)), None)
    if word is None and (asked or not rest):
        return _show_listing(name, asked=asked)
    prog = f"vivace {name}".rstrip()
    wrong = word or rest[0]
    hint = did_you_mean(wrong, members(name))
    raise UsageError(f"'{wrong}' is no command after '{prog}'{hint}", f"See '{prog} --help'")


def _leading(words: list[str]) -> list[str]:
    """The options before the command, which belong to every command."""
    valued = {option.name for option in COMMON if option.kind is not None}
    count = 0
    while count < len(words) and looks_like_option(words[count]):
        name, equals, _ = split_word(words[count])
        count += 2 if name in valued and not equals else 1
    return words[:count]


def _show_listing(name: str, *, asked: bool) -> int:
    from .help import group_help, root_help
    from .terminal import wants_color

    stream = sys.stdout if asked else sys.stderr
    bold = wants_color(stream, "auto")
    print(group_help(name, bold) if name in GROUPS else root_help(bold), file=stream)
    return errors.OK if asked else errors.USAGE


def _run(name: str, words: list[str]) -> int:
    module = load(name)
    if {"--help", "-h"} & {*_before_dashes(words)}:
        from .help import command_help
        from .terminal import wants_color

        bold = wants_color(sys.stdout, "auto")
        print(command_help(name, module.COMMAND, bold))  # noqa: T201
        return errors.OK
    values = parse(name, module.COMMAND, words)
    from .config import apply
    from .output import Output

    apply(module.COMMAND, values, COMMON)
    _end_on_sigterm()
    return module.run(values, Output(json=values.json, quiet=values.quiet, color=values.color))


def _before_dashes(words: list[str]) -> list[str]:
    return words[: words.index("--")] if "--" in words else words


def _end_on_sigterm() -> None:
    """End as by an exception when asked to terminate, so that unfinished files are removed."""
    import signal
    import threading

    def end(*_: object) -> None:
        sys.exit(errors.TERMINATED)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, end)


def _report(message: str, code: int, words: list[str]) -> int:
    print(f"vivace: {message}", file=sys.stderr)  # noqa: T201
    if "--json" in _before_dashes(words):
        from .output import dump

        print(dump({"error": message, "status": code}))  # noqa: T201
    return code


def _pipe_closed() -> int:
    """Who read our output has ended, as `head` does; Python must not try to write the rest."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141
