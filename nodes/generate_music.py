"""Generate Music: audio from text, by a MusicGen on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

FOLDERS = ("musicgen", "LLM")
DTYPES = ["auto", "float16", "bfloat16", "float32"]
NO_MODEL = "(none found: put a MusicGen folder into models/musicgen)"


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
        include_given: bool = True,
        variations: int = 1,
        guidance_scale: float = 3.0,
        temperature: float = 1.0,
        top_k: int = 250,
        seed: int = 0,
        sample_rate: int = 0,
        overlap: float = 12.0,
        dtype: str = "auto",
        keep_loaded: bool = True,
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
        return io.NodeOutput(*make_music(MusicChoice(_path(model), dtype, keep_loaded), request))


def _inputs() -> list[Any]:
    return [
        io.Combo.Input(
            "model",
            options=model_names() or [NO_MODEL],
            tooltip=(
                "A MusicGen folder as Hugging Face lays it out, below models/musicgen or"
                " models/LLM. QwenVL Download fetches one, such as facebook/musicgen-small."
            ),
        ),
        io.String.Input(
            "prompt",
            multiline=True,
            default="",
            dynamic_prompts=True,
            tooltip=(
                "What it shall sound like: kind, instruments, mood, tempo. May be empty where a"
                " melody or audio to go on from is connected."
            ),
        ),
        io.Float.Input(
            "duration",
            default=10.0,
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
            default=True,
            optional=True,
            tooltip="On: the result begins with the audio that it goes on from, as it is.",
        ),
        io.Int.Input(
            "variations",
            default=1,
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
            default=3.0,
            min=1.0,
            max=20.0,
            step=0.1,
            optional=True,
            tooltip="How strictly the prompt is followed. 1 is without guidance, and faster.",
        ),
        io.Float.Input(
            "temperature",
            default=1.0,
            min=0.0,
            max=5.0,
            step=0.05,
            optional=True,
            tooltip="Higher is more varied; 0 always takes the most probable code.",
        ),
        io.Int.Input(
            "top_k",
            default=250,
            min=0,
            max=2048,
            optional=True,
            tooltip="Only this many of the most probable codes; 0 for all.",
        ),
        io.Int.Input(
            "seed",
            default=0,
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
            default=0,
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
            default=12.0,
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
            default=DTYPES[0],
            optional=True,
            advanced=True,
            tooltip="Of the decoder. auto: float16 on CUDA, float32 elsewhere.",
        ),
        io.Boolean.Input(
            "keep_loaded",
            default=True,
            optional=True,
            tooltip=(
                "On: the model stays until other models need its memory, or it is unloaded."
                " Off: its memory is given back after each run."
            ),
        ),
    ]


def _model_roots() -> list[str]:
    """The folders that models are looked for in."""
    # Other packs and extra_model_paths.yaml may have given the names more folders.
    for name in FOLDERS:
        folder_paths.add_model_folder_path(name, str(Path(folder_paths.models_dir) / name))
    return [root for name in FOLDERS for root in folder_paths.get_folder_paths(name)]


def model_names() -> list[str]:
    """Names of the model folders, complete or not."""
    from ..hub.musicgen_folders import find_music_models

    return list(find_music_models(_model_roots()).models)


def _path(name: str) -> Path:
    from ..hub.musicgen_folders import find_music_models

    roots = _model_roots()
    found = find_music_models(roots)
    if name in found.models:
        return found.models[name].path
    problems = "".join(f" {problem}." for problem in found.problems[:3])
    raise ValueError(
        f"There is no MusicGen '{name}' in {', '.join(roots)}.{problems} Put a model folder there,"
        " or fetch one with QwenVL Download."
    )
