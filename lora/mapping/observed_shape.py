"""The size of the weight that a module's tensors were made for, as far as their shapes tell."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from ..files.header import TensorInfo
from .key_map import Stem
from .peft_oft import size_of_triangle

Shape = tuple[int, ...]
Size = tuple[int | None, int | None]


def observed_shape(stem: Stem, infos: Mapping[str, TensorInfo], expected: Shape) -> Size | None:
    """Return ``(out, in)`` of the weight, either None where nothing tells it; None if neither.

    `expected` decides between the two readings of factors that may be transposed. For norms and
    tokens the second is None.
    """
    shapes: dict[str, Shape] = {}
    for claim in stem.claims:
        if claim.role is not None:
            shapes.setdefault(claim.role, infos[claim.key].shape)
    for read in (_of_lora, _of_full, _of_loha, _of_lokr, _of_vector, _of_rotation):
        size = read(shapes, expected)
        if size is not None and size != (None, None):
            return size
    return None


def _of_lora(shapes: Mapping[str, Shape], expected: Shape) -> Size | None:
    numbers = [role[5:] for role in shapes if role.startswith("down.")]
    if numbers:
        ups = [shapes.get(f"up.{number}", (0,)) for number in numbers]
        return sum(max(up[:1], default=0) for up in ups), max(
            shapes[f"down.{numbers[0]}"][1:2], default=0
        )
    down, up = shapes.get("down", ()), shapes.get("up", ())
    if len(down) < 2 and len(up) < 2:
        return None
    size = up[0] if len(up) >= 2 else None, down[1] if len(down) >= 2 else None
    turned = up[1] if len(up) >= 2 else None, down[0] if len(down) >= 2 else None
    return turned if turned == expected else size


def _of_full(shapes: Mapping[str, Shape], expected: Shape) -> Size | None:
    for role in ("diff", "weight", "set_weight"):
        shape = shapes.get(role, ())
        if shape and (role != "weight" or "on_input" not in shapes):
            # Several weights in one tensor, such as one for each step, are as large as each.
            out, *rest = shape[1:] if len(shape) == 3 and shape[1:] == expected else shape
            return out, prod(rest) if rest else None
    return None


def _of_loha(shapes: Mapping[str, Shape], expected: Shape) -> Size | None:
    a, b = shapes.get("hada_w1_a", ()), shapes.get("hada_w1_b", ())
    return (a[0] if len(a) >= 2 else None, b[1] if len(b) >= 2 else None) if a or b else None


def _of_lokr(shapes: Mapping[str, Shape], expected: Shape) -> Size | None:
    sides = [
        (shapes.get(f"lokr_w{i}", shapes.get(f"lokr_w{i}_a", ()))[:1],
         shapes.get(f"lokr_w{i}", shapes.get(f"lokr_w{i}_b", ()))[1:2])
        for i in "12"
    ]  # fmt: skip
    rows, columns = ([side[axis] for side in sides if side[axis]] for axis in (0, 1))
    return (
        prod(r[0] for r in rows) if len(rows) == 2 else None,
        prod(c[0] for c in columns) if len(columns) == 2 else None,
    )


def _of_vector(shapes: Mapping[str, Shape], expected: Shape) -> Size | None:
    if len(shapes.get("ia3_l", ())) == 2:
        out, inp = shapes["ia3_l"]
        return (None, inp) if out == 1 else (out, None)
    if "on_input" in shapes and shapes.get("weight"):
        size = shapes["weight"][0]
        return (None, size) if size == expected[-1] else (size, None)
    for role in ("diff_b", "up_bias", "magnitude", "bias", "glora_b1"):
        if shapes.get(role):
            return shapes[role][0], None
    return None


def _of_rotation(shapes: Mapping[str, Shape], expected: Shape) -> Size | None:
    blocks = shapes.get("oft_blocks", ())
    if len(blocks) in (3, 4):
        return blocks[-3] * blocks[-1], None
    upper = shapes.get("oft_R", ())
    if len(upper) < 2 or prod(upper[2:]) != 1:
        return None
    size = size_of_triangle(upper[1])
    # A single block may stand for all, of which only the configuration tells.
    return (None, upper[0] * size) if upper[0] > 1 or size == expected[-1] else None
