"""The kinds of adapters: which tensors take part in each, and of which shapes they must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

from ..errors import Unusable
from ..mapping.architecture import Target
from ..mapping.suffixes import SCALE_OF

Shapes = Mapping[str, tuple[int, ...]]
DORA = frozenset({"dora_scale", "magnitude"})
ALPHA = frozenset({"alpha", "scaling"})


def flat_shape(shape: tuple[int, ...], role: str = "") -> tuple[int, ...]:
    """Return the shape of a linear factor that may be stored as a 1x1 convolution.

    Raises:
        Unusable: it is a real convolution.
    """
    if len(shape) > 2 and role not in _STACKED:
        if prod(shape[2:]) != 1:
            raise Unusable(f"convolution factor of shape {list(shape)} on a linear layer")
        return shape[:2]
    return shape


_STACKED = frozenset({"oft_blocks"})


def magnitude_axis(role: str, shape: tuple[int, ...], target: Target) -> int:
    """Return the axis of the weight (0 rows, 1 columns) that a DoRA magnitude runs along.

    ``dora_scale`` is ``[out, 1]`` or ``[1, in]``, by the rule of ComfyUI's ``weight_decompose``
    (rows if the first dimension is out); the other names are always ``[out]``.

    Raises:
        Unusable: the shape fits neither axis.
    """
    out, inp = target.shape
    count = prod(shape)
    if shape and shape[0] == out == count:
        return 0
    if role == "dora_scale" and count == inp:
        if len(target.blocks) > 1 and target.blocks[0].module != target.module:
            raise Unusable("a column magnitude of fused projections cannot be split")
        return 1
    raise Unusable(f"DoRA magnitude of shape {list(shape)} on a {out}x{inp} weight")


def require_shape(role: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Raise `Unusable` unless a tensor has a shape, be it as a 1x1 convolution."""
    if shape != expected and not (len(expected) == 2 and flat_shape(shape) == expected):
        raise Unusable(f"{role} has shape {list(shape)}, the weight {list(expected)}")


def _pair(shapes: Shapes, first: str, second: str) -> tuple[int, int, int]:
    """Return (rows, columns, rank) of the product of two factors."""
    for role in (first, second):
        if role not in shapes:
            raise Unusable(f"{role} is missing")
        if len(shapes[role]) != 2:
            raise Unusable(f"{role} has shape {list(shapes[role])} instead of two dimensions")
    (rows, rank), (rank2, columns) = shapes[first], shapes[second]
    if rank != rank2:
        raise Unusable(f"{first} has rank {rank}, {second} has rank {rank2}")
    if rank == 0:
        raise Unusable("rank 0")
    return rows, columns, rank


def _require_size(out: int, inp: int, target: Target) -> None:
    if (out, inp) != target.shape:
        expected = f"{target.shape[0]}x{target.shape[1]}"
        raise Unusable(f"is for a {out}x{inp} weight, but this one is {expected}")


def _lora(shapes: Shapes, target: Target) -> int:
    down, up = shapes.get("down", ()), shapes.get("up", ())
    turned = len(down) == len(up) == 2 and (up[1], down[0]) == target.shape and down[1] == up[0]
    if turned and (up[0], down[1]) != target.shape:
        raise Unusable(
            f"its factors are transposed, {list(down)} and {list(up)}, as MLX keeps them;"
            " transpose both in the program that wrote the file"
        )
    if "mid" in shapes:
        middle = shapes["mid"]
        if len(middle) != 2 or middle[0] != middle[1]:
            raise Unusable(f"lora_mid of shape {list(middle)} cannot be folded exactly")
        _pair(shapes, "mid", "down")
    out, inp, rank = _pair(shapes, "up", "down")
    _require_size(out, inp, target)
    if "lora_E" in shapes and shapes["lora_E"] not in ((rank, 1), (rank,)):
        raise Unusable(f"lora_E has shape {list(shapes['lora_E'])} at rank {rank}")
    for factor, scale in SCALE_OF.items():
        if scale in shapes:
            _scale_shape(shapes[scale], shapes.get(factor, ()), scale)
    return rank


