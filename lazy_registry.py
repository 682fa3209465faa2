"""The table of nodes, and the stub classes through which ComfyUI sees them.

A stub is a small V3 node class made from one row of the table. ComfyUI lists it at start-up without
asking for its schema, so the module of the real node is imported when somebody first needs it: the
editor for `/object_info`, or the server to validate or run a prompt. The three stages and what each
may import are held by `tests/server/test_startup.py`.

A module that cannot be imported takes only its own nodes down: they stay in the editor, say what is
missing and how to get it, and raise that when run.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import sys
import threading
from dataclasses import dataclass
from typing import Any

from comfy_api.latest import io

from .http_api import extend_server

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NodeRow:
    """One node, as pure data; `tests/pack/test_registry.py` compares it with the real class.

    The optional hooks are named here because ComfyUI asks the stub, before the node's module is
    imported, whether a node has them; for `validate_inputs` it also reads the parameter names.
    """

    node_id: str
    display_name: str
    module: str
    """Module below `nodes/` that defines the class."""
    class_name: str
    outputs: tuple[str, ...]
    """Output types, so that links survive while the module cannot be imported."""
    validates: tuple[str, ...] = ()
    """Parameters of `validate_inputs`; empty when the node has none."""
    fingerprints: bool = False
    """Whether the node has `fingerprint_inputs`."""
    lazy: bool = False
    """Whether the node has `check_lazy_status`."""
    is_async: bool = False
    """Whether `execute` is a coroutine function."""


NODE_TABLE: tuple[NodeRow, ...] = (
    NodeRow(
        node_id="VivaceLoraStack",
        display_name="LoRA Stack",
        module="lora",
        class_name="LoraStack",
        outputs=("MODEL", "STRING", "LORA_STACK", "STRING", "STRING", "CLIP"),
        validates=("rows", "text"),
        fingerprints=True,
    ),
    NodeRow(
        node_id="VivaceLoraLoader",
        display_name="LoRA Loader",
        module="lora",
        class_name="LoraLoader",
        outputs=("MODEL", "STRING"),
        validates=("lora",),
        fingerprints=True,
    ),
    NodeRow(
        node_id="VivaceLoraInspect",
        display_name="LoRA Inspect",
        module="lora",
        class_name="LoraInspect",
        outputs=("STRING",),
        validates=("lora",),
        fingerprints=True,
    ),
    NodeRow(
        node_id="VivaceLoadSvdquantModel",
        display_name="Load SVDQuant Model",
        module="svdquant",
        class_name="LoadSvdquantModel",
        outputs=("MODEL",),
        validates=("model_name",),
        fingerprints=True,
    ),
    NodeRow(
        node_id="VivaceQwenVL",
        display_name="QwenVL",
        module="qwenvl",
        class_name="QwenVL",
        outputs=("STRING", "STRING", "STRING"),
    ),
    NodeRow(
        node_id="VivaceGenerateMusic",
        display_name="Generate Music",
        module="generate_music",
        class_name="GenerateMusic",
        outputs=("AUDIO", "STRING"),
    ),
    NodeRow(
        node_id="VivaceQwenVLBatch",
        display_name="QwenVL Batch",
        module="qwenvl_batch",
        class_name="QwenVLBatch",
        outputs=("STRING", "STRING"),
        fingerprints=True,
    ),
    NodeRow(
        node_id="VivaceQwenVLCache",
        display_name="QwenVL Cache",
        module="qwenvl_cache",
        class_name="QwenVLCache",
        outputs=("STRING",),
        fingerprints=True,
    ),
    NodeRow(
        node_id="VivaceGenerateText",
        display_name="Generate Text",
        module="generate_text",
        class_name="GenerateText",
        outputs=("STRING", "STRING", "VIVACE_CHAT", "STRING", "STRING", "STRING"),
    ),
    NodeRow(
        node_id="VivaceQwenVLDownload",
        display_name="QwenVL Download",
        module="qwenvl_download",
        class_name="QwenVLDownload",
        outputs=("STRING",),
    ),
    NodeRow(
        node_id="VivacePromptManager",
        display_name="Prompt Manager",
        module="prompt_manager",
        class_name="PromptManager",
        outputs=("STRING", "STRING", "STRING", "INT"),
        validates=("prompt", "positive", "negative", "variables"),
        fingerprints=True,
    ),
    NodeRow(
        node_id="VivaceApiKey",
        display_name="API Key",
        module="api_key",
        class_name="ApiKey",
        outputs=("VIVACE_API_KEY",),
        validates=("source", "key_name"),
    ),
    NodeRow(
        node_id="VivaceBlankImage",
        display_name="Blank Image",
        module="image",
        class_name="BlankImage",
        outputs=("IMAGE", "MASK"),
        validates=("color", "pattern"),
    ),
    NodeRow(
        node_id="VivaceImageIsEmpty",
        display_name="Image Is Empty?",
        module="image",
        class_name="ImageIsEmpty",
        outputs=("BOOLEAN", "BOOLEAN", "STRING"),
    ),
    NodeRow(
        node_id="VivacePreviewIf",
        display_name="Preview If",
        module="preview_if",
        class_name="PreviewIf",
        outputs=("IMAGE",),
        lazy=True,
    ),
    NodeRow(
        node_id="VivacePreviewOutputs",
        display_name="Preview Outputs",
        module="preview_outputs",
        class_name="PreviewOutputs",
        outputs=("STRING",),
    ),
    NodeRow(
        node_id="VivaceResampleAudio",
        display_name="Resample Audio",
        module="resample_audio",
        class_name="ResampleAudio",
        outputs=("AUDIO",),
    ),
)


class NodeUnavailableError(RuntimeError):
    """The module of a node could not be imported; the message says why and what to do."""


class NodeLoader:
    """Imports the real class of one row on first use, once, whichever thread asks first."""

    def __init__(self, row: NodeRow) -> None:
        self.row = row
        self._lock = threading.Lock()
        self._real: type[io.ComfyNode] | None = None
        self._error: NodeUnavailableError | None = None

    def real(self) -> type[io.ComfyNode]:
        """The real node class.

        Raises:
            NodeUnavailableError: the import failed, now or the first time; its `__cause__` is the
                original exception with its traceback.
        """
        with self._lock:
            if self._real is None and self._error is None:
                self._import()
        if self._real is None:
            assert self._error is not None  # noqa: S101 - one of the two is set by _import
            raise NodeUnavailableError(str(self._error)) from self._error.__cause__
        return self._real

    def schema(self) -> io.Schema:
        """The node's schema, or a stand-in that says why there is none."""
        try:
            return self.real().define_schema()
        except NodeUnavailableError as error:
            return _stand_in_schema(self.row, str(error))

    def _import(self) -> None:
        try:
            module = importlib.import_module(f".nodes.{self.row.module}", __package__)
            self._real = getattr(module, self.row.class_name)
        except Exception as error:  # a module may raise anything while it is imported
            self._error = NodeUnavailableError(explain(self.row, error))
            self._error.__cause__ = error
            log.exception("Vivace: %s", self._error)


