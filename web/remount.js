// Brings the elements of our nodes back after an undo. The Vue nodes of older editors (ComfyUI
// 0.18.2) keep showing the elements of the nodes that were there before, since the ids are the same.

import { app } from "../../scripts/app.js";

/**
 * The elements of our widgets in the graph that is open, by node and widget.
 * @returns {Map<string, HTMLElement>}
 */
function elements() {
  const found = new Map();
  for (const node of app.canvas.graph?.nodes ?? []) {
    if (!node.comfyClass?.startsWith("Vivace")) continue;
    for (const { name, element } of node.widgets ?? []) if (element) found.set(`${node.id} ${name}`, element);
  }
  return found;
}

/** What the page shows for them. @type {Map<string, HTMLElement>} */
let shown = new Map();

function remount() {
  for (const [key, element] of elements()) {
    const old = shown.get(key);
    if (old && old !== element && old.isConnected && !element.isConnected) old.replaceWith(element);
  }
}

app.registerExtension({
  name: "Vivace.Remount",
  async beforeConfigureGraph() {
    // A second undo can come before the page has drawn the first one.
    const now = [...elements()];
    shown = new Map(now.map(([key, element]) => [key, element.isConnected ? element : (shown.get(key) ?? element)]));
  },
  async afterConfigureGraph() {
    requestAnimationFrame(remount); // by then the editor has drawn what it draws anew
  },
});
