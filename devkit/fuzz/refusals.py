"""What a target is allowed to raise, and where an error comes from."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

PACK = Path(__file__).resolve().parents[2]
REFUSALS: Counter[str] = Counter()
"""How often each documented error was met since this was last cleared, by `place_of` it."""


@contextmanager
def may_refuse(*errors: type[Exception]) -> Iterator[None]:
    """The block may end by one of exactly these errors, not by one derived from them."""
    try:
        yield
    except errors as error:
        if type(error) not in errors:
            raise
        REFUSALS[place_of(error)] += 1


def place_of(error: BaseException) -> str:
    """The error's class and the line of the pack where it began: the same for the same fault."""
    origin = error
    while (earlier := origin.__cause__ or origin.__context__) is not None:
        origin = earlier
    found = [(_file(f.filename), f) for f in traceback.extract_tb(origin.__traceback__)]
    here = [(file, frame) for file, frame in found if file is not None]
    inside = [one for one in here if not one[0].startswith("devkit/fuzz/")]
    if not here:
        return type(error).__name__
    file, frame = (inside or here)[-1]
    return f"{type(error).__name__} at {file}:{frame.lineno} ({frame.name})"


@lru_cache(maxsize=10_000)
def _file(name: str) -> str | None:
    """A file of the pack, from its folder on; environments have the pack by a link."""
    path = Path(name).resolve()
    return path.relative_to(PACK).as_posix() if path.is_relative_to(PACK) else None
