"""``vivace run WORKFLOW``: run a workflow on a server and fetch what it makes."""

from __future__ import annotations

from ..errors import OK
from ..settings import option
from ..spec import Argument, Command, Kind, Option, Values, files, folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..output import Output

PAIR = Kind("NODE.INPUT=VALUE", str)
COMMAND = Command(
    "The workflow is a JSON file as the editor saves it, one in API format, or a PNG that ComfyUI"
    " made, whose embedded workflow is run again. A node is named by its id, title or class; an"
    " input that only one node has needs no node. Values are read as the server says that the"
    " input is.\n\n"
    "Files that the workflow saves are downloaded, or its previews if it saves none. Ctrl-C cancels"
    " the prompt, and no other.",
    [Argument("workflow", files(".json", ".png", metavar="WORKFLOW"), "the workflow")],
    [
        Option("--set", PAIR, "set an input", repeat=True),
        Option(
            "--matrix",
            Kind("NODE.INPUT=A,B…", str),
            "run once for each value (a,b,c or 1..4), and for each combination of several",
            repeat=True,
        ),
        Option("--output", folder(), "where files go", short="-o", default="."),
        Option("--sheet", files(".png"), "the contact sheet of a matrix (else in the folder)"),
        Option("--previews", None, "download previews too"),
        Option("--prompt-only", None, "print the prompt in API format, and do not run it"),
        option("server"),
        option("timeout"),
    ],
    [
        ("vivace run image.png --set seed=7", "a picture again with another seed"),
        (
            "vivace run flow.json --matrix stack.rows.0.strength=0.4,0.8 --matrix seed=1..4",
            "eight pictures and a contact sheet",
        ),
    ],
)


def run(values: Values, out: Output) -> int:
    """Queue the workflow for each combination of values."""
    from pathlib import Path

    from ..series import SeriesPlan, lines_of, run_series
    from ..server.http import Server
    from ..workflow.assign import assign
    from ..workflow.matrix import combinations, read_axis, read_pair
    from ..workflow.read import read_prompt

    settings = [read_pair(text, "--set") for text in values.set]
    runs = list(combinations([read_axis(text) for text in values.matrix]))
    server = Server(values.server, values.timeout)
    prompt, embedded, remarks = read_prompt(values.workflow, server)
    for remark in remarks:
        out.note(remark)
    for target, text in settings:
        assign(prompt, target, text, server.object_info(), option="--set")
    if values.prompt_only:
        import json

        out.result(prompt, [json.dumps(prompt, indent=1)])
        return OK
    # A workflow that is not what ran would be a false record.
    embedded = {} if settings or values.matrix else embedded
    columns = len(read_axis(values.matrix[-1])[1]) if len(values.matrix) > 1 else 0
    sheet = values.sheet or Path(values.output) / f"{values.workflow.stem}-sheet.png"
    wanted = sheet if values.matrix or values.sheet else None
    plan = SeriesPlan(Path(values.output), wanted, columns, values.previews)
    result = run_series(server, out, prompt, runs, plan, embedded)
    out.result(result, lines_of(result))
    return OK
