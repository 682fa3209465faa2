"""Generate Text in the real editor: the text grows in the node, and conversations are wired."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page
from support.editor import prompt_of, shoot
from support.graphs import node
from support.openai_server import OpenAIServer, hang, stream
from vivace.devkit.rig.client import ComfyClient

PLACE = """() => app.graph.nodes.forEach((node, place) => {
    node.pos = [40 + place * 520, 40];
    node.size = [480, 760];
    app.canvas.ds.scale = 0.8;
    app.canvas.ds.offset = [40, 40];
    app.canvas.setDirty(true, true);
})"""


def open_turns(page: Page, *turns: dict[str, Any]) -> None:
    prompt = {str(number): turn for number, turn in enumerate(turns, 1)}
    page.evaluate("prompt => app.loadApiJson(prompt, 'chat')", prompt)
    page.wait_for_function("count => app.graph.nodes.length === count", arg=len(turns))
    page.evaluate(PLACE)


def ask(server: OpenAIServer, prompt: str, **inputs: Any) -> dict[str, Any]:
    there = {"engine": "server", "engine.address": server.url, "engine.server_model": "tiny"}
    return node("VivaceGenerateText", **(there | {"prompt": prompt} | inputs))


def test_text_grows_in_the_node(editor: Page, client: ComfyClient) -> None:
    with OpenAIServer(hang("<think>", "hm", "</think>", "Three names are")) as server:
        open_turns(editor, ask(server, "Name three cats."))
        editor.get_by_test_id("queue-button").click()
        editor.locator(".vivace-answer", has_text="Three names are").wait_for(timeout=60_000)
        editor.locator(".vivace-thinking summary").click()
        editor.locator(".vivace-thinking", has_text="hm").wait_for()
        shoot(editor, "generate-text-streaming")
        assert client.get_json("/queue")["queue_running"]  # it is not done
        client.post("/interrupt", {})
        assert server.disconnected.wait(20)


def test_a_conversation_goes_on_in_another_node(editor: Page) -> None:
    schema = {"answer_format": "JSON schema", "answer_format.schema": '{"type": "object"}'}
    with OpenAIServer(stream("Minka, Tom."), stream('{"shortest": "Tom"}')) as server:
        open_turns(
            editor,
            ask(server, "Name two cats."),
            ask(server, "Which is the shortest?", chat=["1", 2], **schema),
        )
        inputs = prompt_of(editor)["2"]["inputs"]
        assert inputs["chat"] == ["1", 2]
        assert inputs["answer_format.schema"] == '{"type": "object"}'
        editor.get_by_test_id("queue-button").click()
        editor.locator(".vivace-answer", has_text='"shortest"').wait_for(timeout=60_000)
        editor.locator(".vivace-answer", has_text="Minka, Tom.").wait_for()
        assert [m["role"] for m in server.posts[1].json["messages"]] == [
            *("user", "assistant", "user")
        ]
    shoot(editor, "generate-text-chat")
