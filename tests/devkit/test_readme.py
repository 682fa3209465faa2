"""The README and the pages that it leads to: short, with links and examples that are right."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from vivace.cli.parser import parse
from vivace.cli.table import COMMANDS, load, split
from vivace.devkit import commands as dev_commands
from vivace.devkit.pictures.at_work import PICTURE, PLACES, prompt
from vivace.devkit.rig.layout import ROOT
from vivace.devkit.rig.published import published_files

HERE = "https://github.com/vivace-nodes/ComfyUI-Vivace"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ("README.md", "CHANGELOG.md", "SECURITY.md", "docs/cli.md", "docs/compatibility.md")
PAGES += ("docs/http-api.md", "docs/lora-files.md", "docs/lora-nodes.md", "docs/other-packs.md")
PAGES += ("docs/qwenvl.md", "docs/side-by-side.md")
MEASURED = {  # rows of BENCHMARKS.md, and what the README makes of their medians
    "| Vivace | milliseconds, import |": "{:.1f} ms for this pack",
    "| Vivace | modules of other packages |": "{:.0f} modules of other packages",
    "| qwen_image r16 x1 | first apply / read with safetensors |": "{:.1f} times as long as",
    "| qwen_image r16 x1 | first apply / strength change |": "{:.0f} times as fast",
    "| qwen_image r16 x10 | first apply / strength change |": "for ten LoRAs, {:.0f} times",
    "| Qwen-Image, 8 blocks, 1532 MiB | load / read |": "{:.1f} times as long as reading the file,",
    "| Qwen-Image, 8 blocks, 1532 MiB | load of the converted copy / read |": "{:.1f} times with",
    "| Qwen3-VL-4B 24/24 layers, 1 image | seen before: new / cached, balanced |": "1/{:.0f} of",
    "| qwen_image r16 x1 | ComfyUI's loader / first apply |": "{:.2f} of our time",
}


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def links(text: str) -> list[str]:
    """Where links and pictures lead to, in Markdown and HTML, but for those within code."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    text = re.sub(r"`[^`\n]*`", "code", text)
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)


def anchors(page: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    text = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def target(page: str, link: str) -> str:
    """The file that a link of a page names, by its path; the page itself for an anchor."""
    name = link.partition("#")[0]
    parts: list[str] = []
    for part in (PurePosixPath(page).parent / name).parts if name else PurePosixPath(page).parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_all_pages_for_users_are_looked_at() -> None:
    published = [name for name in published_files() if name.endswith(".md")]
    assert {name for name in published if not name.startswith("web/docs/")} == set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere_in_an_installed_copy(page: str) -> None:
    published = set(published_files())
    for link in links(text_of(page)):
        if link.startswith(f"{HERE}/blob/main/"):
            assert (ROOT / link.removeprefix(f"{HERE}/blob/main/")).is_file(), link
        if re.match(r"\w+:", link):
            continue
        name = target(page, link)
        assert name in published, f"{link} in {page}"
        if "#" in link:
            assert link.partition("#")[2] in anchors(name), f"{link} in {page}"


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md", "docs/development.md"])
def test_every_link_for_developers_leads_somewhere_in_the_checkout(page: str) -> None:
    for link in links(text_of(page)):
        if not re.match(r"\w+:", link):
            name = target(page, link)
            assert (ROOT / name).is_file(), f"{link} in {page}"
            assert "#" not in link or link.partition("#")[2] in anchors(name), f"{link} in {page}"


def test_users_find_every_page_from_the_readme() -> None:
    seen, left = {"README.md"}, ["README.md"]
    while left:
        page = left.pop()
        found = {target(page, link) for link in links(text_of(page)) if not re.match(r"\w+:", link)}
        left += [name for name in found - seen if name.endswith(".md")]
        seen |= found
    assert seen >= set(PAGES)


@pytest.mark.usefixtures("comfyui")
def test_every_node_is_there_with_its_help_page() -> None:
    from vivace.lazy_registry import NODE_TABLE

    rows = re.findall(r"^\| \[(.+?)\]\(web/docs/(\w+)\.md\) \| .+ \|$", README, flags=re.MULTILINE)
    assert sorted(rows) == sorted((row.display_name, row.node_id) for row in NODE_TABLE)


@pytest.mark.usefixtures("comfyui")
def test_the_picture_is_of_nodes_and_inputs_that_exist() -> None:
    from vivace.lazy_registry import NODE_TABLE, NodeLoader

    assert PICTURE.relative_to(ROOT).as_posix() in links(README)
    nodes = prompt()
    assert nodes.keys() == PLACES.keys()
    rows = {row.node_id: row for row in NODE_TABLE}
    ours = [node for node in nodes.values() if node["class_type"] in rows]
    assert len(ours) >= 4
    for node in ours:
        schema = NodeLoader(rows[node["class_type"]]).real().define_schema()
        known = {item.id for item in schema.inputs}
        assert {name.partition(".")[0] for name in node["inputs"]} <= known


def code(text: str) -> list[str]:
    return re.findall(r"^```\w*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", ["README.md", "docs/lora-nodes.md", "docs/lora-files.md"])
