"""The stubs: they are what the real nodes are, and survive what the real nodes do not."""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module")
def registry(comfyui: ModuleType) -> ModuleType:
    import vivace.lazy_registry

    return vivace.lazy_registry


def row(registry: ModuleType, **changes: Any) -> Any:
    defaults = {
        "node_id": "VivaceProbe",
        "display_name": "Probe",
        "module": "image",
        "class_name": "BlankImage",
        "outputs": ("IMAGE", "MASK"),
    }
    return registry.NodeRow(**{**defaults, **changes})


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "node_id" in metafunc.fixturenames:
        import ast
        from pathlib import Path

        # Read, not imported: the table must be pure data, and ComfyUI is not there yet.
        import vivace

        tree = ast.parse((Path(vivace.__file__ or "").parent / "lazy_registry.py").read_text())
        rows = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and n.keywords]
        ids = [
            ast.literal_eval(k.value)
            for n in rows
            for k in n.keywords
            if k.arg == "node_id"
            if isinstance(k.value, ast.Constant)
        ]
        metafunc.parametrize("node_id", ids)


def pair(registry: ModuleType, node_id: str) -> tuple[Any, Any, Any]:
    found = next(r for r in registry.NODE_TABLE if r.node_id == node_id)
    return found, registry.build_stub(found), registry.NodeLoader(found).real()


def test_stub_and_real_node_have_the_same_hooks(registry: ModuleType, node_id: str) -> None:
    from comfy_api.internal import first_real_override

    _, stub, real = pair(registry, node_id)
    for hook in ("validate_inputs", "fingerprint_inputs", "check_lazy_status"):
        has = first_real_override(real, hook) is not None
        assert (first_real_override(stub, hook) is not None) == has, hook
    assert inspect.iscoroutinefunction(stub.execute) == inspect.iscoroutinefunction(real.execute)


def test_stub_validates_the_same_inputs(registry: ModuleType, node_id: str) -> None:
    found, stub, real = pair(registry, node_id)
    if found.validates:
        stub_spec = inspect.getfullargspec(stub.validate_inputs)
        real_spec = inspect.getfullargspec(real.validate_inputs)
        assert stub_spec.args == real_spec.args
        assert stub_spec.varkw == real_spec.varkw


def test_row_says_what_the_schema_says(registry: ModuleType, node_id: str) -> None:
    found, stub, real = pair(registry, node_id)
    schema = real.GET_SCHEMA()
    assert schema.node_id == found.node_id
    assert schema.display_name == found.display_name
    assert tuple(output.get_io_type() for output in schema.outputs) == found.outputs
    assert schema.category.startswith("Vivace")
    assert schema.description
    assert stub.GET_NODE_INFO_V1() == {**real.GET_NODE_INFO_V1()}


def test_real_nodes_define_hooks_only(registry: ModuleType, node_id: str) -> None:
    """`execute` gets ComfyUI's class, which has no helpers of the real one."""
    _, _, real = pair(registry, node_id)
    hooks = {
        "define_schema",
        "execute",
        "validate_inputs",
        "fingerprint_inputs",
        "check_lazy_status",
    }
    own = {name for name, value in vars(real).items() if isinstance(value, classmethod)}
    assert own <= hooks


def test_execute_gets_the_class_that_comfyui_hands_in(
    registry: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from comfy_api.latest import io

    class Real(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            return io.Schema(node_id="VivaceProbe")

        @classmethod
        def execute(cls, **inputs: Any) -> io.NodeOutput:
            return io.NodeOutput(cls, inputs)

    monkeypatch.setattr(registry.NodeLoader, "real", lambda self: Real)
    stub = registry.build_stub(row(registry))
    clone = stub.PREPARE_CLASS_CLONE(None)
    seen, inputs = clone.execute(a=1).args
    assert seen is clone
    assert inputs == {"a": 1}


def test_async_execute_stays_async(registry: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from comfy_api.latest import io

    class Real(io.ComfyNode):
        @classmethod
        async def execute(cls, **inputs: Any) -> io.NodeOutput:
            await asyncio.sleep(0)
            return io.NodeOutput("done")

    monkeypatch.setattr(registry.NodeLoader, "real", lambda self: Real)
    stub = registry.build_stub(row(registry, is_async=True))
    assert stub.FUNCTION == "EXECUTE_NORMALIZED_ASYNC"
    assert asyncio.run(stub.execute()).args == ("done",)


@pytest.fixture
def slow_module(registry: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Makes importing any node module slow and counts the imports."""
    imports: list[str] = []
    gate = threading.Event()

    def import_module(name: str, package: str) -> Any:
        imports.append(name)
        gate.wait(0.2)
        return ModuleType("slow")

    monkeypatch.setattr(registry.importlib, "import_module", import_module)
    return imports


def test_many_threads_import_a_module_once(registry: ModuleType, slow_module: list[str]) -> None:
    # Every module has a __name__: it stands in for the node class.
    loader = registry.NodeLoader(row(registry, class_name="__name__"))
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(loader.real())) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["slow"] * 16
    assert slow_module == [".nodes.image"]


def broken(registry: ModuleType, monkeypatch: pytest.MonkeyPatch, error: Exception) -> Any:
    def import_module(name: str, package: str) -> Any:
        raise error

    monkeypatch.setattr(registry.importlib, "import_module", import_module)
    return registry.build_stub(row(registry, validates=("color",)))


def test_a_missing_package_is_named_with_the_way_to_get_it(
    registry: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = ModuleNotFoundError("No module named 'frobnicate'", name="frobnicate.core")
    stub = broken(registry, monkeypatch, error)
    info = stub.GET_NODE_INFO_V1()
    assert info["display_name"] == "Probe"
    assert info["output"] == ["IMAGE", "MASK"]
    assert "No module named 'frobnicate'" in info["description"]
    assert f"{sys.executable} -m pip install frobnicate)" in info["description"]
    with pytest.raises(registry.NodeUnavailableError, match="pip install frobnicate"):
        stub.execute(color="red")
    assert "pip install frobnicate" in stub.validate_inputs(color="red")


def test_the_real_traceback_is_kept_and_the_import_not_tried_again(
    registry: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    error = ZeroDivisionError("while importing")
    stub = broken(registry, monkeypatch, error)
    with pytest.raises(registry.NodeUnavailableError) as first:
        stub.execute()
    with pytest.raises(registry.NodeUnavailableError) as second:
        stub.execute()
    assert first.value.__cause__ is error
    assert second.value.__cause__ is error
    assert first.value is not second.value
    logged = [record for record in caplog.records if record.exc_info]
    assert len(logged) == 1
    assert logged[0].exc_info is not None
    assert logged[0].exc_info[1] is error


def test_a_module_without_the_class_is_explained(registry: ModuleType) -> None:
    stub = registry.build_stub(row(registry, class_name="NoSuchNode"))
    assert "NoSuchNode" in stub.GET_NODE_INFO_V1()["description"]


def test_importing_the_package_alone_needs_no_comfyui() -> None:
    import subprocess

    code = (
        "import sys, vivace; ours = [m for m in sys.modules if m.startswith('vivace')];"
        "assert ours == ['vivace'], ours; assert 'comfy_api' not in sys.modules;"
        "assert vivace.WEB_DIRECTORY == './web'; print('fine')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "fine\n"


def test_unknown_attributes_of_the_package_are_errors() -> None:
    import vivace

    with pytest.raises(AttributeError, match="NODE_CLASSES"):
        _ = vivace.NODE_CLASSES
