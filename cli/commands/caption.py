"""``vivace caption FOLDER``: captions beside images, written by the server."""

from __future__ import annotations

from ..errors import FAILED, OK, CliError, UsageError
from ..settings import option
from ..spec import TEXT, Argument, Command, Kind, Option, Values, folder, integer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from ..output import Output
    from ..server.prompts import PromptError
    from ..workflow.build import Builder

NAME = Kind("NAME", str)
NODE = "VivaceQwenVLBatch"
COMMAND = Command(
    "Each image gets a .txt of its name, as training tools expect. The server reads the images and"
    " writes the captions itself, so that it has to see the folder under the same path. Ctrl-C"
    " stops; the captions that are written stay, and the next run goes on from there.",
    [Argument("folder", folder(), "the images")],
    [
        Option("--model", NAME, "the server's model folder (else the first that it has)"),
        Option("--endpoint", Kind("URL", str), "an OpenAI-compatible server that captions instead"),
        Option("--endpoint-model", NAME, "the model's name there"),
        Option("--api-key-variable", NAME, "the environment variable of ComfyUI that has its key"),
        Option("--preset", TEXT, "an instruction that is ready to use"),
        Option("--prompt", TEXT, "your own instruction, after that of --preset if it is given"),
        Option("--system-prompt", TEXT, "how the model shall behave"),
        Option("--quality", NAME, "pixels that the model sees: auto, fast, balanced, high, ultra"),
        Option("--existing", NAME, "captions that are there: skip, overwrite, append"),
        Option("--subfolders", None, "the images of folders below, too"),
        Option("--batch-size", integer(1), "images that are captioned together"),
        Option("--max-tokens", integer(1), "length of a caption at most"),
        Option("--greedy", None, "always the most probable words"),
        Option("--seed", integer(0), "of the random choice of words"),
        Option("--quantization", NAME, "of the local model: none, 8-bit, 4-bit"),
        Option("--dtype", NAME, "of the local model: bfloat16, float16, float32"),
        option("server"),
        option("timeout"),
    ],
    [
        ("vivace caption ~/dataset", "a detailed description of each image"),
        (
            'vivace caption ~/dataset --prompt "Name the flower." --existing overwrite',
            "your own question, anew for all",
        ),
    ],
    status="images could not be captioned, or the server could not run the model.",
)
_INPUTS = {
    "existing": "existing",
    "batch_size": "batch_size",
    "system_prompt": "system_prompt",
    "quality": "image_quality",
    "max_tokens": "max_tokens",
    "seed": "seed",
}
_LOCAL = ("model", "quantization", "dtype")
_REMOTE = {"endpoint": "address", "endpoint_model": "server_model"}


def run(values: Values, out: Output) -> int:
    """Queue the node, and say what became of the images."""
    from ..server.http import Server
    from ..server.prompts import PromptError, Runner
    from ..workflow.build import Builder

    server = Server(values.server, values.timeout)
    builder = Builder(server.object_info())
    # Links are left as they are: what they mean here may be something else on the server.
    path = values.folder.absolute()
    _fill(builder, values, path)
    try:
        id_, outputs = Runner(server, out).run(builder.prompt, f"caption {path.name}")
    except PromptError as error:
        raise _explained(error, path, server.url) from None
    report = "\n".join(outputs.get("caption", {}).get("report") or ())
    counts = _counts(report)
    out.result(
        {"prompt_id": id_, "folder": str(path), **counts, "report": report}, report.splitlines()
    )
    return FAILED if counts["failed"] else OK


def _fill(builder: Builder, values: Values, path: Path) -> None:
    from ...defaults import NO_PRESET

    builder.add("caption", NODE, folder=str(path), subfolders=values.subfolders)
    _choose_engine(builder, values)
    for attribute, name in _INPUTS.items():
        flag = f"--{attribute.replace('_', '-')}"
        builder.set("caption", name, getattr(values, attribute), flag)
    if values.prompt is not None:
        builder.set("caption", "prompt", values.prompt, "--prompt")
        builder.set("caption", "preset", NO_PRESET, "--prompt")
    builder.set("caption", "preset", values.preset, "--preset")
    if values.greedy:
        builder.set("caption", "sampling", "greedy", "--greedy")


def _choose_engine(builder: Builder, values: Values) -> None:
    local = [f"--{name}" for name in _LOCAL if getattr(values, name) is not None]
    remote = values.endpoint is not None
    others = [name for name in ("endpoint_model", "api_key_variable") if getattr(values, name)]
    if (remote and local) or (others and not remote):
        wrong = local[0] if remote else f"--{others[0].replace('_', '-')}"
        problem = f"{wrong} does not go with{'' if remote else 'out'} --endpoint"
        raise UsageError(problem, "Caption with a model of ComfyUI, or with another server's")
    if remote and not values.endpoint_model:
        raise UsageError("--endpoint-model is missing", "Name the model as the endpoint calls it")
    builder.set("caption", "engine", "server" if remote else "local", "--endpoint")
    for attribute, name in _REMOTE.items():
        builder.set("caption", f"engine.{name}", getattr(values, attribute), f"--{attribute}")
    if remote:
        variable = values.api_key_variable
        builder.set("caption", "engine.api_key_variable", variable, "--api-key-variable")
        return
    builder.set("caption", "engine.model", values.model, "--model")
    for name in _LOCAL[1:]:
        builder.set("caption", f"engine.{name}", getattr(values, name), f"--{name}")
    # In place of models the node offers a remark where there are none.
    if str(builder.prompt["caption"]["inputs"]["engine.model"]).startswith("("):
        problem = "The server has no vision-language model"
        raise CliError(problem, "Fetch one with QwenVL Download, or use --endpoint")


def _explained(error: PromptError, path: Path, url: str) -> CliError:
    """What the server says of the folder, in words that fit both machines."""
    texts = " ".join(text for found in error.nodes.values() for text in found)
    if "is no folder, or may not be entered" not in texts:
        return error
    if not path.is_dir():
        return CliError(f"There is no folder {path}", "Check the path")
    problem = f"The server {url} cannot read {path}, which is there on this machine"
    remedy = "It reads the images itself: run it on this machine with permission to enter the"
    return CliError(problem, f"{remedy} folder, or mount the folder there under the same path")


def _counts(report: str) -> dict[str, int | None]:
    """How many captions were written, were there, and failed; None where the report is silent."""
    import re

    found = re.search(r"captions: (\d+) written, (\d+) there already, (\d+) failed", report)
    names = ("written", "present", "failed")
    return {name: int(found[index]) if found else None for index, name in enumerate(names, 1)}