def test_commands_are_commands(page: str) -> None:
    text = text_of(page)
    mentioned = [words.split() for words in re.findall(r"`vivace ([^`]+)`", text)]
    lines = [line.split() for block in code(text) for line in block.splitlines()]
    lines = [words[2:] if words[:3] == ["python", "-m", "vivace"] else words for words in lines]
    shown = [rest for first, *rest in lines if first == "vivace"]
    for words in shown + [words for words in mentioned if " ".join(words) not in COMMANDS]:
        name, given = split(words)
        parse(name, load(name).COMMAND, given)
    for words in lines:
        if words[:2] == ["python3", "dev.py"]:
            assert callable(getattr(dev_commands, words[2]))
        else:
            known = ("vivace ", "git clone ", "python -m pip install -e ")
            assert " ".join(words).startswith(known)


def test_every_development_command_is_told() -> None:
    told = re.findall(r"^\| `python3 dev\.py (\w+)", text_of("docs/development.md"), re.MULTILINE)
    parser = text_of("dev.py")
    assert sorted(told) == sorted(re.findall(r'command\(\s*"(\w+)"', parser))


@pytest.mark.usefixtures("comfyui")
@pytest.mark.parametrize("page", ["docs/http-api.md", "docs/qwenvl.md"])
def test_prompts_of_the_pages_name_inputs_that_exist(page: str) -> None:
    from vivace.lazy_registry import NODE_TABLE, NodeLoader

    blocks = re.findall(r"```json\n(.*?)```", text_of(page), flags=re.DOTALL)
    assert blocks
    rows = {row.node_id: row for row in NODE_TABLE}
    for block in blocks:
        node = json.loads(block)
        schema = NodeLoader(rows[node["class_type"]]).real().define_schema()
        known = {item.id for item in schema.inputs}
        assert {name.partition(".")[0] for name in node["inputs"]} <= known


def test_whether_there_is_a_release_is_told() -> None:
    unreleased = re.search(r"^## ([\d.]+), not released yet", text_of("CHANGELOG.md"), re.MULTILINE)
    told = re.search(r"Version ([\d.]+) is\s+not\s+released\s+yet", README)
    assert (unreleased and unreleased[1]) == (told and told[1])


def models_of(workflow: Path) -> set[str]:
    nodes = json.loads(workflow.read_text(encoding="utf-8"))["nodes"]
    loaders = ("UNETLoader", "CLIPLoader", "VAELoader")
    return {node["widgets_values"][0] for node in nodes if node["type"] in loaders}


def test_the_files_to_download_are_those_of_the_templates() -> None:
    found = re.findall(r"\[([\w.]+\.safetensors)\]\((https://\S+)\)", README)
    assert all(url.endswith(f"/{name}") for name, url in found)
    examples = ROOT / "example_workflows"
    named = [examples / f"{name}.json" for name in ("z_image_lora_stack", "qwen_image_lora_stack")]
    assert {name for name, _ in found} == models_of(named[0]) | models_of(named[1])
    assert all(f"`{path.stem}`" in README for path in named)
    folders = dict(re.findall(r"^ *\| \[([\w.]+)\]\S+ \| `(\w+)` \|$", README, flags=re.MULTILINE))
    assert len(folders) == 3
    for name, url in found:
        assert folders.get(name, url.split("/")[-2]) == url.split("/")[-2]


