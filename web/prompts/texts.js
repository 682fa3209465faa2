// The texts of a Prompt Manager node: in its widgets, as far as nothing is linked to them.

import { recordChange } from "../rows/history.js";

/** @typedef {Partial<Record<"prompt" | "positive" | "negative" | "seed", string | number>>} Values */

/**
 * The widget of an input; none if a link or a subgraph's input gives the value.
 * @param {Editor.Node} node
 * @param {string} name
 */
function widgetOf(node, name) {
  const input = node.inputs?.find((one) => one.name === name);
  if (input && input.link !== null && input.link !== undefined) return undefined;
  return node.widgets?.find((widget) => widget.name === name);
}

/**
 * @param {Editor.Node} node
 * @param {string} name
 */
export const isLinked = (node, name) => !widgetOf(node, name);

/**
 * @param {Editor.Node} node
 * @param {string} name
 */
export const textOf = (node, name) => String(widgetOf(node, name)?.value ?? "");

/**
 * Sets what is not linked: one step to undo.
 * @param {Editor.Node} node
 * @param {Values} values
 */
export function setValues(node, values) {
  for (const [name, value] of Object.entries(values)) {
    const widget = widgetOf(node, name);
    if (!widget) continue;
    widget.value = value;
    widget.callback?.(value);
  }
  node.setDirtyCanvas(true, true);
  recordChange();
}

/**
 * A text that means itself, whatever braces and bars it has.
 * @param {string} text
 */
export const literal = (text) => text.replace(/\\(?=[{}|\\])|[{}|]/g, "\\$&");
