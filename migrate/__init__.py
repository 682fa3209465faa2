"""Workflows saved with other packs' nodes, with ours in their place; free of ComfyUI."""

from .report import Left, MigrationReport, Replaced
from .rules import Known
from .workflow import migrate_workflow

__all__ = ["Known", "Left", "MigrationReport", "Replaced", "migrate_workflow"]
