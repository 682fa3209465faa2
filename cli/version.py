"""The version of the pack, whether it is installed as a package or lies among the custom nodes."""

from __future__ import annotations

import os


def version() -> str:
    """The version that `pyproject.toml` beside the package states, or that was installed."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    try:
        with open(os.path.join(root, "pyproject.toml"), encoding="utf-8") as file:  # noqa: PTH118, PTH123
            for line in file:
                if line.startswith("version = "):
                    return line.split('"')[1]
    except OSError:
        pass
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("vivace")
    except PackageNotFoundError:
        return "unknown"
