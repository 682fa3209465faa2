"""`python3 dev.py demo` runs this inside the environment."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from ..doubles.demo_models import BLOCK, LORAS, MODEL_FILE, VAE_FILE, ensure_models
from ..rig.client import ComfyClient, PromptFailedError, PromptRejectedError
from ..rig.layout import MODELS, OUT, DevError
from ..rig.server import ComfyServer
from .checks import Check, Result, close, different, equal, weights_are_exact
from .follow import run_with_progress
from .sheet import write_contact_sheet
from .workflow import Run, build

WORK = OUT / "demo"
TEXT_WIDTHS = {"QwenImage": 3584, "Lumina2": 2560}


class Demo:
    """One server, and the runs made on it."""

    def __init__(
        self, client: ComfyClient, model: str, vae: str | None, weights: list[str]
    ) -> None:
        self.client = client
        self.model = model
        self.vae = vae
        self.weights = weights
        self.results: dict[str, Result] = {}

    def run(self, run: Run, fresh: bool = False) -> Result:
        """Run one prompt; `fresh` makes ComfyUI forget models and cached outputs first."""
        if fresh:
            self._forget()
        prompt = build(run, self.model, self.vae, self._text_width(), self.weights)
        started = time.perf_counter()
        outputs = run_with_progress(self.client, prompt, run.label)
        seconds = time.perf_counter() - started
        result = self.collect(outputs, seconds)
        self.results[run.label] = result
        print(f"  {run.label:<34} {seconds:7.2f}   {result.matched}", flush=True)
        return result

    def _text_width(self) -> int:
        return TEXT_WIDTHS["Lumina2" if "z-image" in self.model.lower() else "QwenImage"]

    def _forget(self) -> None:
        self.client.post("/free", {"unload_models": True, "free_memory": True})
        time.sleep(1.0)  # the server frees when its worker next wakes up

    def collect(self, outputs: dict[str, Any], seconds: float) -> Result:
        """Fetch what a prompt has left behind."""
        from safetensors.torch import load

        latent = load(self.client.fetch(outputs["latent_file"]["latents"][0]))["latent_tensor"]
        saved = outputs["weights"]
        weights = load(self.client.fetch(saved["files"][0])) if saved["files"] else {}
        image = self.client.fetch(outputs["image"]["images"][0]) if "image" in outputs else None
        matched = modules_matched(outputs["report"]["text"][0])
        return Result(latent.float(), weights, seconds, matched, image)


def modules_matched(report: str) -> str:
    """The sum of the "n of m" cells of the report's table."""
    cells = re.findall(r"\| (\d+) of (\d+) \|", report)
    matched, total = (sum(int(cell[i]) for cell in cells) for i in (0, 1))
    return f"{matched} of {total}" if cells else "-"


def run_demo_models(demo: Demo) -> list[Check]:
    """The generated LoRAs, with every claim checked."""
    peft, kohya = LORAS

    def rows(peft_strength: float | None, kohya_strength: float | None) -> list[dict[str, Any]]:
        pairs = ((peft, peft_strength), (kohya, kohya_strength))
        return [{"on": True, "lora": d.filename, "strength": s} for d, s in pairs if s is not None]

    base = demo.run(Run("no LoRA"))
    again = demo.run(Run("no LoRA, fresh"), fresh=True)
    first = demo.run(Run("peft 1.0", rows(1.0, None), "merge"))
    second = demo.run(Run("kohya 1.0", rows(None, 1.0), "merge"))
    both = demo.run(Run("peft 1.0 + kohya 0.8", rows(1.0, 0.8), "merge"))
    beside = demo.run(Run("the same, not merged", rows(1.0, 0.8)))
    changed = demo.run(Run("peft 0.5 + kohya -0.8", rows(0.5, -0.8), "merge"))
    zero = demo.run(Run("peft 0 + kohya 0", rows(0.0, 0.0)))
    after = demo.run(Run("no LoRA, afterwards"), fresh=False)
    return [
        equal("the same seed twice gives the same latent", base, again),
        different("the first LoRA changes the latent", base, first),
        different("the second LoRA changes the latent", base, second),
        different("a changed strength changes the latent", both, changed),
        close("beside the layers they do what they do merged", both, beside),
        equal("strength 0 is bit-equal to no LoRA", base, zero),
        equal("the model is bit-equal after the LoRAs are gone", base, after),
        weights_are_exact("weights are exact (one LoRA, no alpha)", base, first, [(peft, 1.0)]),
        weights_are_exact(
            "weights are exact (two LoRAs, alpha below rank)",
            base,
            both,
            [(peft, 1.0), (kohya, 0.8)],
        ),
        weights_are_exact(
            "weights are exact (changed strengths)", base, changed, [(peft, 0.5), (kohya, -0.8)]
        ),
    ]


