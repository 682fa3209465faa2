"""What a prompt made, in short: equal digests are equal bits."""

from __future__ import annotations

from hashlib import sha256
from io import BytesIO
from typing import Any

from ..rig.client import ComfyClient

Digest = dict[str, str]


def digest(client: ComfyClient, outputs: dict[str, Any]) -> Digest:
    """The hash of a latent's values and of an image's pixels, and a caption as it is, by node."""
    from PIL import Image
    from safetensors.torch import load

    found: Digest = {}
    for name, shown in outputs.items():
        # Not of the files: those tell the prompt, too.
        for item in shown.get("latents", ()):
            values = load(client.fetch(item))["latent_tensor"].numpy()
            found[name] = f"{values.shape} {sha256(values.tobytes()).hexdigest()}"
        for item in shown.get("images", ()):
            with Image.open(BytesIO(client.fetch(item))) as image:
                found[name] = f"{image.size} {sha256(image.tobytes()).hexdigest()}"
        if name == "ask":
            found[name] = shown["text"][0]
    return found
