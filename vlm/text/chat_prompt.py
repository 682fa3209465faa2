"""Conversations to token ids: the chat template, and as many image tokens as the grids say.

No image processor is needed: what the prompt holds of an image is its number of tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from ..vision.video import FrameSample
from .thinking import CLOSE, OPEN

VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
PADS: Mapping[str, str] = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
TEXT, IMAGE, VIDEO = 0, 1, 2  # as in the `mm_token_type_ids` of transformers
# Characters that Unicode keeps for such use, and that no text holds.
_MARKS = tuple(map(chr, range(0xFDD0, 0xFDF0)))


class ChatTemplateError(ValueError):
    """The model's chat template cannot express the conversation."""


@dataclass(frozen=True)
class ImagePart:
    """A place for an image."""


@dataclass(frozen=True)
class VideoPart:
    """A place for a video, and when the frames that are shown were taken."""

    sample: FrameSample


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation; text, images and videos in their order."""

    role: Literal["system", "user", "assistant"]
    parts: tuple[str | ImagePart | VideoPart, ...]


@dataclass(frozen=True)
class Prompt:
    """A tokenized conversation.

    Attributes:
        ids: token ids.
        types: of each token, 0 text, 1 image, 2 video.
        grids: temporal patches, patch rows and columns of each image and video, in order.
        kinds: of each of them, 1 image or 2 video.
        seconds: of each of them, how long a temporal patch lasts; 0 for images.
    """

    ids: tuple[int, ...]
    types: tuple[int, ...]
    grids: tuple[tuple[int, int, int], ...] = ()
    kinds: tuple[int, ...] = ()
    seconds: tuple[float, ...] = ()

    @property
    def media_end(self) -> int:
        """How many tokens there are up to the last one of an image or video; 0 without any."""
        return max((place + 1 for place, kind in enumerate(self.types) if kind), default=0)


class ChatPrompts:
    """Writes prompts for one model.

    Args:
        tokenizer: of transformers.
        merge_size: patches per side that become one token.
        temporal_patch_size: frames per temporal patch.
        frame_times: the family writes the time before each frame of a video, as Qwen3-VL does.
    """

    def __init__(
        self,
        tokenizer: Any,
        merge_size: int = 2,
        temporal_patch_size: int = 2,
        frame_times: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self._merge_size = merge_size
        self._temporal_patch_size = temporal_patch_size
        self._frame_times = frame_times
        special = [token for token in tokenizer.get_added_vocab() if len(token) > 1]
        # Found where they begin, so that overlapping ones are all found.
        self._special = _starts(special)
        self._special_but_thinking = _starts([t for t in special if t not in (OPEN, CLOSE)])

    def build(
        self,
        turns: Sequence[Turn],
        grids: Sequence[tuple[int, int, int]] = (),
        **template_options: Any,
    ) -> Prompt:
        """Tokenize a conversation, up to where the assistant's answer begins.

        What looks like a special token in a text stays text. Only the tags of thinking in an
        assistant's turn keep their meaning, as templates remove former thinking by them.

        Args:
            grids: of each image and video, in order.
            template_options: variables for the template, such as ``enable_thinking``.

        Raises:
            ChatTemplateError: there is no chat template, it fails, or it leaves out images.
            ValueError: another number of grids than of images and videos, or times that do not
                fit a video's grid.
        """
        media = [part for turn in turns for part in turn.parts if not isinstance(part, str)]
        if len(media) != len(grids):
            raise ValueError(f"{len(media)} images and videos were placed, {len(grids)} given")
        for part, (patches, _, _) in zip(media, grids, strict=True):
            times = len(part.sample.timestamps) if isinstance(part, VideoPart) else 1
            if times != patches:
                raise ValueError(f"{patches} temporal patches were given in place of {times}")
        mark = _unused_mark(turns)
        rendered = self._render(turns, mark, template_options)
        if self._frame_times:
            rendered = _with_times(rendered, media)
        ids: list[int] = []
        for piece in rendered.split(mark):
            ids += self.tokenizer(piece, add_special_tokens=False)["input_ids"]
        return self._expand(ids, media, grids)

    def _render(self, turns: Sequence[Turn], mark: str, options: Mapping[str, Any]) -> str:
        messages = [self._message(turn, mark) for turn in turns]
        if not getattr(self.tokenizer, "chat_template", None):
            raise ChatTemplateError(
                "The model's tokenizer has no chat template. Choose an instruct model"
            )
        try:
            return self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, **options
            )
        except Exception as error:  # templates are programs, and raise anything
            raise ChatTemplateError(
                f"The model's chat template refuses the conversation ({error})"
            ) from error

    def _message(self, turn: Turn, mark: str) -> dict[str, Any]:
        """Write a turn for the template, as plain text where it is nothing else."""
        found = self._special_but_thinking if turn.role == "assistant" else self._special

        def marked(text: str) -> str:
            return found.sub(lambda match: match[0] + mark, text)

        texts = [part for part in turn.parts if isinstance(part, str)]
        if len(texts) == len(turn.parts):
            return {"role": turn.role, "content": marked("".join(texts))}
        content: list[dict[str, str]] = []
        for is_text, group in groupby(turn.parts, lambda part: isinstance(part, str)):
            if is_text:  # neighbours as one, so that no special token comes of two halves
                content.append({"type": "text", "text": marked("".join(map(str, group)))})
                continue
            for part in group:
                content.append({"type": "video" if isinstance(part, VideoPart) else "image"})
        return {"role": turn.role, "content": content}

    def _expand(
        self,
        ids: list[int],
        media: Sequence[ImagePart | VideoPart],
        grids: Sequence[tuple[int, int, int]],
    ) -> Prompt:
        """Repeat each image's token as often as its grid says."""
        places = {
            self.tokenizer.convert_tokens_to_ids(PADS["image"]): IMAGE,
            self.tokenizer.convert_tokens_to_ids(PADS["video"]): VIDEO,
        }
        counts = list(self._counts(media, grids))
        found = [places[token] for token in ids if token in places] if media else []
        if found != [kind for kind, _ in counts]:
            raise ChatTemplateError(
                "The model's chat template does not show the images and videos as they were "
                "placed. Choose a vision-language model"
            )
        expanded: list[int] = []
        types: list[int] = []
        remaining = iter(counts)
        for token in ids:
            kind, count = next(remaining) if media and token in places else (TEXT, 1)
            expanded += [token] * count
            types += [kind] * count
        return Prompt(
            tuple(expanded),
            tuple(types),
            tuple(grids),
            tuple(VIDEO if isinstance(part, VideoPart) else IMAGE for part in media),
            tuple(self._seconds(part) for part in media),
        )

    def _counts(
        self, media: Sequence[ImagePart | VideoPart], grids: Sequence[tuple[int, int, int]]
    ) -> Iterator[tuple[int, int]]:
        """Kind and number of tokens of each run of image tokens."""
        for part, (time, rows, columns) in zip(media, grids, strict=True):
            frame = rows * columns // self._merge_size**2
            if not isinstance(part, VideoPart):
                yield IMAGE, time * frame
            elif self._frame_times:
                for _ in range(time):
                    yield VIDEO, frame
            else:
                yield VIDEO, time * frame

    def _seconds(self, part: ImagePart | VideoPart) -> float:
        if not isinstance(part, VideoPart):
            return 0.0
        sample = part.sample
        shown_fps = len(sample.indices) / sample.total_frames * sample.fps
        return self._temporal_patch_size / shown_fps


def _starts(tokens: Sequence[str]) -> re.Pattern[str]:
    """A pattern for the first character of each of the tokens."""
    if not tokens:
        return re.compile(r"(?!)")
    return re.compile("(?=" + "|".join(map(re.escape, tokens)) + ").", re.DOTALL)


def _unused_mark(turns: Sequence[Turn]) -> str:
    texts = "".join(part for turn in turns for part in turn.parts if isinstance(part, str))
    for mark in _MARKS:
        if mark not in texts:
            return mark
    raise ValueError("The text holds all of the characters U+FDD0 to U+FDEF, which are no text")


def _with_times(rendered: str, media: Sequence[ImagePart | VideoPart]) -> str:
    """Write each frame of a video for itself, its time before it."""
    videos = iter([part for part in media if isinstance(part, VideoPart)])
    frame = VISION_START + PADS["video"] + VISION_END

    def frames(match: re.Match[str]) -> str:
        part = next(videos, None)
        if part is None:
            return match[0]
        return "".join(f"<{time:.1f} seconds>{frame}" for time in part.sample.timestamps)

    return re.sub(re.escape(frame), frames, rendered)
