// Shows in a node what its model writes, while it writes, and what that took when it is done.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { copyButton } from "./copy.js";
import { make, makeReadable } from "./dom.js";
import { renderReport } from "./markdown.js";
import { eachOutput, textOf } from "./outputs.js";
import { settingOf } from "./settings.js";

const SHOWN_BY = new Set(["VivaceQwenVL", "VivaceQwenVLBatch", "VivaceGenerateText"]);

class TextView {
  constructor() {
    this.thinking = make("div", { className: "vivace-folded" });
    const copyThinking = copyButton("Copy", "Copy the thinking", () => this.thinking.textContent);
    this.foldedThinking = make(
      "details",
      { className: "vivace-thinking", hidden: true },
      make("summary", {}, "Thinking", copyThinking),
      this.thinking,
    );
    this.answer = make("div", { className: "vivace-answer", textContent: "Run to see the text." });
    this.copyAnswer = copyButton("Copy", "Copy the text", () => this.answer.textContent);
    this.copyAnswer.hidden = true;
    this.report = make("div", { className: "vivace-folded" });
    this.foldedReport = make(
      "details",
      { className: "vivace-timings", hidden: true, open: Boolean(settingOf("Vivace.General.OpenReports")) },
      make("summary", { textContent: "Report" }),
      this.report,
    );
    this.element = make(
      "div",
      { className: "vivace-live", role: "region", ariaLabel: "Text of the model" },
      this.foldedThinking,
      this.answer,
      this.copyAnswer,
      this.foldedReport,
    );
    makeReadable(this.element);
  }

  /**
   * @param {string} answer
   * @param {string} thinking
   */
  showText(answer, thinking) {
    this.answer.textContent = answer;
    this.thinking.textContent = thinking;
    this.foldedThinking.hidden = !thinking;
    this.copyAnswer.hidden = !answer;
    this.foldedReport.hidden = true;
    this.element.scrollTop = this.element.scrollHeight;
  }

  /** @param {Editor.NodeResult} result */
  showResult(result) {
    if (!result?.text) return;
    this.showText(textOf(result.text), textOf(result.thinking));
    renderReport(this.report, textOf(result.report));
    this.foldedReport.hidden = false;
  }
}

/** @type {WeakMap<Editor.Node, TextView>} */
const views = new WeakMap();

/**
 * The node that the server means: "3:12" is node 12 in the subgraph of node 3.
 * @param {string} id
 */
function nodeOf(id) {
  const path = String(id).split(":");
  const last = path.pop() ?? "";
  /** @type {Editor.Graph | undefined} */
  let graph = app.rootGraph;
  for (const part of path) graph = graph?.getNodeById(part)?.subgraph;
  return graph?.getNodeById(last);
}

api.addEventListener("vivace.text", ({ detail }) => {
  const node = nodeOf(detail.node);
  if (node) views.get(node)?.showText(detail.answer, detail.thinking);
});

app.registerExtension({
  name: "Vivace.LiveText",
  nodeCreated(node) {
    if (!SHOWN_BY.has(node.comfyClass)) return;
    const view = new TextView();
    views.set(node, view);
    const options = { serialize: false, getMinHeight: () => 140 };
    node.addDOMWidget("live_text", "VIVACE_LIVE_TEXT", view.element, options).serialize = false;
    const { onExecuted } = node;
    node.onExecuted = function (result) {
      onExecuted?.call(this, result);
      view.showResult(result);
    };
  },
  onNodeOutputsUpdated(outputs) {
    for (const { node, result } of eachOutput(outputs)) views.get(node)?.showResult(result);
  },
});
