// Folds advanced inputs away in nodes on the classic canvas, which otherwise shows all of them.
// The canvas's own menu entry *Show Advanced* opens them; newer nodes have a button for it.

import { app } from "../../scripts/app.js";

const SHOWN_ALWAYS = "Comfy.Node.AlwaysShowAdvancedWidgets"; // a setting of newer editors

/** @param {Editor.Node} node */
const lowestHeight = (node) => node.computeSize()[1];

/**
 * Hides or shows the advanced inputs; the node shrinks or grows by their height.
 * @param {Editor.Node} node
 * @param {number} before the lowest height that the node had
 */
function fold(node, before) {
  const hidden = !node.showAdvanced && !app.extensionManager.setting.get(SHOWN_ALWAYS);
  for (const widget of node.widgets ?? []) {
    if (!widget.options?.advanced) continue;
    widget.advanced = true;
    widget.hidden = hidden; // or the canvas would leave room for it
  }
  const lowest = lowestHeight(node);
  const height = Math.max(node.size[1] + lowest - before, lowest);
  if (height === node.size[1]) return;
  node.setSize([node.size[0], height]);
  node.setDirtyCanvas(true, true); // or the old size stays on the canvas until something else changes
}

app.registerExtension({
  name: "Vivace.FoldAdvanced",
  nodeCreated(node) {
    if (!node.comfyClass.startsWith("Vivace")) return;
    fold(node, lowestHeight(node));
    const { addCustomWidget, configure, toggleAdvanced } = node;
    // An input with choices brings widgets of its own, and replaces them with the choice.
    node.addCustomWidget = (widget) => {
      requestAnimationFrame(() => fold(node, lowestHeight(node)));
      return addCustomWidget.call(node, widget);
    };
    node.configure = (saved) => {
      configure.call(node, saved);
      fold(node, lowestHeight(node));
      if (saved.size) node.setSize([saved.size[0], Math.max(saved.size[1], lowestHeight(node))]);
    };
    node.toggleAdvanced = () => {
      const before = lowestHeight(node);
      const size = /** @type {Editor.Size} */ ([...node.size]);
      toggleAdvanced.call(node);
      node.setSize(size); // as it was, where the editor has made it fit already
      fold(node, before);
    };
  },
});
