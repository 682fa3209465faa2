"""What can go wrong on the command line, and the exit status that says so."""

from __future__ import annotations

OK = 0
FAILED = 1
USAGE = 2
UNREACHABLE = 3
INTERRUPTED = 130
TERMINATED = 143


class CliError(Exception):
    """Ends the command: the message says what is wrong, the remedy what to do.

    Attributes:
        code: the exit status.
    """

    code = FAILED

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        stop = "" if problem.endswith("?") else "."
        super().__init__(f"{problem}{stop} {remedy}" if remedy else problem)


class UsageError(CliError):
    """The command line or the configuration is wrong; nothing was done."""

    code = USAGE


class UnreachableError(CliError):
    """No ComfyUI server answers at the address; trying again later may help."""

    code = UNREACHABLE
