"""The packs that the start-up of ours is compared with."""

from __future__ import annotations

from pathlib import Path

from vivace.devkit.bench import eager_packs
from vivace.devkit.rig.layout import ROOT

FILES = {
    "nodes/__init__.py": "",
    "nodes/image.py": (
        "from __future__ import annotations\n"
        "from typing import TYPE_CHECKING\n"
        "from ..engine import SIZE\n"
        "if TYPE_CHECKING:\n    import numpy\n"
        "def execute():\n    import torch.nn\n    from .. import extra\n    from . import image\n"
    ),
    "http_api/__init__.py": "",
    "engine/__init__.py": "SIZE = 1\ndef late():\n    from .deep.down import bottom\n",
    "engine/deep/__init__.py": "",
    "engine/deep/down.py": "import json as text\nfrom ...extra import more\n",
    "engine/unused.py": "import pandas\n",
    "extra.py": "try:\n    import nunchaku\nexcept ImportError:\n    pass\n",
}


def test_imports_are_found_wherever_they_stand(tmp_path: Path) -> None:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert set(eager_packs.all_imports(tmp_path)) == {
        "from typing import TYPE_CHECKING",
        "from .engine import SIZE",
        "import torch.nn",
        "from . import extra",
        "from .nodes import image",
        "from .engine.deep.down import bottom",
        "import json as text",
        "from .extra import more",
        "import nunchaku",
    }


def test_the_copies_have_all_nodes(tmp_path: Path) -> None:
    pack = eager_packs.every_import(tmp_path / "pack")
    modules = [{path.name for path in root.glob("nodes/*.py")} for root in (pack, ROOT)]
    assert modules[0] == modules[1]
    statements = (pack / "all_imports.py").read_text(encoding="utf-8")
    for wanted in ("import torch\n", "import transformers\n", "from .lora.loader import"):
        assert f"    {wanted}" in statements
    compile(statements, "all_imports.py", "exec")
    assert not (pack / ".dev").exists()
    assert not (pack / "tests").exists()
