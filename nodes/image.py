"""Blank Image and Image Is Empty?"""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..defaults import DEFAULTS
from .choices import check_choices, with_defaults

CATEGORY = "Vivace/Image"
MAX_SIZE = 16384
PATTERNS = [SOLID, GRADIENT, CHECKER, NOISE] = ["solid", "gradient", "checker", "noise"]
DIRECTIONS = ["right", "down", "diagonal", "outward"]
_BLANK, _EMPTY = DEFAULTS["VivaceBlankImage"], DEFAULTS["VivaceImageIsEmpty"]


class BlankImage(io.ComfyNode):
    """An image of one colour, or of a pattern of two."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VivaceBlankImage",
            display_name="Blank Image",
            category=CATEGORY,
            description=(
                "An image of one colour, or a gradient, checker or noise of two, with a mask from"
                " their alpha. ComfyUI's EmptyImage takes the colour as one number and gives no"
                " mask; this one takes it as people write it."
            ),
            search_aliases=["empty image", "solid color", "gradient", "checkerboard", "vivace"],
            inputs=[
                io.Int.Input(
                    "width", default=_BLANK["width"], min=1, max=MAX_SIZE, tooltip="In pixels."
                ),
                io.Int.Input(
                    "height", default=_BLANK["height"], min=1, max=MAX_SIZE, tooltip="In pixels."
                ),
                io.Int.Input(
                    "batch_size",
                    default=_BLANK["batch_size"],
                    min=1,
                    max=4096,
                    tooltip="Number of images.",
                ),
                io.String.Input(
                    "color",
                    default=_BLANK["color"],
                    tooltip="#rrggbb, #rrggbbaa (the mask shows the alpha), a name, rgb(), hsl().",
                ),
                io.DynamicCombo.Input(
                    "pattern",
                    options=[
                        io.DynamicCombo.Option(SOLID, []),
                        io.DynamicCombo.Option(GRADIENT, _gradient_inputs()),
                        io.DynamicCombo.Option(CHECKER, _checker_inputs()),
                        io.DynamicCombo.Option(NOISE, _noise_inputs()),
                    ],
                    optional=True,
                    tooltip="How two colours are spread; solid has only the first one.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The images, all of the same size."),
                io.Mask.Output(display_name="mask", tooltip="1 where the colour is transparent."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
        )

    @classmethod
    def validate_inputs(cls, color: str | None = None, pattern: Any = None) -> bool | str:
        # ComfyUI hands in `pattern` whenever a node checks inputs, without what is below it.
        from ..toolkit.color import parse_color

        try:
            parse_color("black" if color is None else color)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        width: int,
        height: int,
        batch_size: int,
        color: str,
        pattern: dict[str, Any] | None = None,
    ) -> io.NodeOutput:
        from ..toolkit.color import parse_color
        from ..toolkit.images import blank_image

        check_choices(cls.hidden, pattern=PATTERNS)
        first, chosen = parse_color(color), with_defaults("pattern", pattern, _BLANK)
        kind = chosen.get("pattern", SOLID)
        if kind == SOLID:
            return io.NodeOutput(*blank_image(width, height, batch_size, first))
        from ..toolkit import patterns

        second = parse_color(chosen["second_color"])
        if kind == GRADIENT:
            weight = patterns.gradient(width, height, chosen["direction"])
        elif kind == CHECKER:
            weight = patterns.checker(width, height, chosen["cell"])
        else:
            seed, colored = chosen["seed"], chosen["colored"]
            weight = patterns.noise(width, height, batch_size, seed, colored)
        return io.NodeOutput(*patterns.blend(first, second, weight, batch_size))


class ImageIsEmpty(io.ComfyNode):
    """Whether there is anything in an image."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VivaceImageIsEmpty",
            display_name="Image Is Empty?",
            category=CATEGORY,
            description=(
                "Whether an image is missing, has no pixels, or is uniform, black, white or"
                " transparent within the given limits."
            ),
            search_aliases=["check image empty", "is empty", "blank check", "vivace"],
            inputs=[
                io.Image.Input("image", optional=True, tooltip="No image counts as empty."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="1 where transparent. Without it, the image's own alpha is used.",
                ),
                _limit("uniform_within", "Largest difference between pixels; -1 is off."),
                _limit("black_below", "Brightest value of a black image; -1 is off."),
                _limit("white_above", "Darkest value of a white image; -1 is off."),
                _limit("transparent_above", "Least mask value; -1 is off."),
            ],
            outputs=[
                io.Boolean.Output(display_name="is_empty", tooltip="True if every image is empty."),
                io.Boolean.Output(
                    display_name="each", is_output_list=True, tooltip="The answer for each image."
                ),
                io.String.Output(
                    display_name="details", tooltip="A line per image with the measured figures."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        uniform_within: float,
        black_below: float,
        white_above: float,
        transparent_above: float,
        image: Any = None,
        mask: Any = None,
    ) -> io.NodeOutput:
        from ..toolkit.images import EmptyRule, emptiness

        limits = (uniform_within, black_below, white_above, transparent_above)
        rule = EmptyRule(*(None if limit < 0 else limit for limit in limits))
        answers = emptiness(image, mask, rule)
        details = "\n".join(f"image {i}: {text}" for i, (_, text) in enumerate(answers))
        each = [empty for empty, _ in answers]
        return io.NodeOutput(all(each), each, details)


def _second_color() -> Any:
    return io.String.Input(
        "second_color",
        default=_BLANK["pattern.second_color"],
        optional=True,
        tooltip="The other colour, written like the first.",
    )


def _gradient_inputs() -> list[Any]:
    return [
        _second_color(),
        io.Combo.Input(
            "direction",
            options=DIRECTIONS,
            default=_BLANK["pattern.direction"],
            optional=True,
            tooltip="Where the second colour is; outward: in the corners.",
        ),
    ]


def _checker_inputs() -> list[Any]:
    return [
        _second_color(),
        io.Int.Input(
            "cell",
            default=_BLANK["pattern.cell"],
            min=1,
            max=MAX_SIZE,
            optional=True,
            tooltip="Side of a square, in pixels.",
        ),
    ]


def _noise_inputs() -> list[Any]:
    return [
        _second_color(),
        io.Int.Input(
            "seed",
            default=_BLANK["pattern.seed"],
            min=0,
            max=2**64 - 1,
            optional=True,
            tooltip="The same seed gives the same noise; the images of a batch differ.",
        ),
        io.Boolean.Input(
            "colored",
            default=_BLANK["pattern.colored"],
            optional=True,
            tooltip="On: every channel has its own noise. Off: mixtures of the two colours.",
        ),
    ]


def _limit(name: str, tooltip: str) -> io.Float.Input:
    return io.Float.Input(
        name, default=_EMPTY[name], min=-1.0, max=1.0, step=0.001, advanced=True, tooltip=tooltip
    )
