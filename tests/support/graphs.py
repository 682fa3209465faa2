"""Small API-format prompts."""

from __future__ import annotations

from typing import Any

from vivace.devkit.doubles.demo_models import MODEL_FILE
from vivace.devkit.rig.client import ComfyClient, Prompt

PEFT, KOHYA = "vivace-demo-peft.safetensors", "vivace-demo-kohya.safetensors"
SOME_WEIGHT = "transformer_blocks.0.attn.to_q.weight"


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """One node of a prompt."""
    return {"class_type": class_type, "inputs": inputs}


def stack_prompt(rows: Any, mode: str = "merge", **more_inputs: Any) -> Prompt:
    """Loads the demo model, merges a LoRA Stack into it and saves a weight."""
    inputs = {"rows": rows, "mode": mode, **more_inputs}
    return {
        "model": node("UNETLoader", unet_name=MODEL_FILE, weight_dtype="default"),
        "stack": node("VivaceLoraStack", model=["model", 0], **inputs),
        "weights": node("VivaceTestSaveWeights", model=["stack", 0], names=SOME_WEIGHT, rows=16),
    }


def loader_prompt(lora: Any, strength: Any) -> Prompt:
    """The same with a LoRA Loader."""
    prompt = stack_prompt([])
    inputs = {"lora": lora, "strength": strength, "mode": "merge"}
    prompt["stack"] = node("VivaceLoraLoader", model=["model", 0], **inputs)
    return prompt


def row(lora: str, strength: float = 1.0, on: bool = True) -> dict[str, Any]:
    """One row of a stack."""
    return {"on": on, "lora": lora, "strength": strength}


def free(client: ComfyClient, **flags: bool) -> None:
    """Have the server free what the flags of `POST /free` name, and wait for it."""
    client.post("/free", flags)
    # The server looks at the flags once it has run what it finds in the queue.
    client.run({"memory": node("VivaceTestMemory")})
