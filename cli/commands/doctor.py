"""``vivace doctor``: whether everything is there and fits together."""

from __future__ import annotations

from ..errors import FAILED, OK
from ..settings import option
from ..spec import Command, Option, Values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..output import Output

COMMAND = Command(
    "Looks at the versions in the Python that runs ComfyUI, the model folders, the other custom"
    " nodes and the server, and says of everything that is wrong what to do. Changes nothing.\n\n"
    "Without --comfyui it is the ComfyUI that this pack lies in. A server that does not answer"
    " counts as broken only if its address was set; the GPU is asked of the server, or of torch"
    " with --gpu.\n\n"
    "In JSON: 'vivace', 'comfyui', 'folder', 'python', 'packages', 'gpu', 'models', 'packs',"
    " 'server', 'findings' (level, topic, problem, remedy) and 'broken'.",
    options=[
        option("comfyui"),
        option("python"),
        option("models"),
        Option("--gpu", None, "start torch to see the GPU and to try torchvision"),
        option("server"),
        option("timeout"),
    ],
    examples=[
        ("vivace doctor --comfyui ~/ComfyUI", "look at an installation"),
        ("vivace doctor --gpu --json", "everything, for a bug report"),
    ],
    status="something is broken.",
)


def run(values: Values, out: Output) -> int:
    """Examine the installation."""
    from ..doctor.examine import examine
    from ..doctor.finding import BROKEN
    from ..doctor.text import as_text
    from ..server.http import Server

    data, findings = examine(
        comfyui=values.comfyui,
        python=values.python,
        models=values.models,
        server=Server(values.server, values.timeout),
        server_expected=values.settings["server"].source != "default",
        ask_torch=values.gpu,
    )
    broken = any(one.level == BROKEN for one in findings)
    data |= {"findings": [vars(one) for one in findings], "broken": broken}
    out.result(data, as_text(data, findings))
    return FAILED if broken else OK