def run_real_models(demo: Demo, loras: list[Path]) -> list[Check]:
    """Files of the user's own: they must have an effect, and leave none behind."""
    rows = [{"on": True, "lora": lora.name, "strength": 1.0} for lora in loras]
    base = demo.run(Run("no LoRA"))
    applied = demo.run(Run("LoRA 1.0", rows))
    half = demo.run(Run("LoRA 0.5", [{**row, "strength": 0.5} for row in rows]))
    zero = demo.run(Run("LoRA 0", [{**row, "strength": 0.0} for row in rows]))
    return [
        different("the LoRA changes the latent", base, applied),
        different("a changed strength changes the latent", applied, half),
        equal("strength 0 is bit-equal to no LoRA", base, zero),
    ]


def main() -> int:
    """Make models, start the server, run, check, report."""
    arguments = _arguments()
    real = arguments.model is not None or bool(arguments.lora)
    ensure_models(MODELS, arguments.comfyui)
    shutil.rmtree(WORK, ignore_errors=True)
    folders: dict[str, list[Path]] = {
        "diffusion_models": [arguments.model.parent] if arguments.model else [],
        "vae": [arguments.vae.parent] if arguments.vae else [],
        "loras": [lora.parent for lora in arguments.lora],
    }
    model = arguments.model.name if arguments.model else MODEL_FILE
    # A VAE for a real model must be given: a random one would only make noise of its latents.
    vae = arguments.vae.name if arguments.vae else (None if arguments.model else VAE_FILE)
    weights = (
        [] if real else sorted({f"{BLOCK}.{m}.weight" for lora in LORAS for m in lora.modules})
    )
    server = ComfyServer(
        Path(sys.executable),
        arguments.comfyui,
        WORK,
        cpu=not (real and _gpu()),
        # With dynamic VRAM, patched weights exist only while a layer runs; the checks read them.
        arguments=["--disable-dynamic-vram"],
        test_nodes=True,
        model_dirs=folders,
        log=WORK / "server.log",
    )
    print(f"Starting ComfyUI from {arguments.comfyui} ...", flush=True)
    with server:
        server.wait_until_ready()
        print(f"  {'run':<34} seconds   LoRA modules matched")
        demo = Demo(ComfyClient(server.url), model, vae, weights)
        try:
            checks = run_real_models(demo, arguments.lora) if real else run_demo_models(demo)
        except (PromptRejectedError, PromptFailedError) as error:
            raise DevError(
                f"The prompt failed: {error}\nThe server's log is {server.log}"
            ) from error
    return _report(demo, checks)


def _report(demo: Demo, checks: list[Check]) -> int:
    pictures = [(label, r.image) for label, r in demo.results.items() if r.image is not None]
    sheet = WORK / "contact-sheet.png"
    if pictures:
        write_contact_sheet(sheet, pictures)
    print()
    for check in checks:
        figures = f" ({check.figures})" if check.figures else ""
        print(f"  {'ok  ' if check.held else 'FAIL'} {check.claim}{figures}")
    failed = sum(not check.held for check in checks)
    print(f"\n{len(checks) - failed} of {len(checks)} checks held.")
    if pictures:
        print(f"Contact sheet: {sheet}")
    print("To open the editor: python3 dev.py serve")
    return 1 if failed else 0


def _gpu() -> bool:
    import torch

    return torch.accelerator.is_available()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev.py demo", description=__doc__)
    parser.add_argument("--comfyui", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--vae", type=Path)
    parser.add_argument("--lora", type=Path, action="append", default=[])
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DevError as problem:
        sys.exit(f"dev.py: {problem}")
