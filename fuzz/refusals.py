"""What a target is allowed to raise, and where an error comes from."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACK = Path(__file__).resolve().parent.parent
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
    here = [
        f for f in traceback.extract_tb(origin.__traceback__) if PACK in Path(f.filename).parents
    ]
    inside = [frame for frame in here if not Path(frame.filename).is_relative_to(PACK / "fuzz")]
    frame = (inside or here or [None])[-1]
    if frame is None:
        return type(error).__name__
    file = Path(frame.filename).relative_to(PACK).as_posix()
    return f"{type(error).__name__} at {file}:{frame.lineno} ({frame.name})"
