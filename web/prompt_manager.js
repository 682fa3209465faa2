// The library of prompts in Prompt Manager nodes. What is chosen goes into the node's own widgets:
// the line that leads to the library has no value.

import { app } from "../../scripts/app.js";
import { make } from "./dom.js";
import { PromptRow } from "./prompts/row.js";

const SHOWN = new Set(["prompt", "positive", "negative"]); // what the line tells something about
const HEIGHT = 46; // of the line, with the room that the canvas keeps around a widget
const MIN_WIDTH = 380;

app.registerExtension({
  name: "Vivace.PromptManager",
  setup() {
    // What else it needs comes with the rows of LoRAs.
    const href = new URL("./prompts/prompts.css", import.meta.url).href;
    document.head.append(make("link", { rel: "stylesheet", href }));
  },
  nodeCreated(node) {
    if (node.comfyClass !== "VivacePromptManager") return;
    const row = new PromptRow(node);
    for (const widget of node.widgets ?? []) {
      if (!SHOWN.has(widget.name)) continue;
      const { callback } = widget;
      widget.callback = function (...given) {
        callback?.apply(widget, given);
        row.show();
      };
    }
    const height = () => HEIGHT;
    const options = { serialize: false, getMinHeight: height, getMaxHeight: height };
    const widget = node.addDOMWidget("library", "VIVACE_PROMPT_LIBRARY", row.element, options);
    widget.serialize = false;
    const { onRemove } = widget;
    widget.onRemove = () => {
      row.destroy();
      onRemove?.call(widget);
    };
    const { configure, onConnectionsChange } = node;
    node.configure = (saved) => {
      configure.call(node, saved);
      row.show();
    };
    node.onConnectionsChange = function (...given) {
      onConnectionsChange?.apply(this, given);
      row.show();
    };
    const [width, tall] = node.computeSize();
    node.setSize([Math.max(width, node.size[0], MIN_WIDTH), Math.max(tall, node.size[1])]);
  },
});
