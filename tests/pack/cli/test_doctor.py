"""`vivace doctor` on installations that are broken in one way each."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from support.cli_command import Done, vivace_command
from support.made_up_comfyui import (
    GOOD,
    add_pack,
    install,
    make_comfyui,
    make_environment,
    site_packages,
)
from vivace.cli.doctor.installation import OLDEST_COMFYUI, Installation
from vivace.cli.doctor.version_numbers import at_least, fulfils, requirements
from vivace.cli.doctor.versions import judge
from vivace.devkit.rig.layout import ROOT

NO_SERVER = "http://127.0.0.1:9"  # the port of a protocol that nobody speaks any more


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment where everything is as it should be."""
    found = make_environment(tmp_path_factory.mktemp("env") / "venv")
    for name, version in GOOD.items():
        install(site_packages(found), name, version)
    return found


def doctor(home: Path, python: str | Path, *words: str | Path, **variables: str) -> Done:
    comfyui = home / "comfyui"
    if not comfyui.exists():
        make_comfyui(comfyui)
    (comfyui / "models" / "loras" / "a.safetensors").touch()
    options = ["--comfyui", comfyui, "--python", python, *words]
    return vivace_command(home, "doctor", *options, variables=variables)


def findings(done: Done, level: str) -> list[tuple[str, str, str]]:
    found = done.json()["findings"]
    return [(f["topic"], f["problem"], f["remedy"]) for f in found if f["level"] == level]


def test_a_good_installation(tmp_path: Path, python: Path) -> None:
    done = doctor(tmp_path, python, "--json")
    assert done.status == 0
    assert findings(done, "broken") == []
    ((topic, problem, remedy),) = findings(done, "warning")
    assert topic == "server"
    assert problem.startswith("No server answers at http://127.0.0.1:8188")
    assert "--server" in remedy
    data = done.json()
    assert data["comfyui"] == "0.30.0"
    assert data["python"]["program"] == str(python)
    assert data["packages"] == GOOD  # with the builds, which the records lack
    assert data["gpu"] is None
    assert data["models"]["LoRAs"]["count"] == 1
    assert data["packs"] == [{"name": "ComfyUI-Vivace", "version": None}]
    assert data["broken"] is False


def test_it_reads_well(tmp_path: Path, python: Path) -> None:
    done = doctor(tmp_path, python)
    lines = done.out.splitlines()
    assert f"ComfyUI        0.30.0        {tmp_path / 'comfyui'}" in lines
    assert "torch          2.11.0+cu130" in lines
    assert lines[-1] == "broken: 0, warnings: 1, notes: 2"
    assert "\x1b" not in done.out


def test_a_server_that_was_named_has_to_answer(tmp_path: Path, python: Path) -> None:
    for done in (
        doctor(tmp_path, python, "--json", "--server", NO_SERVER),
        doctor(tmp_path, python, "--json", VIVACE_SERVER=NO_SERVER),
    ):
        assert done.status == 1
        assert [topic for topic, _, _ in findings(done, "broken")] == ["server"]


def packages(**changes: str | None) -> dict[str, dict[str, Any]]:
    names = {key.replace("_", "-"): text for key, text in changes.items()}
    found = {**GOOD, **names}
    return {name: {"version": v, "requires": []} for name, v in found.items() if v is not None}


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({"torchvision": "0.25.0+cu130"}, "broken", ("made for torch 2.10", "torchvision==0.26.*")),
        ({"torchvision": "0.26.0+cpu"}, "broken", ("built for cpu, torch for cu130",)),
        ({"torchaudio": "2.9.0+cu130"}, "warning", ("made for torch 2.9", "torchaudio==2.11.*")),
        ({"torch": "2.8.0+cu128", "torchaudio": "2.8.0"}, "broken", ("0.26.0+cu130 is made for",)),
        ({"torch": None}, "broken", ("torch is not installed", "pip install torch")),
        ({"torchvision": None}, "broken", ("ComfyUI does not start",)),
        ({"comfy_kitchen": None}, "warning", ("Load SVDQuant Model",)),
        ({"transformers": "4.56.2"}, "warning", ("no Qwen3-VL", "transformers>=4.57")),
        ({"nunchaku": "1.2.1+cu12.8torch2.9"}, "broken", ("built for torch 2.9, not 2.11",)),
        ({"nunchaku": "0.15.4"}, "warning", ("another one of that name", "nunchaku-ai")),
    ],
)
def test_versions_that_do_not_fit(
    tmp_path: Path,
    python: Path,
    changes: dict[str, str | None],
    level: str,
    words: Iterable[str],
) -> None:
    found = judge("3.11.7", packages(**changes), Installation(None, "", str(python)))
    serious = [one for one in found if one.level != "note"]
    assert [one.level for one in serious] == [level]
    text = f"{serious[0].problem}. {serious[0].remedy}"
    assert [word for word in words if word not in text] == []


