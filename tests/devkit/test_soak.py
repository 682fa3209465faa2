"""A short soak on a real server, and that what a soak looks for is found."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from vivace.devkit.bench.soak_section import soak_section
from vivace.devkit.rig.client import ComfyClient, Prompt
from vivace.devkit.soak import __main__ as command
from vivace.devkit.soak import fresh
from vivace.devkit.soak.digest import Digest
from vivace.devkit.soak.jobs import QUANTIZED, Caption, Job, Picture
from vivace.devkit.soak.plan import Plan, Step
from vivace.devkit.soak.report import PROOF, faults, report
from vivace.devkit.soak.runner import INTERRUPTED, Record, Runner
from vivace.devkit.soak.trend import MB, SERIES, Trend, trend, trends
from vivace.devkit.soak.watch import Sample, Watch

SEED, PROMPTS = 180, 40  # in this plan something of each way of running occurs


@pytest.mark.usefixtures("models")
def test_a_short_soak_passes(
    comfyui_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = list(Plan(SEED, large=False).steps(PROMPTS))
    assert {step.how for step in steps} == {"run", "interrupt", "delete", "wrong", "free"}
    log = tmp_path / "soak.json"
    words = ["--comfyui", str(comfyui_folder), "--small", "--seed", str(SEED), "--log", str(log)]
    words += ["--prompts", str(PROMPTS), "--every", "8", "--checkpoints", "5", "--share", "0.1"]
    status = command.main(words)
    assert status == 0, capsys.readouterr().out
    found = json.loads(log.read_text(encoding="utf-8"))
    assert found["prompts"] == PROMPTS
    assert (found["unexpected"], found["unequal"], found["checkpoints"]) == ([], [], 5)
    assert found["repeated"] >= 28  # every model without LoRAs, before each of five samples
    assert found["fates"]["refused as expected"] == sum(step.how == "wrong" for step in steps)
    assert found["trends"]["rss"]["mean"] > 200 * MB
    after = [one["prompts"] for one in found["samples"]]
    assert after == sorted(set(after))
    assert len(after) == 5
    assert {"image_bytes", "lora_bytes", "threads", "tensor_bytes"} <= found["trends"].keys()
    assert all(not one["patched_layers"] + one["merged_weights"] for one in found["samples"])
    with Image.open(log.with_suffix(".png")) as plot:
        assert len(plot.convert("RGB").getcolors(2**24) or ()) > 4
    text = "\n".join(soak_section(found, "A CPU"))
    assert f"- {PROMPTS} prompts, seed {SEED}: " in text
    assert "- Passed." in text


def test_a_plan_is_the_same_again_and_has_everything_in_it() -> None:
    steps = list(Plan(3, large=True).steps(2000))
    assert steps == list(Plan(3, large=True).steps(2000))
    assert steps != list(Plan(4, large=True).steps(2000))
    jobs = [job for step in steps for job in step.jobs]
    assert len(jobs) == 2000
    kinds = Counter(job.kind for job in jobs)
    assert len(kinds) == 10
    ways = Counter(step.how for step in steps)
    assert min(ways.values()) > 5
    assert len(ways) == 5
    quantized = [n for n, step in enumerate(steps) if QUANTIZED in {j.kind[9:] for j in step.jobs}]
    assert {steps[n + 1].how for n in quantized} == {"free"}
    pictures = [job for job in jobs if isinstance(job, Picture)]
    assert len({name for job in pictures for name, _ in job.rows}) > 10
    captions = [job for job in jobs if isinstance(job, Caption)]
    images = Counter(image for job in captions for image in job.images)
    assert sum(count == 1 for count in images.values()) > 100  # new ones
    assert max(images.values()) > 50


def noisy(slope: float, noise: float, count: int = 40) -> list[tuple[int, dict[str, int]]]:
    """Samples of 1,000 MB every 50 prompts that grow by `slope` MB a prompt."""
    chance = random.Random(7)  # noqa: S311 - nothing secret
    mean = 1000 * MB
    return [
        (50 * n, {"rss": int(mean + MB * (slope * 50 * n + chance.gauss(0, noise)))})
        for n in range(1, count + 1)
    ]


@pytest.mark.parametrize(
    ("slope", "noise", "verdict"),
    [
        (0.0, 0.0, "flat"),
        (0.0, 7.0, "flat"),
        (0.005, 5.0, "flat"),  # 6 MB of 1,000
        (-0.5, 5.0, "flat"),
        (0.05, 5.0, "grows"),  # 60 MB
        (0.05, 20.0, "grows"),
        (0.0, 300.0, "unclear"),
    ],
)
def test_a_leak_is_told_from_noise(slope: float, noise: float, verdict: str) -> None:
    assert trends(noisy(slope, noise))["rss"].verdict == verdict


def test_growth_while_it_warms_up_does_not_count() -> None:
    samples = noisy(0.0, 2.0)
    samples = [(n, {"rss": v["rss"] - 400 * MB * (n < 800)}) for n, v in samples]
    assert trends(samples)["rss"].verdict == "flat"
    assert trend([n for n, _ in samples], [v["rss"] for _, v in samples]).verdict == "grows"


def test_a_line_is_that_of_least_squares() -> None:
    found = trend([0, 1, 2, 3], [1.0, 3.0, 2.0, 4.0])
    assert found.slope == pytest.approx(0.8)
    # Student's t for two degrees of freedom, times the error of the slope.
    assert found.high - found.slope == pytest.approx(4.302653 * (1.8 / 2 / 5) ** 0.5)


def test_too_few_samples_say_so() -> None:
    with pytest.raises(ValueError, match="run more prompts"):
        trends(noisy(0.0, 1.0, count=4))


JOB = Picture("Qwen-Image", (("a", 0.5),))
GOOD: Digest = {"latent_file": "1"}


def outcome(prompts: int = PROOF, line: Trend | None = None, **changes: Any) -> list[str]:
    """The faults of a run that is good but for the changes."""
    flat = Trend(0.0, 0.0, 0.0, 1.0, 100, 0.02)
    record = Record(Counter({JOB.kind: prompts}), Counter({"finished": prompts}))
    record.unexpected += changes.get("unexpected", [])
    values = dict.fromkeys(SERIES, 1)
    samples = [Sample(n, values) for n in range(3)]
    lines = dict.fromkeys(SERIES, flat) | ({"rss": line} if line else {})
    return faults(report(record, samples, lines, [], changes.get("unequal", [])))


def test_whatever_is_wrong_is_a_fault() -> None:
    assert outcome() == []
    grows = Trend(1.0, 0.9, 1.1, 1.0, 100, 0.02)
    unclear = replace(grows, low=-1.0)
    assert (grows.verdict, unclear.verdict) == ("grows", "unclear")
    assert ["rss is not flat but grows" in fault for fault in outcome(line=grows)] == [True]
    assert len(outcome(prompts=40, line=grows)) == 1
    assert len(outcome(line=unclear)) == 1
    assert outcome(prompts=40, line=unclear) == []
    assert outcome(unexpected=["an error"]) == ["an error"]
    assert outcome(unequal=["another latent"]) == ["another latent"]


def test_another_result_than_on_a_fresh_server_is_told() -> None:
    assert fresh.differences(JOB, 7, GOOD, dict(GOOD)) == []
    for got in ({"latent_file": "2"}, {}, {"latent_file": "1", "image": "3"}):
        (told,) = fresh.differences(JOB, 7, GOOD, got)
        assert "of prompt 7 is not that of a fresh server" in told


class Scripted(Runner):
    """A runner whose prompts end as they are told to, without a server."""

    def __init__(self, *ends: Digest | str, tmp: Path) -> None:
        self.record, self._queued, self._output = Record(), 0, tmp
        self._ends = list(ends)

    def _queue(self, job: Job) -> str:
        self._queued += 1
        return str(self._queued)

    def _end(self, prompt_id: str, job: Job, may_stop: bool = False) -> Digest | str:
        return self._ends.pop(0)


def test_another_result_the_second_time_is_unexpected(tmp_path: Path) -> None:
    runner = Scripted(GOOD, INTERRUPTED, dict(GOOD), {"latent_file": "2"}, tmp=tmp_path)
    for _ in range(3):
        runner.run(Step("run", (JOB,)))
    assert (runner.record.unexpected, runner.record.repeated) == ([], 1)
    runner.run(Step("run", (JOB,)))
    (told,) = runner.record.unexpected
    assert "latent_file of prompt 4 differ from prompt 1" in told
    assert runner.record.fates == {"finished": 3, INTERRUPTED: 1}


class Counting(ComfyClient):
    """A client whose server has these counts."""

    def __init__(self, **counts: int) -> None:
        super().__init__("http://127.0.0.1:9")
        self.counts = {"patched_layers": 0, "merged_weights": 0} | counts

    def run(self, prompt: Prompt) -> dict[str, Any]:
        assert prompt["probe"]["class_type"] == "VivaceSoakProbe"
        return {"probe": {"counts": [json.dumps(self.counts)]}}


@pytest.mark.parametrize("left", [{}, {"patched_layers": 2}, {"merged_weights": 1}])
def test_what_is_left_on_a_model_is_unexpected(left: dict[str, int], tmp_path: Path) -> None:
    runner = Scripted(GOOD, tmp=tmp_path)
    sample = Watch(os.getpid(), Counting(**left), [JOB]).look(runner)
    assert sample.values["rss"] > MB
    assert sample.values["threads"] > 0
    assert runner.record.prompts == 0  # those before a sample do not count
    assert runner.record.unexpected == [f"after 0 prompts there are {left}"] * bool(left)


def test_checkpoints_are_of_every_kind() -> None:
    jobs = [Picture(model, seed=seed) for model in ("a", "b", "c") for seed in range(20)]
    digests: dict[Job, tuple[int, Digest]] = {
        job: (number, GOOD) for number, job in enumerate(jobs)
    }
    chosen = fresh.choose(digests, 7, seed=1)
    assert len(chosen) == len({job for job, _, _ in chosen}) == 7
    assert {job.kind for job, _, _ in chosen[:3]} == {job.kind for job in jobs}
    assert len(fresh.choose(digests, 100, seed=1)) == 60
