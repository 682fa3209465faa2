"""A random sequence of prompts, the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from ..doubles.demo_models import LORAS
from .files import BROKEN, FAMILIES, lora_names
from .jobs import DEMO, QUANTIZED, SMALL, Cache, Caption, Job, Picture

How = Literal["run", "interrupt", "delete", "wrong", "free"]
STRENGTHS = (0.0, 0.3, 0.5, 0.8, 1.0, -0.6, 1.5)
MODES = ("auto", "auto", "auto", "merge", "branch")
TEXTS = ("What is it?", "Describe the picture in detail.", "Name the colors, then the mood.")
SEEN = ((0xFF0000, 96, 64), (0x00FF00, 64, 96), (0x0000FF, 128, 128), (0x808080, 160, 96))
WEIGHTS: dict[How, float] = {
    "run": 0.86,
    "interrupt": 0.07,
    "delete": 0.03,
    "wrong": 0.03,
    "free": 0.01,
}
LONG_STEPS, LONG_TOKENS = 6, 40
DELAYS = (-6.0, 1.0)  # from 0.016 to 2 seconds, as powers of two: machines differ


@dataclass(frozen=True)
class Step:
    """Jobs that are queued together, and what is done meanwhile.

    Attributes:
        delay: seconds from queueing to the interrupt.
        message: a pattern for the error that the jobs of a "wrong" step end with.
    """

    how: How
    jobs: tuple[Job, ...] = ()
    delay: float = 0.0
    message: str = ""


class Plan:
    """Thinks up steps.

    Args:
        seed: the same makes the same steps.
        large: whether checkpoints at full width are among the models; one SVDQuant prompt takes ten
            seconds on a CPU, so there are few of those.
    """

    def __init__(self, seed: int, large: bool) -> None:
        self._random = random.Random(seed)  # noqa: S311 - nothing secret
        weights = {name: 5.0 if "SVDQuant" in name else 10.0 for name in SMALL}
        if large:
            weights |= {DEMO: 5.0, QUANTIZED: 0.2}
        self.models = weights

    def steps(self, prompts: int) -> Iterator[Step]:
        """Steps with so many jobs in all, of which each is a prompt."""
        left = prompts
        while left > 0:
            step = self._step()
            step = replace(step, jobs=step.jobs[:left])
            left -= len(step.jobs)
            yield step
            if any(job.kind == f"picture: {QUANTIZED}" for job in step.jobs):
                yield Step("free")  # it is too slow to be there at every sample, as others are

    def bases(self) -> list[Job]:
        """Every model without LoRAs, and an image that was seen, for each language model."""
        pictures = [Picture(model) for model in self.models if model != QUANTIZED]
        return [*pictures, *(Caption(family, SEEN[:1], TEXTS[0]) for family in FAMILIES)]

    def _step(self) -> Step:
        (how,) = self._random.choices(list(WEIGHTS), list(WEIGHTS.values()))
        if how == "free":
            return Step(how)
        if how == "wrong":
            return self._wrong()
        if how == "interrupt":
            # The second one waits in the queue, and must come to no harm.
            return Step(how, (self._long(), self._job()), 2.0 ** self._random.uniform(*DELAYS))
        if how == "delete":
            return Step(how, (self._long(), self._job(), self._job()))
        return Step(how, (self._job(),))

    def _job(self) -> Job:
        sort = self._random.random()
        if sort < 0.02:
            return Cache(self._random.choice(("show", "show", "clear memory")))
        return self._picture() if sort < 0.7 else self._caption()

    def _picture(self, model: str | None = None) -> Picture:
        (some,) = self._random.choices(list(self.models), list(self.models.values()))
        model = model or some
        names = [lora.filename for lora in LORAS]
        if model in SMALL:
            names = lora_names("qwen" if model.startswith("Qwen") else "z")
        chosen = self._random.sample(names, self._random.randint(0, min(3, len(names))))
        return Picture(
            model,
            tuple((name, self._random.choice(STRENGTHS)) for name in chosen),
            self._random.choice(MODES),
            self._random.randrange(3),
            self._random.choice((1, 1, 2)),
            not model.startswith("Z") and self._random.random() < 0.2,
        )

    def _caption(self) -> Caption:
        new = (self._random.randrange(2**24), 32 * self._random.randint(2, 5), 96)
        images = [new if self._random.random() < 0.4 else self._random.choice(SEEN)]
        if self._random.random() < 0.2:
            images.append(self._random.choice(SEEN))
        return Caption(
            self._random.choice(FAMILIES),
            tuple(images),
            self._random.choice(TEXTS),
            self._random.choice((4, 8, 16)),
            self._random.choice((None, None, 1, 2)),
            self._random.random() < 0.9,
        )

    def _long(self) -> Job:
        """Something to interrupt."""
        if self._random.random() < 0.3:
            return replace(self._caption(), tokens=LONG_TOKENS)
        model = self._random.choice(list(SMALL))
        return replace(self._picture(model), steps=LONG_STEPS)

    def _wrong(self) -> Step:
        picture, caption = self._picture("Qwen-Image"), self._caption()
        z_lora = ((lora_names("z")[0], 1.0),)
        return self._random.choice(
            (
                Step("wrong", (replace(picture, rows=z_lora),), message="no supported model has"),
                Step("wrong", (replace(picture, rows=((BROKEN, 1.0),)),), message=BROKEN),
                Step(
                    "wrong",
                    (replace(picture, rows=(("none.safetensors", 1.0),)),),
                    message="none.safetensors",
                ),
                Step("wrong", (replace(caption, images=((1, 4096, 1),)),), message="Image 1"),
            )
        )
