"""QwenVL Cache."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..defaults import DEFAULTS
from . import choices
from . import vlm_inputs as inputs
from . import vlm_values as values

SHOW, CLEAR, CLEAR_DISK = "show", "clear memory", "clear memory and disk"
SIZES = [AS_IT_IS, CHANGE] = ["as it is", "change"]
_DEFAULTS = DEFAULTS["VivaceQwenVLCache"]


class QwenVLCache(io.ComfyNode):
    """What the QwenVL nodes keep between runs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VivaceQwenVLCache",
            display_name="QwenVL Cache",
            category=inputs.CATEGORY,
            description="Shows what the QwenVL image cache has saved, clears it, and sizes it.",
            search_aliases=["image cache", "embedding cache", "clear cache", "vivace"],
            inputs=[
                io.Combo.Input(
                    "action",
                    options=[SHOW, CLEAR, CLEAR_DISK],
                    default=_DEFAULTS["action"],
                    tooltip="Clearing forgets encoded images and the beginnings of prompts.",
                ),
                io.DynamicCombo.Input(
                    "size",
                    options=[
                        io.DynamicCombo.Option(AS_IT_IS, []),
                        io.DynamicCombo.Option(CHANGE, _size_inputs()),
                    ],
                    optional=True,
                    tooltip="Until ComfyUI ends; the settings dialog has what it starts with.",
                ),
                io.AnyType.Input(
                    "after", optional=True, tooltip="Whatever shall have run before; not used."
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="report",
                    tooltip="The figures since ComfyUI was started, as Markdown.",
                )
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            is_output_node=True,
            not_idempotent=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> Any:
        return float("nan")  # the figures are others each time

    @classmethod
    def execute(
        cls,
        action: str = _DEFAULTS["action"],
        size: dict[str, Any] | None = None,
        after: Any = None,
    ) -> io.NodeOutput:
        from ..wrappers.vlm import vlm_cache

        choices.check_choices(cls.hidden, size=SIZES)
        values.configure_cache()
        chosen = choices.with_defaults("size", size, _DEFAULTS)
        if chosen.get("size", AS_IT_IS) != AS_IT_IS:
            memory, disk = chosen["memory_mb"], chosen["disk_mb"]
            sizes = vlm_cache.CacheSizes(None if memory < 0 else memory, disk)
            vlm_cache.configure(sizes, values.cache_folder())
        if action != SHOW:
            vlm_cache.clear(action == CLEAR_DISK, values.cache_folder())
        report = vlm_cache.statistics()
        return io.NodeOutput(report, ui={"text": (report,)})


def _size_inputs() -> list[Any]:
    return [
        io.Int.Input(
            "memory_mb",
            default=_DEFAULTS["size.memory_mb"],
            min=-1,
            max=2**20,
            optional=True,
            tooltip="Megabytes of main memory for encoded images; -1: 2048 MB.",
        ),
        io.Int.Input(
            "disk_mb",
            default=_DEFAULTS["size.disk_mb"],
            min=0,
            max=2**24,
            optional=True,
            tooltip="Megabytes on disk, kept across restarts; 0: nothing on disk.",
        ),
    ]