def _scale_shape(shape: tuple[int, ...], factor: tuple[int, ...], role: str) -> None:
    if not factor:
        raise Unusable(f"{role} without the factor that it belongs to")
    if prod(shape) != 1 and shape not in ((factor[0],), (factor[0], 1)):
        raise Unusable(f"{role} has shape {list(shape)} for a factor {list(factor)}")


def _numbered(shapes: Shapes, target: Target) -> int:
    """kohya's parts: part i is ``up_i @ down_i``, all with alpha over the rank of one."""
    numbers = sorted(int(role[5:]) for role in shapes if role.startswith("down."))
    pairs = [_pair(shapes, f"up.{number}", f"down.{number}") for number in numbers]
    if not pairs or sum(role[:2] in ("up", "do") for role in shapes) != 2 * len(pairs):
        raise Unusable("its numbered parts (lora_down.0, lora_up.0, ...) do not pair up")
    if numbers != list(range(len(pairs))) or len({pair[1:] for pair in pairs}) > 1:
        raise Unusable("its numbered parts (lora_down.0, lora_down.1, ...) do not fit together")
    _require_size(sum(pair[0] for pair in pairs), pairs[0][1], target)
    return pairs[0][2]


def _loha(shapes: Shapes, target: Target) -> int:
    first = _pair(shapes, "hada_w1_a", "hada_w1_b")
    second = _pair(shapes, "hada_w2_a", "hada_w2_b")
    if first[:2] != second[:2]:
        raise Unusable("the two LoHa products differ in shape")
    _require_size(first[0], first[1], target)
    return first[2]


def _lokr(shapes: Shapes, target: Target) -> int | None:
    sizes: list[tuple[int, int]] = []
    rank: int | None = None
    for name in ("lokr_w1", "lokr_w2"):
        if name not in shapes:
            rows, columns, rank = _pair(shapes, f"{name}_a", f"{name}_b")
            sizes.append((rows, columns))
        elif len(shapes[name]) != 2 or 0 in shapes[name]:
            raise Unusable(f"{name} has shape {list(shapes[name])} instead of two dimensions")
        elif shapes.keys() & {f"{name}_a", f"{name}_b"}:
            raise Unusable(f"{name} is given both whole and as factors")
        else:
            sizes.append((shapes[name][0], shapes[name][1]))
    _require_size(sizes[0][0] * sizes[1][0], sizes[0][1] * sizes[1][1], target)
    return rank


def _diff(shapes: Shapes, target: Target) -> None:
    require_shape("diff", shapes["diff"], target.shape)


def _glora(shapes: Shapes, target: Target) -> int:
    inner = _pair(shapes, "glora_a1", "glora_a2")
    out, inp, rank = _pair(shapes, "glora_b1", "glora_b2")
    _require_size(out, inp, target)
    if inner != (inp, inp, rank):
        raise Unusable(f"GLoRA's a1 and a2 are for {inner[1]} inputs, b1 and b2 for {inp}")
    return rank


def _ia3(shapes: Shapes, target: Target) -> None:
    if shapes.keys() != {"weight", "on_input"} or prod(shapes["on_input"]) != 1:
        raise Unusable("is IA3 of LyCORIS without both its weight and on_input")
    count = prod(shapes["weight"])
    if count not in target.shape or max(shapes["weight"], default=1) != count:
        raise Unusable(f"IA3's weight has shape {list(shapes['weight'])}")


def _peft_ia3(shapes: Shapes, target: Target) -> None:
    out, inp = target.shape
    if shapes["ia3_l"] == (out, 1):
        return
    if shapes["ia3_l"] != (1, inp):
        raise Unusable(f"ia3_l has shape {list(shapes['ia3_l'])} on a {out}x{inp} weight")
    if len(target.blocks) > 1 and target.blocks[0].module != target.module:
        raise Unusable("IA3 of fused projections cannot be split")


