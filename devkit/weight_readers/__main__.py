"""``python -m vivace.devkit.weight_readers [COMFYUI]``: its places, and what is wrong with them."""

from __future__ import annotations

import sys
from pathlib import Path

from ..rig.layout import DEV, NEWEST
from .known import problems
from .scan import installed_kitchen, scan


def main(arguments: list[str]) -> int:
    """Print the places of a ComfyUI, and then those that nobody has looked at."""
    comfyui = Path(arguments[0]) if arguments else DEV / f"comfyui-{NEWEST.version}"
    readers = scan(comfyui, installed_kitchen())
    for reader in readers:
        print(f"{reader.file}:{reader.line}: {reader.where}: {reader.what}")
    wrong = problems(readers, comfyui)
    for problem in wrong:
        print(problem, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
