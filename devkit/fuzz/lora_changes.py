"""Ways to tamper with the description of a LoRA file, each of which somebody's program could do."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from ...lora.mapping.architecture import Architecture
from . import lora_reference
from . import lora_words as words
from .lora_samples import ARCHITECTURES, samples

Tensors = dict[str, list[Any]]


def tamper(description: Any, chance: random.Random) -> None:
    """Change a description in place, in up to three ways.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: it is no proper one, or holds nothing.
    """
    for _ in range(chance.choice((1, 1, 2, 3))):
        change = chance.choice(_CHANGES)
        change(description, description["tensors"], chance)


def _pick(tensors: Tensors, chance: random.Random) -> str:
    return chance.choice(list(tensors))


def _drop(_: Any, tensors: Tensors, chance: random.Random) -> None:
    del tensors[_pick(tensors, chance)]


def _rename(_: Any, tensors: Tensors, chance: random.Random) -> None:
    name = _pick(tensors, chance)
    value = tensors.pop(name)
    tensors[_other_name(name, chance)] = value


def _copy(_: Any, tensors: Tensors, chance: random.Random) -> None:
    name = _pick(tensors, chance)
    tensors[_other_name(name, chance)] = list(tensors[name])


def _other_name(name: str, chance: random.Random) -> str:
    stem, tail = _parts(name)
    kind = chance.randrange(8)
    if kind < 3:
        return f"{stem}.{chance.choice(words.TAILS)}"
    if kind < 5:
        return f"{respelled(stem, chance)}.{tail}"
    if kind == 5:
        return f"{stem}.{chance.choice(words.INSIDE)}.{tail}"
    if kind == 6:
        return chance.choice((stem, tail, f"{stem}.{tail}.x", f"{stem}_{tail}", name.upper()))
    where = chance.randrange(len(name) + 1)
    return (
        name[:where] + chance.choice(("", ".", "_", "0", "1")) + name[where + chance.randrange(2) :]
    )


def _parts(name: str) -> tuple[str, str]:
    """The module and what follows it, joined by a dot."""
    found = lora_reference.split(name)
    stem = found[0] if found else name.rpartition(".")[0]
    return stem, name[len(stem) :].lstrip(".")


def _retype(_: Any, tensors: Tensors, chance: random.Random) -> None:
    tensors[_pick(tensors, chance)][0] = chance.choice(words.TYPES)


def _reshape(_: Any, tensors: Tensors, chance: random.Random) -> None:
    value = tensors[_pick(tensors, chance)]
    shape = list(value[1])
    kind = chance.randrange(6)
    if kind == 0:
        value[1] = [*shape, 1, 1]
    elif kind == 1:
        value[1] = shape[::-1]
    elif kind == 2:
        value[1] = chance.choice(([], [1], [1, 1], [1, 1, 1], [0], shape[:1], shape[1:]))
    elif kind == 3:
        value[1] = [1, *shape]
    elif shape:
        axis = chance.randrange(len(shape))
        shape[axis] = chance.choice((0, 1, 2, 3, 4, 32, 96, shape[axis] + 1, 2 * shape[axis]))
        value[1] = shape


def _rescale(_: Any, tensors: Tensors, chance: random.Random) -> None:
    value = tensors[_pick(tensors, chance)]
    dtype, shape, seed, factor, *rest = (*value, *(0, 1.0)[len(value) - 2 :])
    value[:] = [dtype, shape, seed, factor * chance.choice(words.FACTORS), *rest]


def _redraw(_: Any, tensors: Tensors, chance: random.Random) -> None:
    value = tensors[_pick(tensors, chance)]
    value[2:3] = [chance.randrange(200)]


def _add(_: Any, tensors: Tensors, chance: random.Random) -> None:
    """Add a tensor of any role and shape to a module."""
    name = _pick(tensors, chance)
    stem, _tail = _parts(name)
    shape = tensors[name][1]
    sizes = (
        [],
        [1],
        [1, 1],
        [1, 1, 1],
        shape,
        shape[:1],
        [*shape[:1], 1],
        [32],
        [96, 1],
        [2],
        [1, 32],
    )
    tensors[f"{stem}.{chance.choice(words.TAILS)}"] = _drawn(chance.choice(sizes), chance)


def _add_fitting(_: Any, tensors: Tensors, chance: random.Random) -> None:
    """Add a tensor that fits to the weight, and perhaps to the factors, of a module."""
    name = _pick(tensors, chance)
    stem, _tail = _parts(name)
    shapes = [_size(one, _path(stem) or "") for one in ARCHITECTURES]
    out, inp = chance.choice([shape for shape in shapes if shape])
    role, shape = chance.choice(_fitting(out, inp, chance.choice((2, 2, 4, 1))))
    tensors[f"{stem}.{role}"] = _drawn(shape, chance)


def _drawn(shape: list[int], chance: random.Random) -> list[Any]:
    dtype = chance.choice(("F32", "F32", "F32", "BF16", "I64"))
    return [dtype, shape, chance.choice((0, 7)), chance.choice((1, 2.0, 0.5))]


def _fitting(out: int, inp: int, rank: int) -> tuple[tuple[str, list[int]], ...]:
    down, up, rows = [rank, inp], [out, rank], [out]
    return (
        ("diff_b", rows), ("b_norm", rows), ("lora_B.bias", rows), ("lora_up.bias", rows),
        ("lora_A.bias", [rank]), ("lora_down.bias", [rank]), ("alpha", []), ("alpha", [1]),
        ("lora_alpha", []), ("lora_scaling", []), ("dora_scale", [out, 1]),
        ("dora_scale", [1, inp]), ("lora_magnitude_vector", rows), ("magnitude", rows),
        ("lora_A.weight_scale", []), ("lora_A.weight_scale", [1, 1, 1]),
        ("lora_B.weight_scale", []), ("lora_B.scale_weight", rows),
        ("lora_down.scale_weight", [rank, 1]), ("lora_up.weight.scale", [1]), ("diff", [out, inp]),
        ("lora_mid.weight", [rank, rank]), ("lora_mid.weight_scale", []), ("lora_E", [rank, 1]),
        ("rescale", [out, 1]), ("ia3_l", [out, 1]), ("ia3_l", [1, inp]), ("weight", rows),
        ("weight", [inp]), ("weight", [out, inp]), ("on_input", []), ("bias", rows),
        ("lora_A.weight", down), ("lora_B.weight", up), ("lora_down.weight", down),
        ("lora_up.weight", up), ("hada_w1_a", up), ("hada_w1_b", down), ("hada_w2_a", up),
        ("hada_w2_b", down), ("lokr_w1", [2, 2]), ("lokr_w2", [out // 2, inp // 2]),
        ("oft_blocks", [out // 4, 4, 4]), ("oft_blocks", [rank, out // 4, 4, 4]),
        ("oft_blocks", [0, out // 4, 4, 4]), ("w_norm", rows),
    )  # fmt: skip


def _size(architecture: Architecture, path: str) -> tuple[int, int] | None:
    """Rows and inputs of what a path names in an architecture; None if it has no such module."""
    target = architecture.aliases.get(path, (path, None))
    if path not in _own_names(architecture):
        return None
    out, *rest = architecture.target(*target).shape
    return out, rest[0] if rest else 1


@lru_cache(maxsize=8)
def _own_names(architecture: Architecture) -> frozenset[str]:
    return frozenset((*architecture.modules, *architecture.fusions, *architecture.aliases))


def _respell(_: Any, tensors: Tensors, chance: random.Random) -> None:
    """Give a whole module under another name, alone or beside the first."""
    stem, _tail = _parts(_pick(tensors, chance))
    new = respelled(stem, chance)
    keep = chance.random() < 0.5
    for name in [n for n in tensors if n == stem or n.startswith((f"{stem}.", f"{stem}_lora."))]:
        value = tensors[name] if keep else tensors.pop(name)
        tensors[new + name[len(stem) :]] = list(value)


def _adopt(_: Any, tensors: Tensors, chance: random.Random) -> None:
    """Take the tensors of another file in."""
    other = chance.choice(samples())["tensors"]
    names = list(other)
    if chance.random() < 0.3:
        names = chance.sample(names, chance.randint(1, len(names)))
    tensors.update((name, list(other[name])) for name in names)


def _onto(_: Any, tensors: Tensors, chance: random.Random) -> None:
    """Give a module what another one has: two families at once, or two sizes."""
    first, second = (_parts(_pick(tensors, chance))[0] for _ in range(2))
    other = chance.choice(samples())["tensors"]
    source, stem = (
        (tensors, first) if chance.random() < 0.5 else (other, _parts(_pick(other, chance))[0])
    )
    for name in [n for n in source if n.startswith(f"{stem}.")]:
        tensors[second + name[len(stem) :]] = list(source[name])


def _state(description: Any, _: Tensors, chance: random.Random) -> None:
    """State something of the model or of scales, in the header or beside the file."""
    metadata = description.get("metadata") or {}
    kind = chance.randrange(4)
    if kind == 0 and metadata:
        del metadata[chance.choice(list(metadata))]
    elif kind == 1:
        name = chance.choice(list(words.METADATA))
        metadata[name] = chance.choice(words.METADATA[name])
    elif kind == 2:
        metadata["lora_adapter_metadata"] = _configured(
            metadata.get("lora_adapter_metadata"), chance
        )
    else:
        description["config"] = _configured(description.get("config"), chance)
    description["metadata"] = metadata


def _configured(text: str | None, chance: random.Random) -> str:
    fields = json.loads(text) if text else {}
    for _ in range(chance.randint(1, 3)):
        name = chance.choice(list(words.FIELDS))
        prefix = "transformer." if any(key.startswith("transformer.") for key in fields) else ""
        fields[prefix + name] = chance.choice(words.FIELDS[name])
    return json.dumps(fields)


_CHANGES: tuple[Callable[[Any, Tensors, random.Random], None], ...] = (
    _drop, _rename, _copy, _retype, _reshape, _rescale, _rescale, _redraw, _add, _add_fitting,
    _add_fitting, _add_fitting, _respell, _respell, _adopt, _onto, _state, _state,
)  # fmt: skip


def respelled(stem: str, chance: random.Random) -> str:
    """Another name of the same module, or, seldom, that of another module."""
    path = _path(stem)
    if path is None or chance.random() < 0.1:
        path = chance.choice(list(_names().values()))
    path = chance.choice(_same(path))
    prefix = chance.choice(words.AROUND)
    flatten = prefix.startswith("l") or chance.random() < 0.1
    return prefix + (path.replace(".", "_") if flatten else path)


@lru_cache(maxsize=1024)
def _path(stem: str) -> str | None:
    """What a spelling means, in any architecture."""
    flat = stem.replace(".", "_")
    return next((name for end, name in _names().items() if flat.endswith(end)), None)


@lru_cache(maxsize=1)
def _names() -> dict[str, str]:
    """Every module, the longest first, by its flattened name."""
    names = {name for one in ARCHITECTURES for name in _own_names(one)}
    return {name.replace(".", "_"): name for name in sorted(names, key=len, reverse=True)}


@lru_cache(maxsize=1024)
def _same(path: str) -> list[str]:
    """Every name of what a path names, and those of what overlaps it."""
    found = [path]
    for one in ARCHITECTURES:
        named = {**{p: (p, None) for p in (*one.modules, *one.fusions)}, **one.aliases}
        if path in named:
            pieces = {block[:2] for block in one.target(*named[path]).blocks}
            found += [
                name
                for name, target in named.items()
                if not pieces.isdisjoint(block[:2] for block in one.target(*target).blocks)
            ]
    return found
