"""The commands of `dev.py`; each returns an exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .checks import check_all
from .rig.browser_install import ensure_browser
from .rig.comfyui import ensure_comfyui
from .rig.environment import ensure_environment
from .rig.layout import NEWEST, OUT, ROOT, ComfyRelease, DevError, child_environment, release
from .rig.server import ComfyServer, has_gpu

BENCHES = ("cli", "lora", "svdquant", "vlm", "picker", "startup", "growth")
# For glibc: what a process has freed, it keeps for its next tensors, but for the largest. To get
# memory anew from the system, page by page, takes longer than to compute on it.
KEPT_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(256 * 2**20),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(512 * 2**20),
}

# Once more, and said in the summary: what Playwright broke off (its errors have these names), such
# as when the editor drew a page anew under the mouse on a busy machine. A failed assertion fails.
RERUNS = ("--reruns", "1", "--only-rerun", "^(Error|TimeoutError|TargetClosedError): ", "-raR")


def setup(arguments: Namespace, extra: list[str]) -> int:
    """Make the environment and ComfyUI, and say where they are."""
    chosen, python, comfyui = prepare(arguments, quiet=True)
    print(f"Python     {python}\nComfyUI    {comfyui} ({chosen.version})")
    return 0


def serve(arguments: Namespace, extra: list[str]) -> int:
    """Run ComfyUI with the pack until Ctrl+C."""
    _, python, comfyui = prepare(arguments)
    cpu = arguments.cpu or not has_gpu(python)
    server = ComfyServer(
        python, comfyui, OUT / "serve", port=arguments.port, cpu=cpu, arguments=extra, log=None
    )
    with server:
        server.wait_until_ready()
        print(f"\nComfyUI with Vivace: {server.url}  (Ctrl+C stops it)\n", flush=True)
        return server.wait()


def demo(arguments: Namespace, extra: list[str]) -> int:
    """Run the demo inside the environment."""
    _, python, comfyui = prepare(arguments)
    command = [str(python), "-m", "vivace.devkit.demo", "--comfyui", str(comfyui)]
    for name in ("model", "vae"):
        if getattr(arguments, name):
            command += [f"--{name}", str(_existing_file(getattr(arguments, name)))]
    for lora in arguments.lora or []:
        command += ["--lora", str(_existing_file(lora))]
    return subprocess.run(command, cwd=ROOT, env=child_environment(), check=False).returncode


def test(arguments: Namespace, extra: list[str]) -> int:
    """Lint, types and tests; of some, by `-k` or by their files, only the tests.

    Raises:
        DevError: there is no browser for those in the editor, and they were not to be left out.
    """
    chosen, python, comfyui = prepare(arguments)
    environment = child_environment()
    environment["VIVACE_COMFYUI"] = str(comfyui)
    environment |= KEPT_MEMORY
    pytest = [str(python), "-m", "pytest", "--basetemp", str(OUT / "pytest"), *RERUNS, *extra]
    if arguments.no_browser:
        pytest.append("--no-browser")
    else:
        environment["VIVACE_BROWSER"] = ensure_browser(python)
    if arguments.k:
        pytest += ["-k", arguments.k]
    else:
        # One for each core starts servers of its own, which take up to 9 GB while they train a
        # LoRA, and a browser; one more computes while they wait. See tests/scheduling.py.
        cores = min(os.cpu_count() or 1, 4)
        pytest += ["-n", str(cores + 1), "--dist", "loadfile", "--no-loadscope-reorder"]
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // cores)))
    OUT.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor() as beside:
        checks = None
        some = arguments.k or any((ROOT / word.partition("::")[0]).exists() for word in extra)
        if chosen is NEWEST and not some:  # types fit the newest ComfyUI only
            checks = beside.submit(check_all, python, environment)
        print("$", " ".join(["python", *pytest[1:]]), flush=True)
        status = subprocess.run(pytest, cwd=ROOT, env=environment, check=False).returncode
        return (checks.result() if checks else 0) or status


def pictures(arguments: Namespace, extra: list[str]) -> int:
    """Shoot nodes for their help pages, and examples for the template browser."""
    _, python, comfyui = prepare(arguments)
    ensure_browser(python)
    command = [str(python), "-m", "vivace.devkit.pictures", "--comfyui", str(comfyui)]
    command += arguments.names
    return subprocess.run(command, cwd=ROOT, env=child_environment(), check=False).returncode


def bench(arguments: Namespace, extra: list[str]) -> int:
    """Measure by the commands of `devkit/bench/`, and write `BENCHMARKS.md` from their results."""
    unknown = set(arguments.names) - set(BENCHES)
    if unknown:
        raise DevError(f"There is no {', '.join(sorted(unknown))}; choose of {', '.join(BENCHES)}.")
    _, python, comfyui = prepare(arguments)
    environment = child_environment() | {"VIVACE_COMFYUI": str(comfyui)}
    names = [] if arguments.page_only else arguments.names or BENCHES
    steps = [[f"vivace.devkit.bench.{name}", *extra] for name in names]
    for step in [*steps, ["vivace.devkit.bench.benchmarks"]]:
        command = [str(python), "-m", *step]
        status = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
        if status != 0:
            return status
    return 0


def gpu(arguments: Namespace, extra: list[str]) -> int:
    """Measure on the card by `devkit/gpu/`, or try that on the CPU; exit status 1 if it fails."""
    _, python, comfyui = prepare(arguments)
    device = "cuda" if not arguments.cpu and has_gpu(python, "cuda") else "cpu"
    command = [str(python), "-m", "vivace.devkit.gpu.command", "--comfyui", str(comfyui)]
    command += ["--device", device]
    if arguments.output:
        command += ["--output", str(Path(arguments.output).expanduser().resolve())]
    if arguments.only:
        command += ["--only", *arguments.only]
    return subprocess.run(command, cwd=ROOT, env=child_environment(), check=False).returncode


def fuzz(arguments: Namespace, extra: list[str]) -> int:
    """Fuzz by `devkit/fuzz/`; exit status 1 if anything broke. Ctrl+C lets it say what it found."""
    _, python, _ = prepare(arguments)
    command = [str(python), "-m", "vivace.devkit.fuzz", *arguments.targets]
    for name in ("seconds", "seed", "replay", "log"):
        if getattr(arguments, name) is not None:
            command += [f"--{name}", getattr(arguments, name)]
    process = subprocess.Popen(command, env=child_environment())
    try:
        return process.wait()
    except KeyboardInterrupt:
        return process.wait()


def matrix(arguments: Namespace, extra: list[str]) -> int:
    """Try the cells of the compatibility matrix; exit status 1 if one fails."""
    from .matrix import cells, page
    from .matrix.run import run

    chosen = cells.chosen(arguments.cell, arguments.all)
    if arguments.list:
        print("\n".join(cell.name for cell in chosen))
        return 0
    if arguments.page_only:
        page.write()
        return 0
    return run(chosen, arguments.keep)


def audit(arguments: Namespace, extra: list[str]) -> int:
    """Scan code and dependencies; exit status 1 if something is found, 3 if not all was seen."""
    from .audit.run import run

    return run()


def soak(arguments: Namespace, extra: list[str]) -> int:
    """Run a long sequence of prompts; exit status 1 when anything grows, fails or differs."""
    _, python, comfyui = prepare(arguments)
    command = [str(python), "-m", "vivace.devkit.soak", "--comfyui", str(comfyui)]
    command += ["--prompts", str(arguments.prompts), "--seed", str(arguments.seed)]
    if arguments.log:
        command += ["--log", str(Path(arguments.log).expanduser().resolve())]
    command += extra
    return subprocess.run(command, cwd=ROOT, env=child_environment(), check=False).returncode


def startup(arguments: Namespace, extra: list[str]) -> int:
    """Measure a pack's start-up; exit status 1 when a budget is broken."""
    _, python, comfyui = prepare(arguments, quiet=arguments.json)
    command = [str(python), "-m", "vivace", "startup", "--comfyui", str(comfyui)]
    command += ["--python", str(python), *(["--json"] if arguments.json else [])]
    if arguments.pack:
        command.append(str(Path(arguments.pack).expanduser().resolve()))
    return subprocess.run(command, env=child_environment(), check=False).returncode


def prepare(arguments: Namespace, quiet: bool = False) -> tuple[ComfyRelease, Path, Path]:
    """Make what the commands need: the release, the environment's Python and the ComfyUI folder."""
    chosen = release(arguments.comfyui)
    python = ensure_environment(chosen)
    comfyui = ensure_comfyui(chosen, python)
    if os.environ.get("COMFYUI_PATH") and not quiet:
        print(f"ComfyUI from COMFYUI_PATH: {comfyui}", file=sys.stderr)
    return chosen, python, comfyui


def _existing_file(name: str) -> Path:
    path = Path(name).expanduser().resolve()
    if not path.is_file():
        raise DevError(f"There is no file '{path}'.")
    return path
