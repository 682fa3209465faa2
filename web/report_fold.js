// The report of a LoRA node under its rows: one line, and on a click the table and what was left out.

import { app } from "../../scripts/app.js";
import { keepPlainKeys, make } from "./dom.js";
import { renderReport } from "./markdown.js";
import { resizeNode } from "./node_size.js";
import { eachOutput, textOf } from "./outputs.js";
import { settingOf } from "./settings.js";

const SHOWN_BY = new Set(["VivaceLoraStack", "VivaceLoraLoader"]);
const OPEN = "vivace_report_open"; // a property of the node, as its saved size depends on it
const LINE = 26;
const OPEN_HEIGHT = 180;
const MARGIN = 20; // that the canvas keeps around a widget

class ReportFold {
  /** @param {Editor.Node} node */
  constructor(node) {
    this.node = node;
    this.line = make("button", { type: "button" });
    this.body = make("div", { className: "vivace-fold-body", tabIndex: 0 });
    this.element = make("div", { className: "vivace-fold" }, this.line, this.body);
    this.line.addEventListener("click", () => this.toggle());
    this.element.addEventListener("pointerdown", (event) => event.stopPropagation());
    this.element.addEventListener("wheel", (event) => {
      event.stopPropagation();
      if (this.opened) return; // the text scrolls
      event.preventDefault();
      app.canvas.processMouseWheel(event);
    });
    keepPlainKeys(this.element);
    this.opened = Boolean(settingOf("Vivace.General.OpenReports"));
    this.show("");
  }

  get height() {
    return (this.opened ? OPEN_HEIGHT : LINE) + MARGIN;
  }

  get opened() {
    return !this.body.hidden;
  }

  set opened(opened) {
    this.body.hidden = !opened;
    this.line.ariaExpanded = String(opened);
  }

  toggle() {
    const before = this.height;
    this.opened = !this.opened;
    this.node.properties[OPEN] = this.opened;
    resizeNode(this.node, this.height - before);
  }

  /** @param {string} report */
  show(report) {
    const [line, ...rest] = report.split("\n");
    this.line.textContent = line || "Run to see the report.";
    this.line.classList.toggle("vivace-attention", line.includes("not applied"));
    renderReport(this.body, rest.join("\n"));
    this.line.disabled = !this.opened && !this.body.hasChildNodes();
  }

  /** @param {Editor.NodeResult} result */
  showResult(result) {
    if (result?.text) this.show(textOf(result.text));
  }
}

/** @type {WeakMap<Editor.Node, ReportFold>} */
const views = new WeakMap();

app.registerExtension({
  name: "Vivace.ReportFold",
  nodeCreated(node) {
    if (!SHOWN_BY.has(node.comfyClass)) return;
    const view = new ReportFold(node);
    views.set(node, view);
    node.addDOMWidget("report_fold", "VIVACE_REPORT", view.element, {
      serialize: false,
      getMinHeight: () => view.height,
      getMaxHeight: () => (view.opened ? undefined : view.height),
    }).serialize = false;
    const { onExecuted, onConfigure } = node;
    node.onExecuted = function (result) {
      onExecuted?.call(this, result);
      view.showResult(result);
    };
    node.onConfigure = function (saved) {
      onConfigure?.call(this, saved);
      view.opened = Boolean(node.properties[OPEN]);
    };
  },
  onNodeOutputsUpdated(outputs) {
    for (const { node, result } of eachOutput(outputs)) views.get(node)?.showResult(result);
  },
});
