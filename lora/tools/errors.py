"""What the tools refuse, beside files that cannot be read."""

from __future__ import annotations

from ..errors import LoraError


class ToolError(LoraError):
    """What was asked for cannot be done with this file; nothing was written."""
