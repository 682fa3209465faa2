// Clears an API key that is given where its name belongs, before the editor keeps it: in the
// workflow, in its history or in the drafts of the browser.

import { app } from "../../scripts/app.js";
import { looksLikeKey } from "./key_shape.js";

const NODES = new Set(["VivaceApiKey", "VivaceQwenVL", "VivaceQwenVLBatch", "VivaceGenerateText"]);
const INPUTS = new Set(["key_name", "api_key_variable"]);
/** @type {Record<string, string>} */
const PLACES = {
  key_name: "Store it where source says (an environment variable, the keyring or the secrets file) and give its name.",
  api_key_variable: "Put it into an environment variable of ComfyUI's process, and give that variable's name.",
};
const ADVICE = "A key that was pasted may be in the clipboard's history: consider a new one.";

/**
 * The last part of a widget's name; inputs of a choice have the choice's before it.
 * @param {Editor.Widget} widget
 */
const inputOf = (widget) => widget.name.slice(widget.name.lastIndexOf(".") + 1);

/**
 * A field of the page that shows the text goes on to show it when the value is as it was before.
 * @param {string} text
 * @param {boolean} tell whether the editor shall hear of it
 */
function clearFields(text, tell) {
  for (const field of document.querySelectorAll("input, textarea")) {
    if ((field instanceof HTMLInputElement || field instanceof HTMLTextAreaElement) && field.value === text) {
      field.value = "";
      // Older editors keep the text beside the field, and would write it back.
      if (tell) field.dispatchEvent(new Event("input", { bubbles: true }));
    }
  }
}

/**
 * Clears the value if it is a key.
 * @param {Editor.Widget} widget
 * @returns {boolean} whether it was
 */
function clearKey(widget) {
  const { value } = widget;
  if (typeof value !== "string" || !looksLikeKey(value)) return false;
  widget.value = "";
  clearFields(value, false);
  setTimeout(() => clearFields(value, true)); // when the editor has shown it again
  app.extensionManager.toast.add({
    severity: "error",
    summary: "That looks like an API key, and was not kept",
    detail: `${PLACES[inputOf(widget)]} ${ADVICE}`,
  });
  return true;
}

/** @type {WeakSet<Editor.Widget>} */
const guarded = new WeakSet();

/** @param {Editor.Widget} widget */
function guard(widget) {
  if (!INPUTS.has(inputOf(widget)) || guarded.has(widget)) return;
  guarded.add(widget);
  const { callback } = widget;
  widget.callback = function (value, ...more) {
    if (clearKey(widget)) callback?.call(widget, "", ...more);
    else callback?.call(widget, value, ...more);
  };
}

/** @param {Editor.Node} node */
function guardAll(node) {
  for (const widget of node.widgets ?? []) guard(widget);
}

app.registerExtension({
  name: "Vivace.ApiKey",
  nodeCreated(node) {
    node.subgraph?.events?.addEventListener("widget-promoted", ({ detail }) => {
      if (detail.subgraphNode === node) queueMicrotask(() => guardAll(node));
    });
    if (!NODES.has(node.comfyClass)) return;
    guardAll(node);
    const { addCustomWidget, configure } = node;
    // An input with choices brings widgets of its own, and replaces them with the choice.
    node.addCustomWidget = (widget) => {
      const added = addCustomWidget.call(node, widget);
      guard(added);
      return added;
    };
    node.configure = (saved) => {
      configure.call(node, saved);
      for (const widget of node.widgets ?? []) if (INPUTS.has(inputOf(widget))) clearKey(widget);
    };
  },
});
