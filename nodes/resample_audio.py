"""Resample Audio."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..defaults import DEFAULTS

MIN_RATE, MAX_RATE = 1000, 384000
_DEFAULTS = DEFAULTS["VivaceResampleAudio"]


class ResampleAudio(io.ComfyNode):
    """The same sound at another sample rate."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VivaceResampleAudio",
            display_name="Resample Audio",
            category="Vivace/Audio",
            description=(
                "The same sound at another sample rate: as long, as high, with the same channels."
                " What the new rate cannot hold is filtered out."
            ),
            search_aliases=["sample rate", "downsample audio", "upsample audio", "44100", "vivace"],
            inputs=[
                io.Audio.Input("audio", tooltip="The sound; all of a batch are resampled."),
                io.Int.Input(
                    "sample_rate",
                    default=_DEFAULTS["sample_rate"],
                    min=MIN_RATE,
                    max=MAX_RATE,
                    tooltip="Samples per second of the result.",
                ),
            ],
            outputs=[
                io.Audio.Output(
                    display_name="audio",
                    tooltip="The sound at the new rate, with its batch and channels.",
                )
            ],
        )

    @classmethod
    def execute(cls, audio: dict[str, Any], sample_rate: int) -> io.NodeOutput:
        from ..music.resample import resample
        from ..toolkit.waveform import parts_of

        waveform, rate = parts_of(audio)
        if rate == sample_rate:
            return io.NodeOutput(audio)
        if waveform.numel():
            waveform = resample(waveform.float(), rate, sample_rate, "Resample Audio")
        return io.NodeOutput({"waveform": waveform, "sample_rate": sample_rate})
