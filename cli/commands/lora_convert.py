"""``vivace lora convert``: a LoRA under other names."""

from __future__ import annotations

from ..errors import OK
from ..lora_output import FORM, OUTPUT, PARTIAL, SAFETENSORS, STATUS
from ..spec import Argument, Command, Option, Values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..output import Output

_FORMAT = Option(
    FORM[0].name,
    FORM[0].kind,
    "names of the tensors: comfyui, kohya, or peft (diffusers)",
    choices=FORM[0].choices,
    required=True,
)
COMMAND = Command(
    "The change stays the same. 'comfyui' and 'kohya' keep each kind of adapter and have fused"
    " projections as ComfyUI's model does; 'peft' has each projection by itself and the scale in"
    " the factors, which is what diffusers reads, and knows LoRA and DoRA only: small LoHa and LoKr"
    " become exact LoRA there.",
    [Argument("file", SAFETENSORS, "the LoRA")],
    [_FORMAT, *OUTPUT, *FORM[1:], PARTIAL],
    [("vivace lora convert a.safetensors --format peft -o b.safetensors", "for diffusers")],
    status=STATUS,
)


def run(values: Values, out: Output) -> int:
    """Convert the file."""
    from ..lora_output import show, target, torch_options

    path = target(values, values.file)
    from ...lora.tools.derived_file import make

    made = make(
        [(values.file, 1.0)],
        path,
        tool="convert",
        style=values.format,
        partial=values.partial,
        **torch_options(values),
    )
    show(made, out)
    return OK
