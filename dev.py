#!/usr/bin/env python3
"""Development commands of ComfyUI-Vivace; any Python from 3.10 on runs them.

Everything they make lies under `.dev/`; delete that folder to start afresh.
"""

from __future__ import annotations

import argparse
import sys

if sys.version_info < (3, 10):
    sys.exit("dev.py needs Python 3.10 or newer; this is " + sys.version.split()[0])
sys.dont_write_bytecode = True

from devkit import commands
from devkit.rig.layout import NEWEST, RELEASES, DevError


def main() -> int:
    """Parse the command line, run the command, and return its exit status."""
    arguments, extra = _parser().parse_known_args()
    if extra and not arguments.takes_extra:
        _parser().error(f"unrecognized arguments: {' '.join(extra)}")
    try:
        return arguments.run(arguments, extra)
    except DevError as error:
        print(f"dev.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dev.py", description=__doc__)
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(
        name: str, help: str, takes_extra: bool = False, one_comfyui: bool = True
    ) -> argparse.ArgumentParser:
        sub = subparsers.add_parser(name, help=help, description=help)
        if one_comfyui:
            sub.add_argument(
                "--comfyui",
                metavar="VERSION",
                default=NEWEST.version,
                help=f"one of {', '.join(r.version for r in RELEASES)} (default: %(default)s)",
            )
        sub.set_defaults(run=getattr(commands, name), takes_extra=takes_extra)
        return sub

    command("setup", "make the private environment and fetch ComfyUI")

    serve = command("serve", "run ComfyUI with the pack; more options go to ComfyUI", True)
    serve.add_argument("--port", type=int, default=8188)
    serve.add_argument("--cpu", action="store_true", help="even if there is a GPU")

    demo = command("demo", "show the main job: LoRAs on a Qwen-Image in a real ComfyUI")
    demo.add_argument("--model", metavar="FILE", help="a real Qwen-Image or Z-Image model")
    demo.add_argument("--vae", metavar="FILE", help="the VAE of that model")
    demo.add_argument("--lora", metavar="FILE", action="append", help="a real LoRA (repeatable)")

    bench = command("bench", "measure, and write BENCHMARKS.md; more options go to each", True)
    bench.add_argument("names", nargs="*", metavar="NAME", help="what to measure (default: all)")
    bench.add_argument("--page-only", action="store_true", help="write the page from what is there")

    gpu = command("gpu", "prove on an NVIDIA card, in 8 minutes, what tests can only imitate")
    gpu.add_argument("--cpu", action="store_true", help="a dry run, even if there is a card")
    gpu.add_argument("--output", metavar="FOLDER", help="of the table (default: docs, on a card)")
    gpu.add_argument("--only", nargs="+", metavar="CLAIM", help="ids of the claims to measure")

    test = command(
        "test", "lint, types and tests, or the tests of some files; more options go to pytest", True
    )
    test.add_argument(
        "-k", metavar="EXPRESSION", help="only tests that match, without lint and types"
    )
    test.add_argument(
        "--no-browser", action="store_true", help="leave out the tests that need a browser"
    )

    fuzz = command("fuzz", "give made-up input to what reads files and replies, until Ctrl+C")
    fuzz.add_argument("targets", nargs="*", metavar="TARGET", help="kinds of input (default: all)")
    fuzz.add_argument("--seconds", help="for each target, instead of until Ctrl+C")
    fuzz.add_argument("--seed", help="of the changes")
    fuzz.add_argument("--replay", metavar="FILE", help="run one saved input again")
    fuzz.add_argument("--log", metavar="FILE", help="put the figures into a JSON file")

    pictures = command("pictures", "shoot the pictures of nodes and example workflows anew")
    pictures.add_argument(
        "names", nargs="*", help="ids of nodes, names of example workflows, at_work; none means all"
    )

    soak = command("soak", "many prompts on one server: is memory flat, are results equal?", True)
    soak.add_argument("--prompts", type=int, default=2000)
    soak.add_argument("--seed", type=int, default=1, help="of the sequence of prompts")
    soak.add_argument("--log", metavar="FILE", help="write JSON there, and a plot beside it")

    matrix = command(
        "matrix", "try every supported ComfyUI, Python and transformers", one_comfyui=False
    )
    matrix.add_argument("--cell", metavar="SUBSTRING", help="only those with this in their name")
    matrix.add_argument("--all", action="store_true", help="every combination, four times as many")
    matrix.add_argument("--list", action="store_true", help="print the names and try nothing")
    matrix.add_argument("--keep", action="store_true", help="leave the environments there")
    matrix.add_argument(
        "--page-only", action="store_true", help="write the page from what is there"
    )

    command(
        "audit", "known vulnerabilities, suspicious code, reasons for packages", one_comfyui=False
    )

    startup = command("startup", "measure what a node pack costs when ComfyUI starts")
    startup.add_argument("--pack", metavar="FOLDER", help="any custom node folder (default: ours)")
    startup.add_argument("--json", action="store_true", help="for machines")
    return parser


if __name__ == "__main__":
    sys.exit(main())
