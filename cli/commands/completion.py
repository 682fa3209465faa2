"""``vivace completion SHELL``: a script for a shell, which asks `vivace __complete` for words."""

from __future__ import annotations

from ..errors import OK
from ..spec import TEXT, Argument, Command, Values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..output import Output

SHELLS = ("bash", "zsh", "fish", "powershell")
COMMAND = Command(
    "Commands, options, choices and names of files are completed, always as this version knows"
    " them: the script asks the program.",
    [Argument("shell", TEXT, "the shell that you use", choices=SHELLS)],
    examples=[
        ('eval "$(vivace completion bash)"', "in ~/.bashrc"),
        ('eval "$(vivace completion zsh)"', "in ~/.zshrc, after compinit"),
        ("vivace completion fish | source", "in ~/.config/fish/config.fish"),
        (
            "vivace completion powershell | Out-String | Invoke-Expression",
            "in the file that $PROFILE names",
        ),
    ],
)


def run(values: Values, out: Output) -> int:
    """Print the script."""
    from ..shells import SCRIPTS

    script = SCRIPTS[values.shell]
    out.result({"shell": values.shell, "script": script}, [script.rstrip("\n")])
    return OK
