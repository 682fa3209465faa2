// The rows of a LoRA Stack: a DOM widget, so that it works on the canvas and in the Vue renderer.
// Its value is the list that the node receives: [{"on": true, "lora": "x.safetensors", "strength": 0.8}].

import { app } from "../../scripts/app.js";
import { make } from "./rows/dom.js";
import { refreshNames } from "./rows/names.js";
import { LoraStack } from "./rows/stack.js";

const WIDGET_TYPE = "VIVACE_LORA_ROWS";
const STYLES = ["./vivace.css", "./rows/rows.css", "./rows/popover.css", "./rows/info.css"];
const MARGIN = 20; // that the canvas keeps around a widget
const MIN_WIDTH = 380;

/**
 * Makes the node taller or shorter by a number of pixels, but never too short.
 * @param {any} node
 * @param {number} by
 */
function resize(node, by) {
  const [width, height] = node.size;
  const wanted = Math.max(node.computeSize()[1], height + by);
  if (node.graph && wanted !== height) node.setSize([width, wanted]);
  node.setDirtyCanvas?.(true, true);
}

/**
 * @param {any} node
 * @param {string} inputName
 */
function createWidget(node, inputName) {
  const stack = new LoraStack((grown) => {
    resize(node, grown);
    widget.callback?.(stack.value);
  });
  const height = () => stack.height + MARGIN;
  const widget = node.addDOMWidget(inputName, WIDGET_TYPE, stack.element, {
    getValue: () => stack.value,
    setValue: (/** @type {unknown} */ value) => {
      stack.value = value;
      resize(node, 0); // a saved node has its size already
    },
    getMinHeight: height,
    getMaxHeight: height,
  });
  const { onRemove } = widget;
  widget.onRemove = function () {
    stack.destroy();
    onRemove?.apply(this, arguments);
  };
  return { widget, minWidth: MIN_WIDTH, minHeight: height() };
}

app.registerExtension({
  name: "Vivace.LoraRows",
  settings: [
    {
      id: "Vivace.LoRA.CacheMB",
      category: ["Vivace", "LoRA", "CacheMB"],
      name: "RAM for LoRA files, in MB",
      tooltip: "LoRA files kept in memory between runs. -1 uses an eighth of the RAM, 0 keeps none.",
      type: "number",
      defaultValue: -1,
    },
  ],
  getCustomWidgets: () => ({ [WIDGET_TYPE]: createWidget }),
  setup() {
    for (const path of STYLES) {
      document.head.append(make("link", { rel: "stylesheet", href: new URL(path, import.meta.url).href }));
    }
  },
  refreshComboInNodes: refreshNames,
});
