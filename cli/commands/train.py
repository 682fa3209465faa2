"""``vivace train TRAINING``: a LoRA of a folder of images and captions."""

from __future__ import annotations

from ..errors import OK, CliError
from ..settings import option
from ..spec import Argument, Command, Option, Values, files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from ..output import Output
    from ..server.http import Json, Server
    from ..server.made_model import MadeModel
    from ..server.prompts import PromptError
    from ..training.config import Config

COMMAND = Command(
    "The server trains with ComfyUI's own nodes, on images that are uploaded. TRAINING is YAML;"
    " paths in it start at its folder. Only 'dataset' must be there, and 'model' if the server has"
    " several. What is left out, the server's nodes decide.\n\n"
    "The images: dataset (a folder with a .txt beside each image), caption (for images without),"
    " longest_edge (to resize them to, in pixels).\n\n"
    "The model: model, family (qwen-image or z-image, if the name does not say so), text_encoder,"
    " vae.\n\n"
    "The training: steps, learning_rate, rank, batch_size, gradient_accumulation, optimizer, loss,"
    " seed, training_dtype, lora_dtype, algorithm, gradient_checkpointing, checkpoint_depth,"
    " offloading, bypass, quantized_backward, resume (a LoRA of the server to go on with, named as"
    " NAME_100_steps_.safetensors).\n\n"
    "The results: output (a folder), name, samples (prompts of pictures with the LoRA; or a table"
    " of prompts, size, steps, cfg and seed). The LoRA, the loss as a curve and the samples are"
    " written there; the server keeps its copies. Ctrl-C ends the training.",
    [Argument("training", files(".yaml", ".yml"), "the configuration")],
    [
        Option("--prompt-only", None, "check everything, print the prompt, and do not run it"),
        option("server"),
        option("timeout"),
    ],
    [("vivace train fox.yaml", "train as the file says")],
    status="the server could not train; what it made until then is kept.",
)


def run(values: Values, out: Output) -> int:
    """Upload the data set, queue the training, and fetch what it makes."""
    from ..server.http import Server
    from ..server.made_model import MadeModel
    from ..server.prompts import PromptError, Runner
    from ..training.config import read_config
    from ..training.dataset import read_dataset, upload
    from ..training.graph import plan

    config = read_config(values.training)
    examples = read_dataset(config.dataset, config.caption)
    server = Server(values.server, values.timeout)
    planned = plan(server.object_info(), config)
    made = MadeModel.new(f"{config.name}_{planned.steps}_steps")
    if values.prompt_only:
        import json

        prompt = planned.finish("", made)
        out.result(prompt, [json.dumps(prompt, indent=1)])
        return OK
    prompt = planned.finish(upload(examples, server, out), made)
    out.note(f"training on {len(examples)} images with {planned.files.model}")
    try:
        id_, outputs = Runner(server, out).run(prompt, f"train {config.name}")
    except PromptError as error:
        raise _with_lora(error, config, made, server) from None
    result: Json = {
        "prompt_id": id_,
        "images": len(examples),
        "steps": planned.steps,
        **planned.files.as_dict(),
        **_fetch(config, outputs, made, server),
    }
    out.result(result, _lines(result))
    return OK


def _fetch(config: Config, outputs: Json, made: MadeModel, server: Server) -> Json:
    from ..server.results import free_name, save_all
    from ..training.curve import write_curve

    lora = free_name(config.output / made.filename)
    made.download(server, lora)
    losses = _losses(outputs)
    curve: Path | None = None
    if len(losses) > 1:
        curve = free_name(lora.with_name(f"{lora.stem.rstrip('_')}-loss.png"))
        write_curve(curve, losses)
    samples = {id_: found for id_, found in outputs.items() if id_.startswith("save")}
    pictures = save_all(server, samples, config.output) if samples else []
    return {
        "lora": str(lora),
        "on_server": made.on_server,
        "losses": [loss if abs(loss) < float("inf") else None for loss in losses],
        "curve": None if curve is None else str(curve),
        "samples": [item["path"] for item in pictures],
    }


def _losses(outputs: Json) -> list[float]:
    """What the server shows of its node's losses; NaN where a step had none."""
    import json

    texts = outputs.get("losses", {}).get("text") or [""]
    try:
        found = json.loads("".join(texts))
        return [float(loss) for loss in found["loss"]]
    except (ValueError, TypeError, KeyError):
        return []


def _with_lora(error: PromptError, config: Config, made: MadeModel, server: Server) -> CliError:
    """The error; if the LoRA had been saved before it, fetch that."""
    from ..server.results import free_name

    lora = free_name(config.output / made.filename)
    try:
        made.download(server, lora)
    except CliError:
        return error
    return CliError(str(error), f"The training had ended before; the LoRA is in {lora}")


def _lines(result: Json) -> list[str]:
    known = [loss for loss in result["losses"] if loss is not None]
    lines = []
    if known:
        tenth = max(1, len(known) // 10)
        first, last = (sum(part) / tenth for part in (known[:tenth], known[-tenth:]))
        lines.append(f"loss: {first:.4g} in the first tenth of the steps, {last:.4g} in the last")
    lines += [result["lora"], *filter(None, [result["curve"]]), *result["samples"]]
    return lines
