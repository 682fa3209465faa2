"""What commands print: tables and progress by `rich` on a terminal, plain text elsewhere, or JSON.

Results go to standard output, everything else to standard error. In JSON, standard output holds
exactly one document.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager

from .terminal import wants_color

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from rich.progress import Progress

    Advance = Callable[[float, str], None]


class Table:
    """Rows of text under headers; columns named in `right` are aligned to the right."""

    def __init__(
        self, headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()
    ) -> None:
        self.headers = headers
        self.rows = rows
        self.right = right

    def lines(self) -> list[str]:
        """The table as plain text, columns two spaces apart."""
        every = [self.headers, *self.rows]
        widths = [max(len(row[i]) for row in every) for i in range(len(self.headers))]
        return ["  ".join(self._cells(row, widths)).rstrip() for row in every]

    def _cells(self, row: Sequence[str], widths: Sequence[int]) -> list[str]:
        return [
            cell.rjust(width) if header in self.right else cell.ljust(width)
            for header, cell, width in zip(self.headers, row, widths, strict=True)
        ]


class Output:
    """Where a command's results and remarks go.

    Attributes:
        json: whether results are printed as JSON.
        color: whether standard output is decorated.
        live: whether progress is shown, on standard error.
    """

    def __init__(self, *, json: bool = False, quiet: bool = False, color: str = "auto") -> None:
        self.json = json
        self.quiet = quiet
        self.color = not json and wants_color(sys.stdout, color)
        self.live = not quiet and sys.stderr.isatty() and wants_color(sys.stderr, color)

    def result(self, data: object, text: Sequence[str | Table]) -> None:
        """Print a command's result: `data` as JSON, or `text` for people. Call it once."""
        if self.json:
            from json import dumps

            print(dumps(data, indent=1, ensure_ascii=True, allow_nan=False))  # noqa: T201
            return
        for item in text:
            if isinstance(item, Table):
                self._table(item)
            else:
                print(item)  # noqa: T201

    def note(self, text: str) -> None:
        """A remark for the person at the terminal, on standard error."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)  # noqa: T201

    def _table(self, table: Table) -> None:
        if self.color:
            try:
                self._rich_table(table)
                return
            except ImportError:
                pass  # it is an optional extra
        print("\n".join(table.lines()))  # noqa: T201

    def _rich_table(self, table: Table) -> None:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table as RichTable
        from rich.text import Text

        shown = RichTable(box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
        for header in table.headers:
            justify = "right" if header in table.right else "left"
            shown.add_column(header, justify=justify, overflow="fold")
        for row in table.rows:
            shown.add_row(*map(Text, row))
        Console(force_terminal=True).print(shown)

    @contextmanager
    def progress(self, what: str, total: float) -> Iterator[Advance]:
        """A bar while something is done; call what it gives with the amount done and a word on it.

        Without a terminal nothing is shown.
        """
        bar = _bar() if self.live else None
        if bar is None:
            yield lambda amount, text="": None
            return
        with bar:
            task = bar.add_task(what, total=total)

            def advance(amount: float, text: str = "") -> None:
                bar.update(task, advance=amount, description=f"{what} {text}".rstrip())

            yield advance


def _bar() -> Progress | None:
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:  # it is an optional extra
        return None
    return Progress(console=Console(file=sys.stderr), transient=True)


def dump(data: Any) -> str:
    """One JSON document on one line, for errors."""
    from json import dumps

    return dumps(data)
