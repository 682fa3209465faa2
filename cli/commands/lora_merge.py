"""``vivace lora merge``: several LoRAs as one."""

from __future__ import annotations

from ..errors import OK
from ..lora_output import FORM, OUTPUT, PARTIAL, RANK, STATUS
from ..spec import Argument, Command, Kind, Values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..output import Output

COMMAND = Command(
    "The result does what the LoRAs do together, each at its strength: their factors side by side,"
    " so that ranks add up. With --rank, each module is reduced to its largest singular values, and"
    " the error is stated. Only LoRAs of one model can be merged.",
    [
        Argument(
            "loras",
            Kind("LORA", str, (".safetensors",)),
            "files, each with its strength behind a colon, such as style.safetensors:0.8 (else 1)",
            count="+",
        )
    ],
    [*OUTPUT, RANK, *FORM, PARTIAL],
    [
        (
            "vivace lora merge a.safetensors:0.8 b.safetensors:0.5 -o both.safetensors",
            "two LoRAs, exactly",
        ),
        (
            "vivace lora merge a.safetensors b.safetensors -o both.safetensors --rank 32",
            "the best of rank 32",
        ),
    ],
    status=STATUS,
)


def run(values: Values, out: Output) -> int:
    """Merge the files."""
    from ..lora_output import show, target
    from ..lora_sources import merge, source

    sources = [source(word) for word in values.loras]
    path = target(values, *(path for path, _ in sources))
    show(merge(sources, path, values, out), out)
    return OK
