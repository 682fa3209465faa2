"""``vivace lora extract``: the difference of two checkpoints."""

from __future__ import annotations

from ..errors import OK
from ..lora_output import ERROR, FORM, OUTPUT, RANK, STATUS
from ..spec import Argument, Command, Option, Values, files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..output import Output

_RANK = 32
_CHECKPOINT = files(".safetensors", ".index.json")
COMMAND = Command(
    "Linear layers are approximated at a rank, the rest is kept whole. Checkpoints may be named as"
    " ComfyUI or diffusers do, in one file or in a folder of several, but not quantized. One module"
    " at a time is in memory; the result appears when it is complete.\n\n"
    f"Without --rank and --error, the rank is {_RANK}.",
    [
        Argument("tuned", _CHECKPOINT, "the checkpoint that was trained"),
        Argument("base", _CHECKPOINT, "the one that it was trained from"),
    ],
    [
        RANK,
        ERROR,
        *OUTPUT,
        *FORM,
        Option("--linear-only", None, "leave out norms, biases and tokens"),
    ],
    [
        (
            "vivace lora extract tuned.safetensors base.safetensors -o style.safetensors --rank 64",
            "the difference at rank 64",
        )
    ],
    status=STATUS,
)


def run(values: Values, out: Output) -> int:
    """Extract the LoRA."""
    from ..lora_output import limit, show, target, torch_options

    path = target(values, values.tuned, values.base)
    from ...lora.tools.checkpoint import ModelCheckpoint
    from ...lora.tools.extract import extract
    from ...lora.tools.lower_rank import Limit

    with (
        ModelCheckpoint(values.tuned) as tuned,
        ModelCheckpoint(values.base) as base,
        out.progress("extracting", 1.0) as step,
    ):
        made = extract(
            tuned,
            base,
            path,
            limit=limit(values) or Limit(_RANK),
            style=values.format or "comfyui",
            linear_only=values.linear_only,
            step=step,
            **torch_options(values),
        )
    show(made, out)
    return OK
