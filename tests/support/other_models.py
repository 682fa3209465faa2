"""LoRA files as trainers write them for many models: real names and shapes, and no data.

``other_models.json`` has the linear layers of models that share names with the supported ones, and
the labels that trainers give their files. A line of it is a path, the outputs and the inputs;
``0-18`` in a path stands for each of these blocks.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from support.lora_samples import DATA
from vivace.lora.mapping.architecture import Architecture
from vivace.lora.mapping.supported_models import standard

Shapes = Mapping[str, tuple[int, ...]]
Labels = Mapping[str, str]


@dataclass(frozen=True)
class Model:
    """A model's linear layers by path.

    Attributes:
        source: a class of diffusers and its configuration, or where the names stand.
        labels: what trainers write into the headers of its files.
    """

    linears: Shapes
    labels: tuple[Labels, ...] = ()
    source: Any = None

    @cached_property
    def blocks(self) -> str:
        """The name of its list of blocks; of two lists, of the one that is not ``single_...``."""
        found = {path.split(".")[0] for path in self.linears if _in_blocks(path)}
        return next(name for name in _LISTS if name in found)

    @cached_property
    def depth(self) -> int:
        """How many blocks that list has."""
        indices = {_index(path, self.blocks) for path in self.linears}
        return len(indices - {None})

    def of(self, numbers: Iterable[int]) -> Shapes:
        """The layers of these blocks."""
        wanted = set(numbers)
        return {p: s for p, s in self.linears.items() if _index(p, self.blocks) in wanted}


_LISTS = (
    *("transformer_blocks", "layers", "double_blocks"),
    *("single_transformer_blocks", "single_blocks", "noise_refiner", "context_refiner"),
)


def _in_blocks(path: str) -> bool:
    return any(_index(path, name) is not None for name in _LISTS)


def _index(path: str, blocks: str) -> int | None:
    name, _, rest = path.partition(".")
    number = rest.partition(".")[0]
    return int(number) if name == blocks and number.isdecimal() else None


@lru_cache(maxsize=1)
def other_models() -> dict[str, Model]:
    """Every model of the table, by title."""
    table = json.loads((DATA / "other_models.json").read_text(encoding="utf-8"))
    return {
        title: Model(_expanded(row["linears"]), tuple(row["labels"]), row["source"])
        for title, row in table.items()
    }


def _expanded(lines: Iterable[str]) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for line in lines:
        path, out, inp = line.split()
        found.update(dict.fromkeys(_each(path), (int(out), int(inp))))
    return found


def _each(path: str) -> Iterator[str]:
    span = re.search(r"\.(\d+)-(\d+)(?=\.|$)", path)
    if span is None or int(span[1]) > int(span[2]):  # all_x_embedder.2-1 is a name
        yield path
        return
    for number in range(int(span[1]), int(span[2]) + 1):
        yield f"{path[: span.start()]}.{number}{path[span.end() :]}"


@lru_cache(maxsize=4)
def own_model(name: str) -> Model:
    """A supported model with the names of diffusers, which trainers use: q, k and v apart."""
    architecture = next(one for one in standard() if one.name == name)
    found: dict[str, tuple[int, ...]] = {}
    for path, module in architecture.modules.items():
        if module.kind == "linear" and not module.optional:
            found.update(_apart(architecture, path))
    return Model(found)


def _apart(architecture: Architecture, path: str) -> Shapes:
    shape = architecture.modules[path].shape
    parts = architecture.parts.get(path)
    if parts is None:
        return {path.replace("attention.out", "attention.to_out.0"): shape}
    before = path.rpartition(".")[0]
    return {f"{before}.to_{row.part}": (row.stop - row.start, shape[1]) for row in parts}


def attention(linears: Shapes) -> Shapes:
    """Those layers of blocks that diffusers' training scripts take unless told otherwise."""
    names = (".attn.", ".attention.", ".img_attn.", ".txt_attn.")
    return {p: s for p, s in linears.items() if _in_blocks(p) and any(n in p for n in names)}