def _peft_oft(shapes: Shapes, target: Target) -> None:
    if len(shapes["oft_R"]) != 2:  # how it is cut is for the configuration to say
        raise Unusable(f"oft_R has shape {list(shapes['oft_R'])} instead of two dimensions")


def _oft(shapes: Shapes, target: Target) -> None:
    blocks = shapes["oft_blocks"]
    out = target.shape[0]
    butterfly = len(blocks) == 4
    if len(blocks) not in (3, 4) or blocks[-1] != blocks[-2] or blocks[-3] * blocks[-1] != out:
        raise Unusable(f"oft_blocks has shape {list(blocks)} on {out} rows")
    if butterfly and (blocks[1] & (blocks[1] - 1) or 2 ** (blocks[0] - 1) > blocks[1]):
        raise Unusable(f"BOFT with {blocks[1]} blocks in {blocks[0]} stages")
    if butterfly and (blocks[2] % 2 or not blocks[0]):
        raise Unusable(f"BOFT of {blocks[0]} stages with blocks of size {blocks[2]}")
    if len(target.blocks) > 1 and target.blocks[0].module != target.module:
        raise Unusable("a rotation of fused projections cannot be split")
    if "rescale" in shapes and shapes["rescale"] not in ((out,), (out, 1)):
        raise Unusable(f"rescale has shape {list(shapes['rescale'])} on {out} rows")


@dataclass(frozen=True)
class Family:
    """A kind of adapter.

    Attributes:
        name: of the family, in plans and reports.
        marks: roles that only it has.
        more: further roles that take part in its formula.
        check: checks shapes and returns the rank; raises `Unusable`.
        scaled: whether alpha is a scale of it.
        linear: whether it is for linear layers only.
    """

    name: str
    marks: frozenset[str]
    more: frozenset[str]
    check: Callable[[Shapes, Target], int | None]
    scaled: bool = True
    linear: bool = True

    def takes(self, role: str) -> bool:
        """Whether a tensor of this role takes part."""
        return role in self.marks or role in self.more


_NUMBERS = frozenset(f"{side}.{number}" for side in ("down", "up") for number in range(8))
FAMILIES = (
    Family(
        "lora",
        frozenset({"down", "up", "mid", "lora_E", *SCALE_OF.values()}),
        ALPHA | DORA,
        _lora,
    ),
    Family("numbered", _NUMBERS, ALPHA, _numbered),
    Family("loha", frozenset(f"hada_w{i}_{f}" for i in "12" for f in "ab"), ALPHA | DORA, _loha),
    Family(
        "lokr",
        frozenset(f"lokr_w{i}{f}" for i in "12" for f in ("", "_a", "_b")),
        ALPHA | DORA,
        _lokr,
    ),
    Family("glora", frozenset(f"glora_{n}" for n in ("a1", "a2", "b1", "b2")), ALPHA, _glora),
    Family("oft", frozenset({"oft_blocks"}), frozenset({"alpha", "rescale"}), _oft, scaled=False),
    Family("ia3", frozenset({"on_input"}), frozenset({"weight"}), _ia3, scaled=False),
    Family("peft_ia3", frozenset({"ia3_l"}), frozenset(), _peft_ia3, scaled=False),
    Family("peft_oft", frozenset({"oft_R"}), frozenset(), _peft_oft, scaled=False),
    Family("diff", frozenset({"diff"}), frozenset(), _diff, scaled=False, linear=False),
)

# What people call them; a change of the bias is planned as a family of its own.
TITLES = {
    "bias": "bias",
    "diff": "diff",
    "full": "full values",
    "glora": "GLoRA",
    "ia3": "IA3",
    "loha": "LoHa",
    "lokr": "LoKr",
    "lora": "LoRA",
    "numbered": "LoRA",
    "oft": "OFT",
    "peft_ia3": "IA3",
    "peft_ia3_bias": "IA3",
    "peft_oft": "OFT",
}