def test_what_a_package_says_itself_counts_before_the_rule(tmp_path: Path) -> None:
    found = packages()
    found["torchvision"] = {"version": "0.26.0+cu130", "requires": ["torch (==2.12.0)"]}
    (one,) = (
        f for f in judge("3.11", found, Installation(None, "", "python")) if f.level != "note"
    )
    assert "made for torch 2.12, not 2.11.0" in one.problem


def test_the_torch_that_is_installed_is_found_out(tmp_path: Path) -> None:
    """The same in an environment, from its records to the exit status."""
    python = make_environment(tmp_path / "venv")
    site = site_packages(python)
    for name, version in {**GOOD, "torchvision": "0.21.0+cu124"}.items():
        install(site, name, version)
    done = doctor(tmp_path, python, "--json")
    assert done.status == 1
    ((topic, problem, remedy),) = findings(done, "broken")
    assert topic == "versions"
    assert problem == "torchvision 0.21.0+cu124 is made for torch 2.6, not 2.11.0+cu130"
    assert remedy.startswith(f"{python} -m pip install torchvision==0.26.*")


def test_comfyui_that_is_too_old_or_asks_for_others(tmp_path: Path, python: Path) -> None:
    wanted = (
        "# made\ncomfy-kitchen==0.2.27\nsafetensors>=0.4.2\ntorch\ncomfyui-frontend-package==1\n"
    )
    make_comfyui(tmp_path / "comfyui", "0.15.1", wanted)
    done = doctor(tmp_path, python, "--json")
    assert done.status == 1
    ((_, problem, _),) = findings(done, "broken")
    assert problem == "ComfyUI 0.15.1 is too old for this pack, which needs 0.16.0"
    problems = [problem for _, problem, _ in findings(done, "warning")]
    assert (
        "ComfyUI 0.15.1 asks for other versions: comfy-kitchen 0.2.26 (==0.2.27),"
        " comfyui-frontend-package is missing (==1)" in problems
    )


def test_the_oldest_comfyui_is_the_one_that_the_registry_is_told() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert f'requires-comfyui = ">={OLDEST_COMFYUI}"' in text


def test_no_comfyui_and_no_python(tmp_path: Path, python: Path) -> None:
    done = vivace_command(tmp_path, "doctor", "--json", "--comfyui", tmp_path)
    assert done.status == 1
    assert "it has no main.py" in findings(done, "broken")[0][1]
    done = doctor(tmp_path, tmp_path / "nothing", "--json")
    assert done.status == 1
    assert findings(done, "broken")[0][1] == f"There is no program {tmp_path / 'nothing'}"
    failing = tmp_path / "failing"
    failing.write_text("#!/bin/sh\necho too bad >&2\nexit 3\n")
    failing.chmod(0o755)
    done = doctor(tmp_path, failing, "--json")
    assert findings(done, "broken")[0][1] == f"{failing} failed (too bad)"


def test_packs_that_stand_in_the_way(tmp_path: Path, python: Path) -> None:
    comfyui = make_comfyui(tmp_path / "comfyui")
    add_pack(comfyui, "qwenvl-renamed", {"AILab_QwenVL.py": "", "pyproject.toml": 'version = "2"'})
    add_pack(comfyui, "ComfyUI_QwenVL", {"nodes.py": ""})  # another pack, which does no harm
    add_pack(comfyui, "vivace-old", {"pyproject.toml": 'name = "vivace"'})
    add_pack(comfyui, "routes", {"api/a.py": "routes.get('/vivace/loras')\nx = '/vivace/other'"})
    add_pack(comfyui, "off.disabled", {"a.py": "routes.get('/vivace/stacks')"})
    done = doctor(tmp_path, python, "--json")
    assert done.status == 1
    broken = [problem for _, problem, _ in findings(done, "broken")]
    assert len(broken) == 2
    assert broken[0].endswith("vivace-old is a second copy of this pack, beside ComfyUI-Vivace")
    assert broken[1].startswith("routes also names the route /vivace/loras")
    (pack,) = [one for one in findings(done, "warning") if one[0] == "packs"]
    assert pack[1].startswith("qwenvl-renamed is ComfyUI-QwenVL: ")
    assert "vivace migrate" in pack[2]
    names = [one["name"] for one in done.json()["packs"]]
    assert names == ["ComfyUI-Vivace", "ComfyUI_QwenVL", "qwenvl-renamed", "routes", "vivace-old"]


def test_without_this_pack(tmp_path: Path, python: Path) -> None:
    comfyui = make_comfyui(tmp_path / "comfyui")
    (comfyui / "custom_nodes" / "ComfyUI-Vivace" / "pyproject.toml").unlink()
    found = findings(doctor(tmp_path, python, "--json"), "warning")
    assert "This pack is not among the custom nodes" in found[0][1]


