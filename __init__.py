"""ComfyUI-Vivace: exact, fast LoRA stacks, QwenVL and small tools that cost nothing at start-up.

ComfyUI reads the three names below. They are made when they are asked for, so that the command
line and the tests can import this package, as `vivace`, where there is no ComfyUI.
"""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` takes as long to import as all else of the command line's help
if TYPE_CHECKING:
    from typing import Any

WEB_DIRECTORY = "./web"
NODE_CLASS_MAPPINGS: dict[str, type]
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str]

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "WEB_DIRECTORY"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import lazy_registry

    globals().update(lazy_registry.register())
    return globals()[name]
