// The rows at the node of a subgraph, to which the user has promoted them. The editor keeps the
// value there, but of widgets made of elements it shows nothing but texts.

import { addRowsWidget, MIN_WIDTH, WIDGET_TYPE } from "./widget.js";

/**
 * The editor's own stand-in for the promoted widget, which reads and writes the value.
 * @param {Editor.Node} host
 * @returns {{ input: Editor.Input, standIn: Editor.Widget }[]}
 */
function standIns(host) {
  return (host.inputs ?? []).flatMap((input) => {
    const standIn = input._widget;
    // Older editors have no such id: they keep the value in the inner widget, and show that.
    return input.widgetId && standIn?.type === WIDGET_TYPE && !standIn.element ? [{ input, standIn }] : [];
  });
}

/**
 * Adds a widget without what the editor does when the node is added or removed: it lasts only until
 * the editor makes another stand-in.
 * @param {Editor.Node} host
 * @param {Editor.Widget} standIn
 */
function addWidget(host, standIn) {
  const own = host._extraWidgets;
  const { onAdded, onRemoved, onResize } = host;
  const store = { get: () => standIn.value, set: (/** @type {unknown} */ value) => (standIn.value = value) };
  const { widget } = addRowsWidget(host, standIn.name, store);
  Object.assign(host, { onAdded, onRemoved, onResize });
  // Newer editors list a node's own widgets after those of its inputs, where this one is already.
  if (own?.includes(widget)) own.splice(own.indexOf(widget), 1);
  return widget;
}

/** The widget that was put in for an input. @type {WeakMap<Editor.Input, Editor.Widget>} */
const shown = new WeakMap();

/** @param {Editor.Node} host */
function replaceStandIns(host) {
  if (host.graph?.getNodeById(String(host.id)) !== host) return; // not in its place yet
  for (const { input, standIn } of standIns(host)) {
    const widget = addWidget(host, standIn);
    shown.get(input)?.onRemove?.(); // the editor has forgotten it
    shown.set(input, widget);
    input._widget = widget;
    queueMicrotask(() => {
      widget.value = standIn.value; // the editor writes a saved value past the widget
      if (host.size[0] < MIN_WIDTH) host.setSize([MIN_WIDTH, host.size[1]]);
    });
  }
}

/**
 * Shows rows at a node of a subgraph whenever they are promoted to it.
 * @param {Editor.Node} node
 */
export function showPromotedRows(node) {
  node.subgraph?.events?.addEventListener("widget-promoted", ({ detail }) => {
    if (detail.subgraphNode === node) replaceStandIns(node);
  });
}
