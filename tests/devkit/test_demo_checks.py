"""The demo's checks hold for right results and fail for wrong ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from vivace.devkit.demo.__main__ import modules_matched
from vivace.devkit.demo.checks import Result, close, different, equal, weights_are_exact
from vivace.devkit.doubles.demo_models import BLOCK, LORAS, lora_state_dict, module_shape

PEFT, KOHYA = LORAS
MODULES = ("attn.to_q", "img_mlp.net.2")
ROWS = 16


def result(weights: dict[str, torch.Tensor], latent: float = 1.0) -> Result:
    return Result(torch.full((4,), latent), weights, 0.0, "-", None)


@pytest.fixture(scope="module")
def base() -> Result:
    generator = torch.Generator().manual_seed(5)
    return result(
        {
            f"{BLOCK}.{module}.weight": torch.randn(
                ROWS, module_shape(module)[1], generator=generator
            )
            / module_shape(module)[1] ** 0.5
            for module in MODULES
        }
    )


def apply(base: Result, kohya_scale: float) -> Result:
    """Patch by hand with the kohya LoRA at strength 0.8, scaled as told."""
    state_dict = lora_state_dict(KOHYA)
    weights = {}
    for name, weight in base.weights.items():
        stem = KOHYA.stem(name.removesuffix(".weight").removeprefix(f"{BLOCK}."))
        up, down = state_dict[f"{stem}.lora_up.weight"], state_dict[f"{stem}.lora_down.weight"]
        weights[name] = weight + 0.8 * kohya_scale * (up[:ROWS] @ down)
    return result(weights)


def test_right_arithmetic_holds(base: Result) -> None:
    check = weights_are_exact("", base, apply(base, 4 / 16), [(KOHYA, 0.8)])
    assert check.held, check.figures


@pytest.mark.parametrize("wrong", [1.0, 4 / 48, 0.25 * 1.001, -0.25, 0.0])
def test_a_wrong_scale_fails(base: Result, wrong: float) -> None:
    assert not weights_are_exact("", base, apply(base, wrong), [(KOHYA, 0.8)]).held


@pytest.mark.parametrize(("latent", "held"), [(1.0, True), (1.00005, True), (1.001, False)])
def test_latents_that_differ_by_more_than_rounding_are_not_close(
    base: Result, latent: float, held: bool
) -> None:
    assert close("", base, result({}, latent)).held is held


def test_a_lora_that_was_left_out_fails(base: Result) -> None:
    loras = [(PEFT, 1.0), (KOHYA, 0.8)]
    assert not weights_are_exact("", base, apply(base, 4 / 16), loras).held


def test_nothing_changed_fails(base: Result) -> None:
    assert not weights_are_exact("", base, base, []).held


@pytest.mark.parametrize(
    ("check", "same", "other"), [(equal, True, False), (different, False, True)]
)
def test_comparisons_of_runs(
    base: Result, check: Callable[..., object], same: bool, other: bool
) -> None:
    moved = result(base.weights, latent=1.1)
    assert check("", base, base).held == same  # pyright: ignore[reportAttributeAccessIssue]
    assert check("", base, moved).held == other  # pyright: ignore[reportAttributeAccessIssue]


def test_matched_modules_are_summed_over_files() -> None:
    table = "| LoRA | modules |\n|---|---|\n| a | 4 of 4 |\n| b | 5 of 6 |\n"
    assert modules_matched(table) == "9 of 10"
    assert modules_matched("No LoRA is on.") == "-"


def test_weights_count_in_equality(base: Result) -> None:
    assert not equal("", base, apply(base, 1e-3)).held
