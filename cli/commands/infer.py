"""``vivace infer PROMPT``: pictures by a built-in workflow."""

from __future__ import annotations

from ..errors import OK, UsageError
from ..settings import option
from ..spec import TEXT, Argument, Command, Kind, Option, Values, folder, integer, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..output import Output
    from ..server.http import Json
    from ..workflow.build import Builder

NAME = Kind("NAME", str)
COMMAND = Command(
    "The workflow is that of Qwen-Image or Z-Image, in bf16 or fp8, or in 4 bits by SVDQuant; the"
    " model's name says which. Files that are not named are found among those of the server by"
    " their usual names. With --prompt-only the prompt is printed in API format, to go on from"
    " there with 'vivace run'.",
    [Argument("prompt", TEXT, "what the pictures show")],
    [
        Option("--negative", TEXT, "what they shall not show; needs --cfg above 1"),
        Option("--model", NAME, "the diffusion model (needed if the server has several)"),
        Option(
            "--family",
            NAME,
            "what the model is, if its name does not say so",
            choices=("qwen-image", "z-image"),
        ),
        Option("--text-encoder", NAME, "else the one that fits the model"),
        Option("--vae", NAME, "else the one that fits the model"),
        Option("--lora", Kind("LORA:STRENGTH", str), "a LoRA of the server", repeat=True),
        Option("--size", Kind("WxH", str), "in pixels, such as 1328x800"),
        Option("--count", integer(1, 4096), "pictures, each with the next seed", default=1),
        Option("--steps", integer(1), "of sampling"),
        Option("--cfg", number(0, 100), "guidance; 1 for none"),
        Option("--sampler", NAME, "such as euler"),
        Option("--scheduler", NAME, "such as simple"),
        Option("--shift", number(0, 100), "of the noise schedule"),
        Option("--seed", integer(0), "of the first picture (else by chance)"),
        Option("--output", folder(), "where files go", short="-o", default="."),
        Option("--prompt-only", None, "print the prompt in API format, and do not run it"),
        option("server"),
        option("timeout"),
    ],
    [
        ('vivace infer "a lighthouse at dawn, oil painting"', "with the only model there is"),
        (
            'vivace infer "a fox" --model svdq-int4_r32-z-image-turbo.safetensors --lora ink:0.8',
            "with a LoRA, in 4 bits",
        ),
    ],
)
_INPUTS = {
    "cfg": ("sampler", "cfg"),
    "sampler": ("sampler", "sampler_name"),
    "scheduler": ("sampler", "scheduler"),
    "shift": ("sampling", "shift"),
    "steps": ("sampler", "steps"),
    "seed": ("sampler", "seed"),
}


def run(values: Values, out: Output) -> int:
    """Queue the workflow once for each picture, and fetch them."""
    import random
    from pathlib import Path

    from ..series import SeriesPlan, lines_of, run_series
    from ..server.http import Server
    from ..workflow.build import Builder
    from ..workflow.families import choose_files, template

    server = Server(values.server, values.timeout)
    files = choose_files(Builder(server.object_info()), values)
    builder = template(server.object_info(), files, loras=bool(values.lora))
    if values.seed is None:
        values.seed = random.randrange(2**32)  # noqa: S311 - no secret
    rows = _fill(builder, values)
    if values.prompt_only:
        import json

        out.result(builder.prompt, [json.dumps(builder.prompt, indent=1)])
        return OK
    series = [[("sampler.seed", str(values.seed + index))] for index in range(values.count)]
    result: Json = run_series(server, out, builder.prompt, series, SeriesPlan(Path(values.output)))
    del result["sheet"]
    used = {**files.as_dict(), "loras": rows, "seed": values.seed}
    remark = f"{files.model}, {files.text_encoder}, {files.vae}, seed {values.seed}"
    out.note(f"made with {remark}")
    out.result({**used, **result}, lines_of({**result, "sheet": None}))
    return OK


def _fill(builder: Builder, values: Values) -> list[dict[str, object]]:
    """Put the options into the workflow; the rows of its LoRA Stack."""
    prompt = builder.prompt
    prompt["positive"]["inputs"]["text"] = values.prompt
    for attribute, (node, name) in _INPUTS.items():
        builder.set(node, name, getattr(values, attribute), f"--{attribute}")
    if values.size is not None:
        from ..workflow.size import parse_size

        size = parse_size(values.size, "--size")
        for name, length in zip(("width", "height"), size, strict=True):
            builder.set("size", name, length, "--size")
    if values.negative is not None:
        if prompt["sampler"]["inputs"]["cfg"] <= 1:
            problem = "--negative does nothing without guidance"
            raise UsageError(problem, "Give --cfg above 1, or leave it out")
        prompt["negative"]["inputs"]["text"] = values.negative
    rows = _rows(builder, values.lora)
    if rows:
        prompt["stack"]["inputs"]["rows"] = {"__value__": rows}
    return rows


def _rows(builder: Builder, words: list[str]) -> list[dict[str, object]]:
    from ..lora_sources import source
    from ..workflow.build import named_lora

    offered = builder.choices("LoraLoader", "lora_name")
    rows = []
    for word in words:
        path, strength = source(word)
        lora = named_lora(str(path), offered, "--lora")
        rows.append({"on": True, "lora": lora, "strength": strength})
    return rows
