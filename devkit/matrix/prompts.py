"""What is asked of the server of a cell; each function returns what to report, or raises."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ...cli.doctor.server import our_nodes
from ..demo.__main__ import Demo
from ..demo.checks import Result, close, different, equal, weights_are_exact
from ..demo.workflow import Run, build
from ..doubles.demo_models import BLOCK, LORAS, MODEL_FILE
from ..rig.client import ComfyClient
from ..rig.layout import PACK_NAME

MODEL = "small-qwen3_vl"
# Up to the line of the error, which is the first that is not indented.
_TRACEBACK = re.compile(r"^Traceback \(most recent call last\):\n(?: .*\n)+.*$", re.MULTILINE)


def make_model(folder: Path) -> str:
    """Save a small Qwen-VL model with random weights, by this transformers."""
    from ..doubles.small_vlm import save_model

    save_model("qwen3_vl", folder / MODEL)
    return f"by transformers, {sum(1 for _ in (folder / MODEL).iterdir())} files"


def nodes(client: ComfyClient) -> str:
    """Every node of ours is there, and its module could be imported."""
    info, wanted = client.get_json("/object_info"), our_nodes()
    missing = [name for name in wanted if name not in info]
    broken = [
        f"{name}: {info[name]['description']}"
        for name in wanted
        if name in info and "cannot be imported" in info[name]["description"]
    ]
    _hold(not missing and not broken, f"missing: {missing}; broken: {broken}")
    return f"{len(wanted)} nodes"


def lora_stack(client: ComfyClient) -> str:
    """Two LoRAs change a one-block Qwen-Image exactly as their factors say, and leave no trace."""
    rows = [{"on": True, "lora": lora.filename, "strength": 0.8} for lora in LORAS]
    base, both = _sampled(client, Run("no LoRA")), _sampled(client, Run("both", rows, "merge"))
    beside = _sampled(client, Run("beside the layers", rows))
    after = _sampled(client, Run("afterwards"))
    checks = [
        different("the LoRAs change the latent", base, both),
        weights_are_exact("weights are exact", base, both, [(lora, 0.8) for lora in LORAS]),
        close("beside the layers they do what they do merged", both, beside),
        equal("the model is bit-equal afterwards", base, after),
    ]
    _hold(all(check.held for check in checks), str([c.claim for c in checks if not c.held]))
    return checks[1].figures


def _sampled(client: ComfyClient, run: Run) -> Result:
    weights = sorted({f"{BLOCK}.{module}.weight" for lora in LORAS for module in lora.modules})
    demo = Demo(client, MODEL_FILE, None, weights)
    prompt = build(run, MODEL_FILE, None, text_width=3584, weights=weights)
    prompt["latent"]["inputs"] |= {"width": 64, "height": 64}
    prompt["sample"]["inputs"]["steps"] = 1
    return demo.collect(client.run(prompt), 0.0)


def small_nodes(client: ComfyClient) -> str:
    """A blank image has its colour, and is found to be uniform."""
    limits = {"uniform_within": 0.01}
    limits |= dict.fromkeys(("black_below", "white_above", "transparent_above"), -1.0)
    outputs = client.run(
        {
            "blank": _node("VivaceBlankImage", width=8, height=8, batch_size=1, color="teal"),
            "empty": _node("VivaceImageIsEmpty", image=["blank", 0], **limits),
            "is": _node("PreviewAny", source=["empty", 0]),
            "show": _node("VivacePreviewOutputs", **{"values.value0": ["blank", 0]}),
        }
    )
    found = outputs["is"]["text"][0]
    _hold(found == "True", f"Image Is Empty? says {found} of an image of one colour")
    _hold(bool(outputs["show"]), "Preview Outputs shows nothing")
    return "an image of one colour is made, shown, and found to be empty"


def qwenvl(client: ComfyClient) -> str:
    """A local model writes about an image, which is encoded once for two questions."""
    figures = []
    for question in ("What is it?", "Which colour?"):
        ask = _node(
            "VivaceQwenVL",
            prompt=question,
            preset="None (my prompt only)",
            max_tokens=8,
            sampling="greedy",
            engine="local",
            **{"engine.model": MODEL, "engine.dtype": "float32", "images.image0": ["image", 0]},
        )
        image = _node("EmptyImage", width=96, height=64, batch_size=1, color=0xFF0000)
        text = _node("PreviewAny", source=["ask", 0])
        outputs = client.run({"image": image, "ask": ask, "text": text})
        answer, report = outputs["ask"]["text"][0], outputs["ask"]["report"][0]
        _hold(bool(answer), f"no answer to '{question}'")
        found = re.search(r"(\d+) from the cache, (\d+) encoded", report)
        _hold(found is not None, f"the report has no figures: {report}")
        figures.append(found.groups() if found else ())
    _hold(figures == [("0", "1"), ("1", "0")], f"from the cache, and encoded: {figures}")
    return "two answers about an image that was encoded once"


def log(path: Path) -> str:
    """Nothing of the pack failed in silence; tracebacks of ComfyUI alone are not ours."""
    text = path.read_text(errors="replace")
    _hold("(IMPORT FAILED)" not in text, "the log says that an import failed")
    ours = [found[0] for found in _TRACEBACK.finditer(text) if PACK_NAME in found[0]]
    _hold(not ours, f"{len(ours)} tracebacks, the first: {ours[0] if ours else ''}")
    return "no import failed, no traceback of ours"


def _node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def _hold(held: bool, problem: str) -> None:
    if not held:
        raise ValueError(problem)