def unmodulated(linears: Shapes) -> Shapes:
    """Those layers of blocks that musubi-tuner takes unless told otherwise."""
    left_out = ("norm", "_mod", "modulation")
    return {p: s for p, s in linears.items() if _in_blocks(p) and not any(n in p for n in left_out)}


# Which layers a file is for.
COVERAGE: dict[str, Callable[[Model], Shapes]] = {
    "the first block": lambda model: model.of([0]),
    "two blocks": lambda model: model.of([0, 1]),
    "the last block": lambda model: model.of([model.depth - 1]),
    "every third block": lambda model: model.of(range(0, model.depth, 3)),
    "all blocks": lambda model: {p: s for p, s in model.linears.items() if _in_blocks(p)},
    "all blocks without modulation": lambda model: unmodulated(model.linears),
    "the whole model": lambda model: model.linears,
}


@dataclass(frozen=True)
class Spelling:
    """What stands before a module's path, whether dots are flattened, and the factors' names."""

    before: str
    flat: bool = False
    down: str = "lora_A.weight"
    up: str = "lora_B.weight"
    alpha: bool = False

    def stem(self, path: str) -> str:
        """The module's name in a file."""
        return self.before + (path.replace(".", "_") if self.flat else path)


def _kohya(before: str) -> Spelling:
    return Spelling(before, True, "lora_down.weight", "lora_up.weight", True)


SPELLINGS = {
    "diffusers": Spelling("transformer."),
    "ComfyUI": Spelling("diffusion_model."),
    "kohya": _kohya("lora_unet_"),
    "OneTrainer": _kohya("lora_transformer_"),
    "PEFT": Spelling("base_model.model."),
}


# The largest files, in a spelling of those that write them; the others come in every one.
_SPELLED = {"all blocks without modulation": ["kohya"], "the whole model": ["diffusers"]}


def files(model: Model) -> Iterator[tuple[str, str, Shapes]]:
    """Coverage and spelling of files of a model, and the layers in them."""
    for coverage, choose in COVERAGE.items():
        linears = choose(model)
        for spelling in _SPELLED.get(coverage, SPELLINGS):
            yield coverage, spelling, linears


def _factors(spelling: Spelling, out: int, inp: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {spelling.down: (1, inp), spelling.up: (out, 1)}
    return found | ({"alpha": ()} if spelling.alpha else {})


def _loha(spelling: Spelling, out: int, inp: int) -> dict[str, tuple[int, ...]]:
    sides = {"hada_w1_a": (out, 1), "hada_w1_b": (1, inp)}
    return {**sides, "hada_w2_a": (out, 1), "hada_w2_b": (1, inp), "alpha": ()}


def _lokr(spelling: Spelling, out: int, inp: int) -> dict[str, tuple[int, ...]]:
    side = math.gcd(out, inp, 16)
    second = {"lokr_w2_a": (out // side, 1), "lokr_w2_b": (1, inp // side)}
    return {"lokr_w1": (side, side), **second, "alpha": ()}


def _dora(spelling: Spelling, out: int, inp: int) -> dict[str, tuple[int, ...]]:
    name = "dora_scale" if spelling.alpha else "lora_magnitude_vector.weight"
    return {**_factors(spelling, out, inp), name: (out, 1) if spelling.alpha else (out,)}


def _diff(spelling: Spelling, out: int, inp: int) -> dict[str, tuple[int, ...]]:
    return {"diff": (out, inp)}


# What a file has for each layer.
FORMS: dict[str, Callable[[Spelling, int, int], dict[str, tuple[int, ...]]]] = {
    "LoRA": _factors,
    "LoHa": _loha,
    "LoKr": _lokr,
    "DoRA": _dora,
    "diff": _diff,
}


def tensors(linears: Shapes, spelling: str = "diffusers", form: str = "LoRA") -> Shapes:
    """The tensors of a file for these layers."""
    how = SPELLINGS[spelling]
    return {
        f"{how.stem(path)}.{suffix}": shape
        for path, (out, inp) in linears.items()
        for suffix, shape in FORMS[form](how, out, inp).items()
    }


def write_hollow(path: Path, shapes: Shapes, metadata: Labels | None = None) -> Path:
    """Save a safetensors file of float16 zeros that takes no room on most disks."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return path
