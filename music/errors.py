"""What can be wrong with what a user asks for."""

from __future__ import annotations


class MusicError(ValueError):
    """Music cannot be made as asked; the message names the input or setting and the remedy."""
