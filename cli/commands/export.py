"""``vivace export STACK``: a stack as one LoRA file, or baked into a model by the server."""

from __future__ import annotations

from ..errors import OK, CliError, UsageError
from ..lora_output import FORM, OUTPUT, PARTIAL, RANK, STATUS
from ..settings import option
from ..spec import Argument, Command, Kind, Option, Values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from ..output import Output
    from ..server.http import Json, Server
    from ..workflow.build import Builder

COMMAND = Command(
    "A stack is LoRA files with their strengths, or the rows of the LoRA Stack in a workflow. It"
    " becomes one LoRA, as by 'vivace lora merge'; or with --base, the server adds it to that model"
    " and saves the whole, which is downloaded. The server keeps its copy in its output folder.",
    [
        Argument(
            "stack",
            Kind("STACK", str, (".safetensors", ".json", ".png")),
            "LoRAs, each with its strength behind a colon, such as style.safetensors:0.8 (else 1);"
            " or a workflow",
            count="+",
        )
    ],
    [
        *OUTPUT,
        Option("--base", Kind("MODEL", str), "the server's diffusion model to bake into"),
        Option("--on-server", None, "with --base: leave it there, and print its name"),
        Option("--node", Kind("NODE", str), "the workflow's LoRA Stack, by id or title"),
        RANK,
        *FORM,
        PARTIAL,
        option("models"),
        option("server"),
        option("timeout"),
    ],
    [
        (
            "vivace export a.safetensors:0.8 b.safetensors:0.5 -o both.safetensors",
            "one LoRA that does what the two do",
        ),
        (
            "vivace export flow.json --base qwen_image_bf16.safetensors -o styled.safetensors",
            "the model with the workflow's LoRAs in it",
        ),
    ],
    status=STATUS,
)
_OF_LORAS = ("rank", "format", "dtype")


def run(values: Values, out: Output) -> int:
    """Write the file."""
    from ..lora_output import target
    from ..server.http import Server
    from ..stack_words import read_stack

    if values.on_server and values.base is None:
        raise UsageError("--on-server goes with --base", "A LoRA is made on this machine")
    path = target(values)
    server = Server(values.server, values.timeout)
    stack = read_stack(values.stack, values.node, lambda: server, out)
    if values.base is None:
        _merge(stack, path, values, out)
    else:
        _bake(stack, path, values, out, server)
    return OK


def _merge(stack: list[tuple[str, float]], path: Path, values: Values, out: Output) -> None:
    from pathlib import Path

    from ..lora_output import show
    from ..lora_sources import merge
    from ..stack_words import local_files

    roots = [values.models, values.settings["comfyui"].value]
    folders = [
        Path(root) / below
        for root, below in zip(roots, ("loras", "models/loras"), strict=True)
        if root
    ]
    show(merge(local_files(stack, folders), path, values, out), out)


def _bake(
    stack: list[tuple[str, float]], path: Path, values: Values, out: Output, server: Server
) -> None:
    from ..server.made_model import MadeModel
    from ..server.prompts import Runner
    from ..workflow.build import Builder

    for name in _OF_LORAS:
        if getattr(values, name) is not None:
            raise UsageError(f"--{name} is for LoRA files", "Leave out either it or --base")
    builder = Builder(server.object_info())
    made = MadeModel.new(path.stem)
    used = _graph(builder, stack, values, made.prefix)
    _, outputs = Runner(server, out).run(builder.prompt, f"bake {path.name}")
    report = "\n".join(outputs.get("stack", {}).get("text") or ())
    result: Json = {"path": None, "on_server": made.on_server, **used, "report": report}
    lines = [*report.splitlines(), f"on the server: output/{made.on_server}"]
    if not values.on_server:
        out.note(f"downloading {made.on_server}")
        made.download(server, path)
        result["path"] = str(path)
        lines.append(f"written: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    out.result(result, lines)


def _graph(
    builder: Builder, stack: list[tuple[str, float]], values: Values, prefix: str
) -> dict[str, object]:
    """Fill the prompt; the names as the server has them."""
    from ..workflow.build import base, named, named_lora

    models = builder.choices("UNETLoader", "unet_name")
    model = named(values.base, models, "--base", "diffusion model")
    if "svdq" in base(model).lower():
        problem = f"--base {values.base}: a model in 4 bits cannot take LoRAs into its weights"
        raise CliError(problem, "Bake into the bf16 model that it was made of")
    offered = builder.choices("LoraLoader", "lora_name")
    rows = [
        {"on": True, "lora": named_lora(name, offered, "STACK"), "strength": strength}
        for name, strength in stack
    ]
    builder.add("model", "UNETLoader", unet_name=model)
    builder.add("stack", "VivaceLoraStack", model=["model", 0], rows={"__value__": rows})
    builder.set("stack", "mode", "merge", "--base")
    builder.set("stack", "strict", not values.partial, "--partial")
    builder.add("save", "ModelSave", model=["stack", 0], filename_prefix=prefix)
    return {"base": model, "loras": [{k: row[k] for k in ("lora", "strength")} for row in rows]}