@pytest.mark.usefixtures("comfyui")
def test_comfyuis_own_templates_have_the_same_addresses() -> None:
    templates = pytest.importorskip(
        "comfyui_workflow_templates_json", reason="an older ComfyUI has other templates"
    )
    folder = Path(templates.__path__[0]) / "templates"
    theirs = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*image*.json"))
    for url in re.findall(r"\((https://huggingface\.co/\S+)\)", README):
        assert url in theirs


@pytest.mark.parametrize("row", MEASURED)
def test_what_is_measured_is_what_was_measured(row: str) -> None:
    (line,) = [line for line in text_of("BENCHMARKS.md").splitlines() if line.startswith(row)]
    median = float(line.removeprefix(row).split()[0])
    assert MEASURED[row].format(median) in README


def test_a_stack_takes_as_long_as_was_measured() -> None:
    lines = text_of("BENCHMARKS.md").split("Milliseconds by LoRAs in a stack")[1].splitlines()
    medians = [
        next(line for line in lines if line.startswith(f"| {name} |")).split("|")[5].split()[0]
        for name in ("first apply", "change of one strength")
    ]
    first, change = (f"{float(value):.0f} ms" for value in medians)
    assert f"| {first} at first, {change} for one other strength |" in README


def size_row(title: str, numbers: list[float]) -> str:
    """A row of the table of weights, in GB."""
    digits = (1, 1, 1, 2)
    cells = [f"{number / 1e9:.{n}f} GB" for number, n in zip(numbers, digits, strict=True)]
    return f"| {title} | {' | '.join(cells)} |"


def sizes(network: Any, layers: list[tuple[str, int, int]], small: str) -> list[float]:
    """Bytes in bf16, fp8 and int4 of rank 32, and of a LoRA of rank 16.

    Args:
        network: ComfyUI's own, without values.
        layers: name, height and width of each linear layer in its blocks.
        small: names the modulation layers, which have no low-rank part of their own.
    """
    count = sum(parameter.numel() for parameter in network.parameters())
    four = 2 * (count - sum(n * k for _, n, k in layers))
    for name, n, k in layers:
        if small not in name:  # 4 bits, scales of 64 values, low-rank part, bias and smoothing
            four += n * k // 2 + n * k // 32 + (n + k) * 64 + 2 * n + 4 * k
        elif small == "_mod.":  # AWQ: 4 bits, a scale and a zero for 64 values, bias
            four += n * k // 2 + n * k // 16 + 2 * n
        else:  # as it was
            four += 2 * n * k
    return [2 * count, count, four, 2 * 16 * sum(n + k for _, n, k in layers)]


@pytest.mark.usefixtures("comfyui")
def test_sizes_are_those_of_the_networks() -> None:
    import comfy.ldm.lumina.model
    import comfy.ldm.qwen_image.model
    import comfy.ops
    import torch
    from vivace.lora.mapping import supported_models

    given: dict[str, Any] = {
        "device": "meta", "dtype": torch.bfloat16, "operations": comfy.ops.disable_weight_init
    }  # fmt: skip
    qwen = comfy.ldm.qwen_image.model.QwenImageTransformer2DModel(
        in_channels=64, out_channels=16, num_layers=60, **given
    )
    z = comfy.ldm.lumina.model.NextDiT(
        patch_size=2, in_channels=16, dim=3840, cap_feat_dim=2560, n_layers=30, qk_norm=True,
        n_heads=30, n_kv_heads=30, axes_dims=[32, 48, 48], axes_lens=[1536, 512, 512],
        ffn_dim_multiplier=8 / 3, z_image_modulation=True, pad_tokens_multiple=32, **given,
    )  # fmt: skip
    blocks = ("transformer_blocks.", "layers.", "noise_refiner.", "context_refiner.")
    for title, network, architecture, small in (
        ("Qwen-Image", qwen, supported_models.qwen_image(), "_mod."),
        ("Z-Image", z, supported_models.z_image(), "adaLN"),
    ):
        layers = [
            (module.path, module.shape[0], module.shape[1])
            for module in architecture.modules.values()
            if module.kind == "linear" and module.path.startswith(blocks)
        ]
        assert size_row(title, sizes(network, layers, small)) in README
