// The rows of a LoRA Stack: a DOM widget, so that it works on the canvas and in the Vue renderer.
// Its value is the list that the node receives: [{"on": true, "lora": "x.safetensors", "strength": 0.8}].

import { app } from "../../scripts/app.js";
import { make } from "./dom.js";
import { refreshNames } from "./rows/names.js";
import { showPromotedRows } from "./rows/promoted.js";
import { addRowsWidget, MIN_WIDTH, WIDGET_TYPE } from "./rows/widget.js";

const STYLES = ["./vivace.css", "./rows/rows.css", "./rows/popover.css", "./rows/info.css"];

/**
 * @param {Editor.Node} node
 * @param {string} inputName
 */
function createWidget(node, inputName) {
  const { widget, height } = addRowsWidget(node, inputName);
  return { widget, minWidth: MIN_WIDTH, minHeight: height() };
}

app.registerExtension({
  name: "Vivace.LoraRows",
  getCustomWidgets: () => ({ [WIDGET_TYPE]: createWidget }),
  nodeCreated: showPromotedRows,
  setup() {
    for (const path of STYLES) {
      document.head.append(make("link", { rel: "stylesheet", href: new URL(path, import.meta.url).href }));
    }
  },
  refreshComboInNodes: refreshNames,
});
