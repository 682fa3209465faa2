"""Makes this checkout appear in another folder."""

from __future__ import annotations

import os
from pathlib import Path

from .layout import ROOT, DevError


def link_checkout(link: Path) -> None:
    """Link this checkout at `link`; a link that is there already is left or, if stale, replaced.

    Raises:
        DevError: something else is there.
    """
    if link.exists() and link.resolve() == ROOT:
        return
    if link.is_symlink():
        link.unlink()
    if link.exists():
        raise DevError(f"{link} exists and is not this checkout; move it away and try again.")
    if os.name == "nt":
        # A junction, unlike a symbolic link, needs no special rights on Windows.
        import _winapi

        _winapi.CreateJunction(str(ROOT), str(link))  # pyright: ignore[reportAttributeAccessIssue]
    else:
        link.symlink_to(ROOT, target_is_directory=True)
