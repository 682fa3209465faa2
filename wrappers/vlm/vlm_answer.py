"""Answers for a node: question, progress, text that grows under the node, and the report."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from comfy.utils import ProgressBar

from ...defaults import DEFAULTS
from ...vlm.question import AnswerSettings, Clip, Question
from ...vlm.remote.openai_reply import Reply
from ...vlm.remote.remote_errors import RemoteError
from ...vlm.vision.video import sample_frames
from .live_text import LiveText
from .vlm_session import LocalChoice, ServerChoice, open_session

_RATES = tuple(DEFAULTS["VivaceQwenVL"][name] for name in ("fps", "sample_fps", "max_frames"))
_TEMPORAL_PATCH = 2  # frames that become one, in all families


def question_of(
    text: str,
    system: str = "",
    batches: Sequence[torch.Tensor] = (),
    video: torch.Tensor | None = None,
    rates: tuple[float, float, int] = _RATES,
) -> Question:
    """Return the question about ComfyUI's images, `[B, H, W, C]` each, and frames of a video.

    Args:
        rates: frames per second of the video, those to look at, and the most frames.

    Raises:
        ValueError: a batch without images, or rates that are not positive.
    """
    for number, batch in enumerate(batches, 1):
        if not len(batch):
            raise ValueError(f"image {number} is an empty batch. Connect at least one image")
    clip = None
    if video is not None:
        fps, sample_fps, max_frames = rates
        sample = sample_frames(len(video), fps, _TEMPORAL_PATCH, sample_fps, max_frames)
        clip = Clip(video[list(sample.indices)], sample)
    return Question(text, system, tuple(image for batch in batches for image in batch), clip)


def answer(
    choice: LocalChoice | ServerChoice,
    question: Question,
    settings: AnswerSettings,
    quality: str,
    use_cache: bool,
    node_id: str | None,
) -> tuple[Reply, str]:
    """Return the reply and the report.

    Raises:
        ValueError: the model, an image or a setting cannot be used.
        RemoteError: the server gave no reply.
    """
    with LiveSession(choice, settings, quality, use_cache, node_id) as session:
        reply = session.ask(question)
    return reply, session.report() + _clip_line(question.clip)


class LiveSession:
    """A session for one node, which shows the text of each answer while it is written.

    A context manager; its arguments are those of `answer`.
    """

    def __init__(
        self,
        choice: LocalChoice | ServerChoice,
        settings: AnswerSettings,
        quality: str,
        use_cache: bool,
        node_id: str | None,
    ) -> None:
        self._settings = settings
        self._live = LiveText(node_id)
        self._session = open_session(choice, settings, quality, use_cache)
        self._cut = ""

    def __enter__(self) -> LiveSession:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()
        self._live.send()

    def ask(self, question: Question) -> Reply:
        """Ask one question, whose answer takes the place of the text shown so far.

        Raises:
            ValueError, RemoteError: as for `answer`.
        """
        settings, live = self._settings, self._live
        live.clear()
        bar = ProgressBar(settings.max_tokens + (settings.thinking_budget or 0))
        found = self._session.ask(
            [question], lambda _, piece: live.push(piece), lambda: bar.update(1)
        )
        bar.update_absolute(bar.total)
        reply = found[0]
        if isinstance(reply, RemoteError):
            raise reply
        self._cut = ""
        if reply.finish_reason == "length":
            self._cut = f"- the answer was cut off at max_tokens ({settings.max_tokens})\n"
        return reply

    def report(self) -> str:
        """What all of it took, as Markdown."""
        return self._session.report() + self._cut


def _clip_line(clip: Clip | None) -> str:
    if clip is None:
        return ""
    sample = clip.sample
    times = ", ".join(f"{index / sample.fps:.2f}" for index in sample.indices)
    return f"- video: {len(sample.indices)} of {sample.total_frames} frames, at {times} seconds\n"
