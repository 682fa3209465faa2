"""One LoRA file from others: merged, under other names, of lower rank."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...byte_lru import ByteLru
from ..errors import Unusable
from ..files.open_file import LoraFile
from ..files.writer import TensorWriter
from ..loader import Lora, load_lora
from ..mapping.architecture import Architecture
from ..mapping.tensor_names import UNMATCHED
from .errors import ToolError
from .lower_rank import Limit
from .name_styles import style_of
from .unit_tensors import Encoded, encode
from .units import gather

MARK = "vivace"
# What headers say of a scale or a rank that the tensors of the new file no longer have.
_STALE = ("lora_adapter_metadata", "networkType", "alpha", "ss_network_dim", "ss_network_alpha")
_STALE += ("ss_network_module", "ss_network_args", MARK)
# What all sources must agree on to be kept in a file made of several.
_COMMON = ("ss_base_model_version", "modelspec.architecture")
Step = Callable[[float, str], None]


@dataclass(frozen=True)
class Made:
    """What was written.

    Attributes:
        ranks: the smallest and the largest; None if nothing is of low rank.
        nbytes: of the tensors, without the header.
        error: Frobenius norm of the difference to the exact change over that of the change, of all
            weights together whose factors were computed anew; 0 if there are none.
        worst: the module with the largest relative error, and that.
        left_out: what the sources hold and the file does not, with the reason.
    """

    path: Path
    architecture: str
    style: str
    modules: int
    ranks: tuple[int, int] | None
    nbytes: int
    error: float
    worst: tuple[str, float] | None
    left_out: tuple[str, ...]


def make(
    sources: Sequence[tuple[Path, float]],
    output: Path,
    *,
    tool: str,
    style: str | None = None,
    limit: Limit | None = None,
    dtype: torch.dtype | None = None,
    partial: bool = False,
    device: str = "cpu",
    architectures: tuple[Architecture, ...] | None = None,
    step: Step = lambda amount, text: None,
) -> Made:
    """Write the sum of LoRAs, each times its strength, as one file.

    Without a limit the sum is exact: ranks add up. With one, each module is reduced by itself, as
    the style has them. `style` is that of the first source unless given. `step` is called with the
    fraction of the work that was done.

    Raises:
        LoraError: a source cannot be read; holds something that cannot be used (unless `partial`);
            the sources are for different models; or a change has no form in the style.
        OSError: the file cannot be written. Nothing is left behind.
    """
    loras = [(_load(path, device, architectures, partial), s) for path, s in sources]
    model = _one_model(loras)
    left_out = tuple(text for lora, _ in loras for text in _left_out(lora))
    style = style or style_of(entry.key for entry in loras[0][0].report.keys)
    encoded = list(_encode(loras, model, style, limit, dtype, output, step))
    tensors: dict[str, Tensor] = {name: t for item in encoded for name, t in item.tensors.items()}
    nbytes = sum(tensor.nbytes for tensor in tensors.values())
    made = summary(encoded, output, model, style, left_out, nbytes)
    metadata = _metadata(sources, made, tool, limit)
    with TensorWriter(output, tensors, metadata) as file:
        for name, tensor in tensors.items():
            file.add(name, tensor)
    return made


def _load(
    path: Path, device: str, architectures: tuple[Architecture, ...] | None, partial: bool
) -> Lora:
    lora = load_lora(path, device, architectures, ByteLru(0))
    faults = [f"{fault.module}: {fault.reason}" for fault in lora.report.faults]
    faults += [f"{e.key}: {e.reason}" for e in lora.report.keys if e.status == UNMATCHED]
    if faults and not partial:
        more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
        problem = f"cannot be used whole ({faults[0]}{more})"
        remedy = "See 'vivace lora inspect'; --partial leaves out what cannot be used"
        raise ToolError(path, problem, remedy)
    return lora


def _one_model(loras: Sequence[tuple[Lora, float]]) -> Architecture:
    first = loras[0][0]
    for lora, _ in loras[1:]:
        if lora.architecture is not first.architecture:
            problem = f"is for {lora.architecture.title}, but {first.path.name} is for "
            raise ToolError(
                lora.path, problem + first.architecture.title, "Merge LoRAs of one model"
            )
    return first.architecture


def _left_out(lora: Lora) -> Iterator[str]:
    report = lora.report
    for reason, count in report.ignored().items():
        yield f"{lora.path.name}: {count} tensors ({reason})"
    for entry in report.keys:
        if entry.status == UNMATCHED:
            yield f"{lora.path.name}: {entry.key} ({entry.reason})"
    for fault in report.faults:
        yield f"{lora.path.name}: {fault.module} ({fault.reason})"


def _encode(
    loras: Sequence[tuple[Lora, float]],
    model: Architecture,
    style: str,
    limit: Limit | None,
    dtype: torch.dtype | None,
    output: Path,
    step: Step,
) -> Iterator[Encoded]:
    try:
        units = gather(loras, model, style)
        for unit in units:
            yield encode(unit, model, style, limit, dtype)
            step(1 / len(units), unit.name)
    except Unusable as error:
        raise ToolError(output, f"cannot be made: {error}", "Nothing was written") from None


def summary(
    encoded: Sequence[Encoded],
    output: Path,
    model: Architecture,
    style: str,
    left_out: tuple[str, ...],
    nbytes: int,
) -> Made:
    """What the units of a file amount to."""
    ranks = [item.rank for item in encoded if item.rank is not None]
    changed = [item for item in encoded if item.lost > 0]
    lost = math.sqrt(sum(item.lost**2 for item in changed))
    total = math.sqrt(sum(item.total**2 for item in encoded))
    errors = [(item.unit.name, item.lost / item.total) for item in changed if item.total > 0]
    return Made(
        path=output,
        architecture=model.name,
        style=style,
        modules=len(encoded),
        ranks=(min(ranks), max(ranks)) if ranks else None,
        nbytes=nbytes,
        error=lost / total if total else 0.0,
        worst=max(errors, key=lambda pair: pair[1], default=None),
        left_out=left_out,
    )


def _metadata(
    sources: Sequence[tuple[Path, float]], made: Made, tool: str, limit: Limit | None
) -> dict[str, str]:
    """What the new file says of itself: what its sources say, and what was made of them."""
    headers = [_header(path) for path, _ in sources]
    if len(headers) == 1:
        kept = {name: text for name, text in headers[0].items() if name not in _STALE}
    else:
        kept = {
            name: headers[0][name]
            for name in _COMMON
            if all(name in header and header[name] == headers[0].get(name) for header in headers)
        }
    made_from: dict[str, Any] = {
        "tool": tool,
        "sources": [
            {"file": path.name, "strength": strength, "sha256": _sha256(path)}
            for path, strength in sources
        ],
        "relative_error": float(f"{made.error:.3g}"),
    }
    if limit is not None:
        made_from |= {k: v for k, v in vars(limit).items() if v is not None}
    if made.ranks is not None and made.ranks[0] == made.ranks[1]:
        kept["ss_network_dim"] = str(made.ranks[0])
    return {**kept, "format": "pt", MARK: json.dumps(made_from)}


def _header(path: Path) -> Mapping[str, str]:
    with LoraFile(path) as file:
        return file.header.metadata


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
