// Puts a stack of rows into a node.

import { resizeNode } from "../node_size.js";
import { LoraStack } from "./stack.js";
import { kept, normalRows } from "./state.js";

export const WIDGET_TYPE = "VIVACE_LORA_ROWS";
export const MIN_WIDTH = 380; // in which all controls have room
const MARGIN = 20; // that the canvas keeps around a widget

/**
 * @typedef {object} Store where the value is kept, if not in the widget
 * @property {() => unknown} get
 * @property {(value: unknown) => void} set
 */

/**
 * @param {Editor.Node} node
 * @param {string} name
 * @param {Store} [store]
 */
export function addRowsWidget(node, name, store) {
  const stack = new LoraStack();
  const height = () => stack.height + MARGIN;
  const widget = node.addDOMWidget(name, WIDGET_TYPE, stack.element, {
    getValue: () => (store ? kept(normalRows(store.get())) : stack.value),
    setValue: (value) => {
      stack.value = value;
      keep();
      resizeNode(node, 0); // a saved node has its size already
    },
    getMinHeight: height,
    getMaxHeight: height,
    hideOnZoom: false, // rows are read and switched from afar, too
  });
  const keep = () => {
    if (store) store.set(kept(stack.value));
    // Older editors read from here what a promoted widget sends.
    else if (widget._state) widget._state.value = kept(stack.value);
  };
  stack.onChange = (grown) => {
    keep();
    resizeNode(node, grown);
    widget.callback?.(stack.value);
  };
  const { onRemove } = widget;
  widget.onRemove = () => {
    stack.destroy();
    onRemove?.call(widget);
  };
  return { widget, stack, height };
}
