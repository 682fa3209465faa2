"""``vivace config show``: the settings and their sources."""

from __future__ import annotations

from ..errors import OK
from ..settings import SETTINGS, option
from ..spec import Command, Values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..output import Output

COMMAND = Command(
    "An option goes before an environment variable, which goes before the file. The file is"
    " --config, or the variable VIVACE_CONFIG, or config.yaml in the folder 'vivace' of your"
    " configuration folder. It is YAML, with a line such as 'server: http://127.0.0.1:8188' for"
    " each setting.",
    options=[option(name) for name in SETTINGS if name != "color"],
    examples=[("VIVACE_SERVER=http://gpu:8188 vivace config show", "where the address comes from")],
)


def run(values: Values, out: Output) -> int:
    """Print every setting, its value and its source."""
    from ..config import read_file
    from ..output import Table

    path, _ = read_file(values.config)
    shown = {
        name: {
            "value": found.value if isinstance(found.value, int | str | None) else str(found.value),
            "source": found.source,
            "variable": SETTINGS[name].variable,
            "help": SETTINGS[name].help,
        }
        for name, found in values.settings.items()
    }
    rows = [
        (name, "" if one["value"] is None else str(one["value"]), one["source"], one["help"])
        for name, one in shown.items()
    ]
    table = Table(("setting", "value", "from", "what it is"), rows)
    out.result({"file": path, "settings": shown}, [table, f"file: {path}"])
    return OK
