"""What transformers raises for a model's files that it cannot load, and how that is told."""

from __future__ import annotations

from pathlib import Path

# Files of a newer transformers have lists where an older one looks for tables.
REFUSALS = (
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def refusal(path: Path, error: BaseException) -> str:
    """The message for one of `REFUSALS` from loading the folder `path`."""
    from transformers import __version__

    return (
        f"{path}: transformers cannot load the model ({error}). This is transformers {__version__};"
        " if a newer one wrote the files, update it. Otherwise download the model again"
    )
