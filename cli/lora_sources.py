"""LoRA files as words of the command line name them, each at its strength; and several as one."""

from __future__ import annotations

from .errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ..lora.tools.derived_file import Made
    from .output import Output
    from .spec import Values


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


def merge(sources: Sequence[tuple[Path, float]], path: Path, values: Values, out: Output) -> Made:
    """Merge files, each at its strength, into one, as the options say."""
    from ..lora.tools.derived_file import make
    from .lora_output import limit, torch_options

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