def test_models_here_and_elsewhere(tmp_path: Path, python: Path, vlm_models: Path) -> None:
    comfyui = make_comfyui(tmp_path / "comfyui")
    other = tmp_path / "other"
    (other / "loras" / "deep").mkdir(parents=True)
    (other / "loras" / "deep" / "b.safetensors").touch()
    (other / "loras" / "again.safetensors").symlink_to(other / "loras" / "deep" / "b.safetensors")
    (other / "loras" / "notes.txt").touch()
    (comfyui / "extra_model_paths.yaml").write_text(
        f"mine:\n  base_path: ../other\n  is_default: true\n  loras: |\n    loras\n    gone\n"
        f"  LLM: {vlm_models}\nempty:\n"
    )
    done = doctor(tmp_path, python, "--json")
    models = done.json()["models"]
    assert models["LoRAs"]["count"] == 2
    folders = {one["path"]: one["exists"] for one in models["LoRAs"]["folders"]}
    assert folders == {
        str(comfyui / "models" / "loras"): True,
        str(other / "loras"): True,
        str(other / "gone"): False,
    }
    whole = [f for f in vlm_models.iterdir() if f.name.startswith("small-")]
    assert models["language models"]["count"] == len(whole) > 1
    ((_, problem, _),) = [one for one in findings(done, "warning") if one[0] == "models"]
    assert problem.startswith(f"{vlm_models / 'unfinished'}: ")


@pytest.mark.parametrize("text", ["a: [", "- a", "a: 1", "a:\n  loras: [x]"])
def test_paths_that_comfyui_cannot_read(tmp_path: Path, python: Path, text: str) -> None:
    comfyui = make_comfyui(tmp_path / "comfyui")
    (comfyui / "extra_model_paths.yaml").write_text(text)
    done = doctor(tmp_path, python, "--json")
    assert done.status == 1
    ((topic, problem, _),) = findings(done, "broken")
    assert topic == "models"
    assert problem.startswith(f"ComfyUI cannot start with {comfyui / 'extra_model_paths.yaml'}: ")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="every folder can be read here")
def test_a_folder_that_cannot_be_read(tmp_path: Path, python: Path) -> None:
    comfyui = make_comfyui(tmp_path / "comfyui")
    (comfyui / "models" / "diffusion_models").chmod(0)
    done = doctor(tmp_path, python, "--json")
    assert "cannot be read" in findings(done, "broken")[0][1]


def test_qwen3_vl_in_the_folder_needs_its_transformers(tmp_path: Path, vlm_models: Path) -> None:
    python = make_environment(tmp_path / "venv")
    for name, version in {**GOOD, "transformers": "4.55.0"}.items():
        install(site_packages(python), name, version)
    comfyui = make_comfyui(tmp_path / "comfyui")
    (comfyui / "extra_model_paths.yaml").write_text(f"mine:\n  LLM: {vlm_models}\n")
    done = doctor(tmp_path, python, "--json")
    broken = [problem for _, problem, _ in findings(done, "broken")]
    assert len(broken) == 1
    assert broken[0].endswith("needs transformers 4.57, and 4.55.0 is installed")


def test_torch_is_asked_in_another_process(tmp_path: Path) -> None:
    python = make_environment(tmp_path / "venv")
    site = site_packages(python)
    for name, version in GOOD.items():
        install(site, name, version)
    (site / "torch" / "__init__.py").write_text(
        "__version__ = '2.11.0'\n"
        "class cuda:\n"
        "    device_count = staticmethod(lambda: 1)\n"
        "    mem_get_info = staticmethod(lambda index: (2**33, 2**34))\n"
        "    @staticmethod\n"
        "    def get_device_properties(index):\n"
        "        class properties: name, major, minor = 'Card', 12, 0\n"
        "        return properties\n"
        "class backends:\n"
        "    class mps: is_available = staticmethod(lambda: False)\n"
        "print('talks')\n"
    )
    (site / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')\n"
    )
    done = doctor(tmp_path, python, "--gpu", "--json")
    ((topic, problem, _),) = findings(done, "broken")
    assert topic == "gpu"
    assert "operator torchvision::nms does not exist" in problem
    (device,) = done.json()["gpu"]
    assert device["name"] == "Card"
    assert device["vram_total"] == 2**34
    assert device["capability"] == "12.0"
    assert "GPU: Card, 16.0 GiB, 8.0 free" in doctor(tmp_path, python, "--gpu").out


def test_version_numbers() -> None:
    assert at_least("2.11.0+cu130", "2.9")
    assert at_least("1.0", "1.0.0")
    assert not at_least("0.9.9", "0.10")
    assert not at_least("", "0.1")
    assert fulfils("1.2.0", "==", "1.2")
    assert not fulfils("1.2.1", "==", "1.2")
    assert fulfils("2.9", "~=", "2.0")
    assert not fulfils("3.0", "~=", "2.0")
    text = "a==1.0\n# b==2\nc\n d >= 3.1  # why\n"
    assert requirements(text) == [("a", "==", "1.0"), ("d", ">=", "3.1")]
