"""Blank Image and Image Is Empty?"""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

CATEGORY = "Vivace/Image"
MAX_SIZE = 16384


class BlankImage(io.ComfyNode):
    """An image of one colour."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VivaceBlankImage",
            display_name="Blank Image",
            category=CATEGORY,
            description=(
                "An image of one colour, with a mask from its alpha. ComfyUI's EmptyImage takes the"
                " colour as one number and gives no mask; this one takes it as people write it."
            ),
            search_aliases=["empty image", "solid color", "solid colour", "fill", "vivace"],
            inputs=[
                io.Int.Input("width", default=1024, min=1, max=MAX_SIZE, tooltip="In pixels."),
                io.Int.Input("height", default=1024, min=1, max=MAX_SIZE, tooltip="In pixels."),
                io.Int.Input("batch_size", default=1, min=1, max=4096, tooltip="Number of images."),
                io.String.Input(
                    "color",
                    default="#000000",
                    tooltip="#rrggbb, #rrggbbaa (the mask shows the alpha), a name, rgb(), hsl().",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The images of one colour."),
                io.Mask.Output(display_name="mask", tooltip="1 where the colour is transparent."),
            ],
        )

    @classmethod
    def validate_inputs(cls, color: str | None = None) -> bool | str:
        from ..toolkit.color import parse_color

        try:
            parse_color("black" if color is None else color)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, width: int, height: int, batch_size: int, color: str) -> io.NodeOutput:
        from ..toolkit.color import parse_color
        from ..toolkit.images import blank_image

        return io.NodeOutput(*blank_image(width, height, batch_size, parse_color(color)))


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
                _limit("uniform_within", 0.01, "Largest difference between pixels; -1 is off."),
                _limit("black_below", 0.02, "Brightest value of a black image; -1 is off."),
                _limit("white_above", 0.98, "Darkest value of a white image; -1 is off."),
                _limit("transparent_above", 0.98, "Least mask value; -1 is off."),
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


def _limit(name: str, default: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input(
        name, default=default, min=-1.0, max=1.0, step=0.001, advanced=True, tooltip=tooltip
    )
