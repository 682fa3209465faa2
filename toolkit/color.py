"""Colours as people write them."""

from __future__ import annotations

from PIL import ImageColor

RGBA = tuple[float, float, float, float]


def parse_color(text: str) -> RGBA:
    """Red, green, blue and alpha, each 0..1, from `#rgb`, `#rgba`, `#rrggbb`, `#rrggbbaa`, a CSS
    name, `rgb(...)` or `hsl(...)`.

    Raises:
        ValueError: the text is none of these.
    """
    try:
        red, green, blue, alpha = (*ImageColor.getrgb(text.strip()), 255)[:4]
    except ValueError:
        raise ValueError(
            f"'{text}' is not a colour. Write #rrggbb, #rrggbbaa, a name such as 'teal',"
            " or rgb(0, 128, 128)."
        ) from None
    return red / 255, green / 255, blue / 255, alpha / 255
