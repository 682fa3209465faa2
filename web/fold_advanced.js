// Folds advanced inputs away in nodes on the classic canvas, which otherwise shows all of them.
// The canvas's own menu entry *Show Advanced* opens them; newer nodes have a button for it.

import { app } from "../../scripts/app.js";

function fold(node) {
  let changed = false;
  for (const widget of node.widgets ?? []) {
    if (!widget.options?.advanced) continue;
    widget.advanced = true;
    const hidden = !node.showAdvanced;
    changed ||= hidden !== Boolean(widget.hidden);
    widget.hidden = hidden; // or the canvas would leave room for it
  }
  if (!changed) return;
  node.setSize([node.size[0], node.computeSize()[1]]);
  node.setDirtyCanvas(true, true); // or the old size stays on the canvas until something else changes
}

app.registerExtension({
  name: "Vivace.FoldAdvanced",
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("Vivace")) return;
    const foldSoon = () => requestAnimationFrame(() => fold(node));
    // An input with choices brings widgets of its own, and replaces them with the choice.
    for (const name of ["addCustomWidget", "toggleAdvanced", "configure"]) {
      const method = node[name];
      node[name] = function () {
        foldSoon();
        return method?.apply(this, arguments);
      };
    }
    foldSoon();
  },
});
