"""Shows a value of any type: its summary, and files that the editor can show or play."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import folder_paths
import torch
from comfy_api.latest import io, ui

from ...toolkit.preview_report import fields
from ...toolkit.summary import Summary
from ...toolkit.waveform import parts_of, peaks
from .image_files import Saved, preview_pngs
from .model_summary import summarize_any

if TYPE_CHECKING:
    from comfy_api.latest._input import VideoInput

MAX_IMAGES = 100
MAX_SOUNDS = 16
_BUCKETS = 300  # of a waveform, which is about as wide in pixels


@dataclass
class Shown:
    """One value as it is shown.

    Attributes:
        summary: in words and figures.
        media: what `files` are: `image`, `audio`, `video`, or nothing.
        files: in ComfyUI's folder of temporary files.
        waveforms: the lowest and highest sample in each stretch of time, for each audio file.
        problem: why there are no files, or not all; empty if there is no problem.
    """

    summary: Summary
    media: str = ""
    files: list[Saved] = field(default_factory=list)
    waveforms: list[list[tuple[float, float]]] = field(default_factory=list)
    problem: str = ""

    def to_json(self, label: str) -> dict[str, Any]:
        """What the editor is told of it."""
        return {
            "label": label,
            **fields(self.summary),
            "media": self.media,
            "files": self.files,
            "waveforms": self.waveforms,
            "problem": self.problem,
        }


def show(value: Any, hidden: Any) -> Shown:
    """Summarize a value and write the files that show it; never raises because of the value.

    Args:
        hidden: of the node, with the prompt and the workflow that go into images.
    """
    shown = Shown(summarize_any(value))
    write = _WRITERS.get(shown.summary.kind)
    if write is None:
        return shown
    try:
        write(shown, value, hidden)
    except Exception as error:  # noqa: BLE001 - encoders raise what they like
        text = str(error) or type(error).__name__
        shown.problem = f"It cannot be shown: {text}"
    return shown


def _images(shown: Shown, images: torch.Tensor, hidden: Any) -> None:
    shown.media = "image"
    shown.files = preview_pngs(images[:MAX_IMAGES], hidden)
    if len(images) > MAX_IMAGES:
        shown.problem = f"The first {MAX_IMAGES} of {len(images)} are shown."


def _masks(shown: Shown, masks: torch.Tensor, hidden: Any) -> None:
    _images(shown, masks.unsqueeze(-1), hidden)


def _sounds(shown: Shown, audio: Any, _: Any) -> None:
    waveform, rate = parts_of(audio)
    shown.media = "audio"
    for sound in waveform[:MAX_SOUNDS]:
        # Files of more than two channels are not played everywhere.
        mixed = sound.mean(0, keepdim=True) if len(sound) > 2 else sound
        playable = mixed.detach().float().cpu().nan_to_num(nan=0.0).clamp(-1.0, 1.0)
        values = {"waveform": playable.unsqueeze(0), "sample_rate": rate}
        saved = ui.AudioSaveHelper.save_audio(values, _name(), io.FolderType.temp, None)
        shown.files += [{**item} for item in saved]
        shown.waveforms.append(
            [(round(low, 4), round(high, 4)) for low, high in peaks(playable, _BUCKETS)]
        )
    if len(waveform) > MAX_SOUNDS:
        shown.problem = f"The first {MAX_SOUNDS} of {len(waveform)} are shown."


def _video(shown: Shown, video: VideoInput, _: Any) -> None:
    shown.media = "video"
    name = f"{_name()}.mp4"
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    video.save_to(str(folder / name))
    shown.files = [{"filename": name, "subfolder": "", "type": "temp"}]


def _name() -> str:
    return f"vivace_{secrets.token_hex(4)}"


_WRITERS = {"image": _images, "mask": _masks, "audio": _sounds, "video": _video}
