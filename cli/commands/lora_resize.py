"""``vivace lora resize``: a LoRA of lower rank."""

from __future__ import annotations

from ..errors import OK, UsageError
from ..lora_output import ERROR, FORM, OUTPUT, PARTIAL, RANK, SAFETENSORS, STATUS
from ..spec import Argument, Command, Values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..output import Output

COMMAND = Command(
    "Each module keeps its largest singular values: no LoRA of that rank is nearer to the original."
    " The error that is stated is that of the written file, relative to the change it makes"
    " (Frobenius norms). LoHa and LoKr become LoRA.",
    [Argument("file", SAFETENSORS, "the LoRA")],
    [RANK, ERROR, *OUTPUT, *FORM, PARTIAL],
    [
        ("vivace lora resize a.safetensors --rank 16 -o b.safetensors", "rank 16 at most"),
        ("vivace lora resize a.safetensors --error 0.05 -o b.safetensors", "5 % error at most"),
    ],
    status=STATUS,
)


def run(values: Values, out: Output) -> int:
    """Resize the file."""
    if values.rank is None and values.error is None:
        raise UsageError("Neither --rank nor --error is given", "See 'vivace lora resize --help'")
    from ..lora_output import limit, show, target, torch_options

    path = target(values, values.file)
    from ...lora.tools.derived_file import make

    with out.progress("resizing", 1.0) as step:
        made = make(
            [(values.file, 1.0)],
            path,
            tool="resize",
            style=values.format,
            limit=limit(values),
            partial=values.partial,
            step=step,
            **torch_options(values),
        )
    show(made, out)
    return OK
