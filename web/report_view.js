// Shows a node's text result in the node itself, after it has run.

import { app } from "../../scripts/app.js";
import { renderReport } from "./markdown.js";

const SHOWN_BY = new Set(["VivaceLoraInspect", "VivaceQwenVLCache", "VivaceQwenVLDownload"]);

function createView(node) {
  const text = document.createElement("pre");
  text.className = "vivace-report";
  text.textContent = "Run to see the report.";
  // Wheel and selection belong to the text, not to the canvas beneath it.
  for (const event of ["pointerdown", "wheel"]) text.addEventListener(event, (e) => e.stopPropagation());
  const options = { serialize: false, getMinHeight: () => 120 };
  node.addDOMWidget("report_view", "VIVACE_REPORT", text, options).serialize = false;
  return text;
}

app.registerExtension({
  name: "Vivace.ReportView",
  nodeCreated(node) {
    if (!SHOWN_BY.has(node.comfyClass)) return;
    const view = createView(node);
    const { onExecuted } = node;
    node.onExecuted = function (result) {
      onExecuted?.apply(this, arguments);
      if (!result?.text) return;
      const text = [].concat(result.text).join("\n");
      if (text.startsWith("|")) renderReport(view, text);
      else view.textContent = text;
    };
  },
});
