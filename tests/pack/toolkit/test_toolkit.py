"""Blank images, colours, and judging emptiness."""

from __future__ import annotations

import pytest
import torch
from vivace.toolkit.color import parse_color
from vivace.toolkit.images import EmptyRule, blank_image, emptiness

EVERY_RULE = EmptyRule(0.01, 0.02, 0.98, 0.98)
NO_RULE = EmptyRule(None, None, None, None)


@pytest.mark.parametrize(
    ("text", "color"),
    [
        ("#ff0000", (1, 0, 0, 1)),
        ("#0f0", (0, 1, 0, 1)),
        (" #0000ff80 ", (0, 0, 1, 128 / 255)),
        ("white", (1, 1, 1, 1)),
        ("rgb(0, 255, 255)", (0, 1, 1, 1)),
        ("hsl(120, 100%, 50%)", (0, 1, 0, 1)),
    ],
)
def test_colors(text: str, color: tuple[float, ...]) -> None:
    assert parse_color(text) == pytest.approx(color)


@pytest.mark.parametrize("text", ["", "#12", "#ggg", "no such colour", "rgb(1,2)"])
def test_bad_colors_are_explained(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a colour\. Write #rrggbb"):
        parse_color(text)


def test_blank_image_has_comfyui_shapes() -> None:
    image, mask = blank_image(5, 3, 2, (0.25, 0.5, 1.0, 0.75))
    assert image.shape == (2, 3, 5, 3)
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    assert torch.equal(image[1, 2, 4], torch.tensor([0.25, 0.5, 1.0]))
    assert mask.shape == (2, 3, 5)
    assert torch.all(mask == 0.25)


def verdicts(
    image: torch.Tensor | None, mask: torch.Tensor | None = None, rule: EmptyRule = EVERY_RULE
):
    return [empty for empty, _ in emptiness(image, mask, rule)]


def test_no_image_is_empty() -> None:
    assert verdicts(None) == [True]
    assert verdicts(torch.zeros(1, 0, 8, 3)) == [True]


def test_each_image_of_a_batch_is_judged() -> None:
    noise = torch.rand(8, 8, 3, generator=torch.Generator().manual_seed(0))
    batch = torch.stack([torch.full((8, 8, 3), 0.4), noise, noise * 0.015, 1 - noise * 0.015])
    assert verdicts(batch) == [True, False, True, True]
    assert verdicts(batch, rule=NO_RULE) == [False] * 4


def test_one_pixel_is_enough_not_to_be_empty() -> None:
    image = torch.zeros(1, 64, 64, 3)
    image[0, 10, 10, 1] = 0.5
    assert verdicts(image) == [False]


def test_a_flat_image_of_many_hues_is_uniform_per_channel() -> None:
    image = torch.tensor([0.1, 0.5, 0.9]).expand(1, 4, 4, 3)
    answers = emptiness(image, None, EVERY_RULE)
    assert answers[0][0]
    assert answers[0][1] == "uniform: darkest 0.1000, brightest 0.9000, spread 0.0000"


def test_transparency_comes_from_the_mask_or_the_alpha_channel() -> None:
    noise = torch.rand(1, 8, 8, 3, generator=torch.Generator().manual_seed(0))
    assert verdicts(noise, torch.ones(1, 8, 8)) == [True]
    assert verdicts(noise, torch.ones(8, 8)) == [True]
    assert verdicts(noise, torch.zeros(1, 8, 8)) == [False]
    assert verdicts(torch.cat([noise, torch.zeros(1, 8, 8, 1)], dim=-1)) == [True]
    assert verdicts(torch.cat([noise, torch.ones(1, 8, 8, 1)], dim=-1)) == [False]


def test_one_mask_serves_a_whole_batch() -> None:
    noise = torch.rand(3, 8, 8, 3, generator=torch.Generator().manual_seed(0))
    assert verdicts(noise, torch.ones(1, 8, 8)) == [True] * 3


def test_figures_are_in_the_details() -> None:
    image = torch.zeros(1, 2, 2, 3)
    image[0, 0, 0, 0] = 0.5
    text = emptiness(image, torch.full((1, 2, 2), 0.25), EVERY_RULE)[0][1]
    assert (
        text
        == "not empty: darkest 0.0000, brightest 0.5000, spread 0.5000, least transparent 0.2500"
    )
