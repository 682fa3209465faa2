// Shows a node's text result in the node itself, after it has run.

import { app } from "../../scripts/app.js";
import { make, makeReadable } from "./dom.js";
import { renderReport } from "./markdown.js";

const SHOWN_BY = new Set(["VivaceLoraInspect", "VivaceQwenVLCache", "VivaceQwenVLDownload"]);

app.registerExtension({
  name: "Vivace.ReportView",
  nodeCreated(node) {
    if (!SHOWN_BY.has(node.comfyClass)) return;
    const view = make("div", { className: "vivace-report", role: "region", ariaLabel: "Report" });
    view.textContent = "Run to see the report.";
    makeReadable(view);
    const options = { serialize: false, getMinHeight: () => 120 };
    node.addDOMWidget("report_view", "VIVACE_REPORT", view, options).serialize = false;
    const { onExecuted } = node;
    node.onExecuted = function (result) {
      onExecuted?.call(this, result);
      if (!result?.text) return;
      const text = result.text.join("\n");
      if (text.startsWith("|")) renderReport(view, text);
      else view.textContent = text;
    };
  },
});