def build_stub(row: NodeRow) -> type[io.ComfyNode]:
    """A V3 node class for one row that delegates to the real class.

    The class that ComfyUI hands in is passed on, because it carries `hidden`. Optional hooks exist
    on the stub only where the real node has them: ComfyUI tests for an override, not for a result.
    """
    loader = NodeLoader(row)

    def define_schema(cls: type[io.ComfyNode]) -> io.Schema:
        return loader.schema()

    def execute(cls: type[io.ComfyNode], **inputs: Any) -> io.NodeOutput:
        return _function(loader.real(), "execute")(cls, **inputs)

    async def execute_async(cls: type[io.ComfyNode], **inputs: Any) -> io.NodeOutput:
        return await _function(loader.real(), "execute")(cls, **inputs)

    members: dict[str, Any] = {
        "__doc__": f"{row.display_name} (defined in nodes/{row.module}.py)",
        "__module__": __name__,
        "define_schema": classmethod(define_schema),
        "execute": classmethod(execute_async if row.is_async else execute),
    }
    if row.validates:
        members["validate_inputs"] = classmethod(_validator(loader))
    if row.fingerprints:
        members["fingerprint_inputs"] = classmethod(_hook(loader, "fingerprint_inputs"))
    if row.lazy:
        members["check_lazy_status"] = classmethod(_hook(loader, "check_lazy_status"))
    return type(row.class_name, (io.ComfyNode,), members)


def register() -> dict[str, dict[str, Any]]:
    """What ComfyUI reads from a node pack: stub classes and display names, by node id."""
    node_ids = frozenset(row.node_id for row in NODE_TABLE)
    extend_server(node_ids)
    return {
        "NODE_CLASS_MAPPINGS": {row.node_id: build_stub(row) for row in NODE_TABLE},
        "NODE_DISPLAY_NAME_MAPPINGS": {row.node_id: row.display_name for row in NODE_TABLE},
    }


def _hook(loader: NodeLoader, name: str) -> Any:
    def hook(cls: type[io.ComfyNode], **inputs: Any) -> Any:
        return _function(loader.real(), name)(cls, **inputs)

    hook.__name__ = name
    return hook


def _validator(loader: NodeLoader) -> Any:
    def validate_inputs(cls: type[io.ComfyNode], **inputs: Any) -> bool | str:
        try:
            real = loader.real()
        except NodeUnavailableError as error:
            return str(error)
        return _function(real, "validate_inputs")(cls, **inputs)

    # ComfyUI reads the parameter names to know which inputs the node checks itself.
    parameters = [inspect.Parameter("cls", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    parameters += [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None)
        for name in loader.row.validates
    ]
    validate_inputs.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    return validate_inputs


def _function(real: type[io.ComfyNode], name: str) -> Any:
    """The plain function behind a class method, to be called with ComfyUI's own class."""
    return getattr(real, name).__func__


def _stand_in_schema(row: NodeRow, problem: str) -> io.Schema:
    return io.Schema(
        node_id=row.node_id,
        display_name=row.display_name,
        category="Vivace",
        description=problem,
        outputs=[io.Custom(io_type).Output() for io_type in row.outputs],
        # A saved workflow's inputs are unknown now; they must not turn into other errors.
        accept_all_inputs=True,
    )


def explain(row: NodeRow, error: Exception) -> str:
    """Return why a node is unavailable, and the remedy."""
    problem = (
        f"The Vivace node '{row.display_name}' is unavailable: importing nodes/{row.module}.py"
        f" failed with {type(error).__name__}: {error}."
    )
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing and not missing.startswith(str(__package__)):
        return (
            f"{problem} Install the missing package into the Python that runs ComfyUI"
            f" ({sys.executable} -m pip install {missing.partition('.')[0]}) and restart ComfyUI."
        )
    return (
        f"{problem} Reinstall or update ComfyUI-Vivace and restart ComfyUI; if it stays, report it"
        " with the traceback from ComfyUI's log."
    )
