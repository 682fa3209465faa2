// Shows in a Preview Outputs what came in, after it has run.

import { app } from "../../../scripts/app.js";
import { make, makeReadable } from "../dom.js";
import { eachOutput } from "../outputs.js";
import { viewOf } from "./value_view.js";

const NODE = "VivacePreviewOutputs";
const FIRST_SIZE = [400, 460];
const LEAST_HEIGHT = 140;

/** @type {WeakMap<Editor.Node, HTMLElement>} */
const views = new WeakMap();

/** What a view shows, as JSON. @type {WeakMap<HTMLElement, string>} */
const shown = new WeakMap();

/**
 * @param {HTMLElement} view
 * @param {Editor.NodeResult} result
 */
function showResult(view, result) {
  if (!result?.values) return;
  const content = JSON.stringify(result.values);
  if (shown.get(view) === content) return; // a player goes on
  shown.set(view, content);
  if (result.values.length) view.replaceChildren(...result.values.map(viewOf));
  else view.textContent = "Connect what you want to see.";
}

app.registerExtension({
  name: "Vivace.PreviewOutputs",
  setup() {
    document.head.append(make("link", { rel: "stylesheet", href: new URL("./values.css", import.meta.url).href }));
  },
  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    const view = make("div", { className: "vivace-values", role: "region", ariaLabel: "Values" });
    view.textContent = "Run to see the values.";
    makeReadable(view);
    views.set(node, view);
    const options = { serialize: false, getMinHeight: () => LEAST_HEIGHT };
    node.addDOMWidget("values_view", "VIVACE_VALUES", view, options).serialize = false;
    node.setSize([Math.max(node.size[0], FIRST_SIZE[0]), Math.max(node.size[1], FIRST_SIZE[1])]);
    // The images are in the view; the editor would show them a second time, in either renderer.
    node.hideOutputImages = true;
    node.onDrawBackground = () => {};
    const { onExecuted } = node;
    node.onExecuted = function (result) {
      onExecuted?.call(this, result);
      showResult(view, result);
    };
  },
  onNodeOutputsUpdated(outputs) {
    for (const { node, result } of eachOutput(outputs)) {
      const view = views.get(node);
      if (view) showResult(view, result);
    }
  },
});
