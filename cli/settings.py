"""What can be set in the configuration file, by environment variables, or by options."""

from __future__ import annotations

from .spec import TEXT, WHEN, Kind, Option, folder, integer


class Setting:
    """A value that several commands share.

    Attributes:
        name: in the configuration file; the environment variable is ``VIVACE_`` and the name in
            capital letters.
    """

    def __init__(
        self,
        name: str,
        kind: Kind,
        default: object,
        help: str,
        choices: tuple[str, ...] | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.default = default
        self.help = help
        self.choices = choices

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"VIVACE_{self.name.upper()}"


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("server", TEXT, "http://127.0.0.1:8188", "address of the ComfyUI server"),
        Setting("timeout", integer(1, 86_400), 30, "seconds to wait for an answer of the server"),
        Setting("comfyui", folder(), None, "ComfyUI's folder, which has main.py"),
        Setting("python", Kind("FILE", str), None, "the Python that runs ComfyUI"),
        Setting("models", folder(), None, "ComfyUI's models folder (else that of its folder)"),
        Setting("color", TEXT, "auto", "colours and tables on a terminal", WHEN),
    )
}


def option(name: str) -> Option:
    """The option of a command that goes before a setting."""
    setting = SETTINGS[name]
    return Option(f"--{name}", setting.kind, setting.help, choices=setting.choices, setting=name)
