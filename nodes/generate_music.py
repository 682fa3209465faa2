"""Generate Music: audio from text, by a MusicGen on this machine."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..defaults import DEFAULTS
from .model_choice import ModelChoice

DTYPES = ["auto", "float16", "bfloat16", "float32"]
NO_MODEL = "(none found: put a MusicGen folder into models/musicgen)"
_DEFAULTS = DEFAULTS["VivaceGenerateMusic"]


def _find(roots: list[str]) -> Any:
    from ..hub.musicgen_folders import find_music_models

    return find_music_models(roots)


MODELS = ModelChoice("MusicGen", ("musicgen", "LLM"), _find)


class GenerateMusic(io.ComfyNode):
    """Music of an exact length, which may go on from audio and follow a melody."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VivaceGenerateMusic",
            display_name="Generate Music",
            category="Vivace/Audio",
            description=(
                "Music from a description, by MusicGen on this machine: of an exact length, in"
                " mono or stereo. It can go on from other audio, and melody models can follow a"
                " tune."
            ),
            search_aliases=[
                "musicgen",
                "text to music",
                "text to audio",
                "audio generation",
                "continue audio",
                "melody",
                "soundtrack",
                "vivace",
            ],
            inputs=_inputs(),
            outputs=[
                io.Audio.Output(
                    display_name="audio", tooltip="The music; a batch if there are variations."
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="Lengths, rates, times and what torchaudio allows, as Markdown.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: str,
        prompt: str,
        duration: float,
        melody: dict[str, Any] | None = None,
        continue_from: dict[str, Any] | None = None,
        include_given: bool = _DEFAULTS["include_given"],
        variations: int = _DEFAULTS["variations"],
        guidance_scale: float = _DEFAULTS["guidance_scale"],
        temperature: float = _DEFAULTS["temperature"],
        top_k: int = _DEFAULTS["top_k"],
        seed: int = _DEFAULTS["seed"],
        sample_rate: int = _DEFAULTS["sample_rate"],
        overlap: float = _DEFAULTS["overlap"],
        dtype: str = _DEFAULTS["dtype"],
        keep_loaded: bool = _DEFAULTS["keep_loaded"],
    ) -> io.NodeOutput:
        from ..music.audio_input import read_audio
        from ..music.code_sampler import CodeSampling
        from ..music.compose import MusicRequest
        from ..wrappers.music_session import MusicChoice, make_music

        request = MusicRequest(
            prompt=prompt,
            seconds=duration,
            variations=variations,
            melody=None if melody is None else read_audio(melody, "melody"),
            before=None if continue_from is None else read_audio(continue_from, "continue_from"),
            include_before=include_given,
            rate=sample_rate,
            overlap=overlap,
            sampling=CodeSampling(guidance_scale, temperature, top_k, seed),
        )
        return io.NodeOutput(
            *make_music(MusicChoice(MODELS.path(model), dtype, keep_loaded), request)
        )


def _inputs() -> list[Any]:
    return [
        io.Combo.Input(
            "model",
            options=MODELS.names() or [NO_MODEL],
            tooltip=(
                "A MusicGen folder as Hugging Face lays it out, below models/musicgen or"
                " models/LLM. QwenVL Download fetches one, such as facebook/musicgen-small."
            ),
        ),
        io.String.Input(
            "prompt",
            multiline=True,
            default=_DEFAULTS["prompt"],
            dynamic_prompts=True,
            tooltip=(
                "What it shall sound like: kind, instruments, mood, tempo. May be empty where a"
                " melody or audio to go on from is connected."
            ),
        ),
        io.Float.Input(
            "duration",
            default=_DEFAULTS["duration"],
            min=0.1,
            max=300.0,
            step=0.1,
            tooltip="Seconds of new music, exact to the sample.",
        ),
        io.Audio.Input(
            "melody",
            optional=True,
            tooltip=(
                "A tune to follow, for melody models only. It begins where the new music begins,"
                " and again where it ends."
            ),
        ),
        io.Audio.Input(
            "continue_from",
            optional=True,
            tooltip=(
                "Audio to go on from; its last half minute counts. One for all variations, or a"
                " batch with one for each."
            ),
        ),
        io.Boolean.Input(
            "include_given",
            default=_DEFAULTS["include_given"],
            optional=True,
            tooltip="On: the result begins with the audio that it goes on from, as it is.",
        ),
        io.Int.Input(
            "variations",
            default=_DEFAULTS["variations"],
            min=1,
            max=16,
            optional=True,
            tooltip="How many are made at once. The second is what the next seed makes, and so on.",
        ),
        *_sampling_inputs(),
        *_loading_inputs(),
    ]


def _sampling_inputs() -> list[Any]:
    return [
        io.Float.Input(
            "guidance_scale",
            default=_DEFAULTS["guidance_scale"],
            min=1.0,
            max=20.0,
            step=0.1,
            optional=True,
            tooltip="How strictly the prompt is followed. 1 is without guidance, and faster.",
        ),
        io.Float.Input(
            "temperature",
            default=_DEFAULTS["temperature"],
            min=0.0,
            max=5.0,
            step=0.05,
            optional=True,
            tooltip="Higher is more varied; 0 always takes the most probable code.",
        ),
        io.Int.Input(
            "top_k",
            default=_DEFAULTS["top_k"],
            min=0,
            max=2048,
            optional=True,
            tooltip="Only this many of the most probable codes; 0 for all.",
        ),
        io.Int.Input(
            "seed",
            default=_DEFAULTS["seed"],
            min=0,
            max=2**64 - 1,
            optional=True,
            control_after_generate=True,
            tooltip="The same seed makes the same music.",
        ),
    ]


def _loading_inputs() -> list[Any]:
    return [
        io.Int.Input(
            "sample_rate",
            default=_DEFAULTS["sample_rate"],
            min=0,
            max=192000,
            optional=True,
            advanced=True,
            tooltip=(
                "Samples per second, from 8000. 0: that of the given audio if the result begins"
                " with it, and the model's own otherwise."
            ),
        ),
        io.Float.Input(
            "overlap",
            default=_DEFAULTS["overlap"],
            min=0.1,
            max=29.0,
            step=0.1,
            optional=True,
            advanced=True,
            tooltip=(
                "For music longer than half a minute: seconds of what came before that each"
                " further part is given. More holds together better, and takes longer."
            ),
        ),
        io.Combo.Input(
            "dtype",
            options=DTYPES,
            default=_DEFAULTS["dtype"],
            optional=True,
            advanced=True,
            tooltip="Of the decoder. auto: float16 on CUDA, float32 elsewhere.",
        ),
        io.Boolean.Input(
            "keep_loaded",
            default=_DEFAULTS["keep_loaded"],
            optional=True,
            tooltip=(
                "On: the model stays until other models need its memory, or it is unloaded."
                " Off: its memory is given back after each run."
            ),
        ),
    ]
