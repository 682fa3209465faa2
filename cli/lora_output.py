"""What the commands that write a LoRA file share: options, and what they say of the result."""

from __future__ import annotations

from .errors import CliError
from .spec import TEXT, Kind, Option, Values, files, integer, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from ..lora.tools.derived_file import Made
    from ..lora.tools.lower_rank import Limit
    from .output import Output

SAFETENSORS = files(".safetensors")
OUTPUT = (
    Option("--output", SAFETENSORS, "the file to write", short="-o", required=True),
    Option("--force", None, "replace the file if it is there"),
)
FORM = (
    Option(
        "--format",
        Kind("NAME", str),
        "names of the tensors: comfyui, kohya, or peft (diffusers); else like the first file's",
        choices=("comfyui", "kohya", "peft"),
    ),
    Option(
        "--dtype",
        TEXT,
        "type of the factors; else they keep theirs where that is exact",
        choices=("float32", "bfloat16", "float16"),
    ),
    Option("--device", TEXT, "where to compute, such as cuda", default="cpu"),
)
PARTIAL = Option("--partial", None, "leave out what cannot be used, instead of failing")
RANK = Option("--rank", integer(1, 65536), "largest rank of a module, by SVD", group="limit")
ERROR = Option(
    "--error",
    number(0, 1, "E"),
    "least rank with at most this relative error of each module",
    group="limit",
)
STATUS = "a file could not be read, used or written; nothing was written."


def target(values: Values, *sources: Path) -> Path:
    """The file to write, which is not there, or may be replaced. Call it before torch is imported.

    Args:
        sources: files that have to be there.

    Raises:
        CliError: one is not; the file may not be written; or its folder is missing.
    """
    for source in sources:
        if not source.exists():
            raise CliError(f"There is no file {source}", "Check the name")
    path: Path = values.output
    if path.suffix != ".safetensors":
        raise CliError(f"{path} has no name for a LoRA", "End it in .safetensors")
    if not path.parent.is_dir():
        raise CliError(f"There is no folder {path.parent}", "Make it, or name another one")
    if path.is_dir() or (path.exists() and not values.force):
        raise CliError(f"{path} is there already", "Name another file, or use --force")
    return path


def limit(values: Values) -> Limit | None:
    """What the options say of the rank; None if nothing."""
    from ..lora.tools.lower_rank import Limit

    error = getattr(values, "error", None)
    return None if values.rank is None and error is None else Limit(values.rank, error)


def torch_options(values: Values) -> dict[str, Any]:
    """`dtype` and `device` for the tools.

    Raises:
        CliError: there is no such device.
    """
    import torch

    try:
        torch.zeros(1, device=values.device)
    except (RuntimeError, AssertionError) as error:
        why = str(error).partition("\n")[0]
        raise CliError(f"The device '{values.device}' cannot be used ({why})", "Use cpu") from None
    dtype = None if values.dtype is None else getattr(torch, values.dtype)
    return {"dtype": dtype, "device": values.device}


def show(made: Made, out: Output) -> None:
    """Print what was written."""
    data = {**vars(made), "path": str(made.path), "worst": None}
    if made.worst is not None:
        data["worst"] = {"module": made.worst[0], "error": made.worst[1]}
    text = [f"written: {made.path} ({_line(made)})", *(f"left out: {t}" for t in made.left_out)]
    out.result(data, text)


def _line(made: Made) -> str:
    parts = [f"{made.architecture} as {made.style}", f"{made.modules} modules"]
    if made.ranks is not None:
        low, high = made.ranks
        parts.append(f"rank {low}" if low == high else f"rank {low} to {high}")
    parts.append(f"{made.nbytes / 1e6:.1f} MB")
    if made.error == 0.0:
        parts.append("exact")
    else:
        parts.append(f"relative error {made.error:.2g}")
    if made.worst is not None:
        parts.append(f"the largest of a module {made.worst[1]:.2g}, in {made.worst[0]}")
    return ", ".join(parts)
