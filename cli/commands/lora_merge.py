"""``vivace lora merge``: several LoRAs as one."""

from __future__ import annotations

from ..errors import OK, UsageError
from ..lora_output import FORM, OUTPUT, PARTIAL, RANK, STATUS
from ..spec import Argument, Command, Kind, Values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ...lora.tools.make import Made
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
    sources = [source(word) for word in values.loras]
    from ..lora_output import show, target

    path = target(values, *(path for path, _ in sources))
    show(merge(sources, path, values, out), out)
    return OK


def merge(sources: Sequence[tuple[Path, float]], path: Path, values: Values, out: Output) -> Made:
    """Merge files, each at its strength, into one, as the options say."""
    from ...lora.tools.make import make
    from ..lora_output import limit, torch_options

    with out.progress("merging", 1.0) as step:
        return make(
            sources,
            path,
            tool="merge",
            style=values.format,
            limit=limit(values),
            partial=values.partial,
            step=step,
            **torch_options(values),
        )


def source(word: str) -> tuple[Path, float]:
    """A file and its strength.

    Raises:
        UsageError: what is behind the colon is no finite number.
    """
    from math import isfinite
    from pathlib import Path

    name, colon, text = word.rpartition(":")
    # The colon may also be that of a drive, or of a name that has one.
    if not colon or "/" in text or "\\" in text or Path(word).exists():
        return Path(word).expanduser(), 1.0
    try:
        strength = float(text)
    except ValueError:
        strength = float("nan")
    if not isfinite(strength):
        problem = f"The strength of {name} is '{text}', which is no number"
        raise UsageError(problem, "Write it as style.safetensors:0.8")
    return Path(name).expanduser(), strength
