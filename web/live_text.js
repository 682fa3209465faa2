// Shows in a node what its model writes, while it writes, and what that took when it is done.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { renderReport } from "./markdown.js";

const SHOWN_BY = new Set(["VivaceQwenVL", "VivaceQwenVLBatch"]);
const views = new Set();

function part(parent, tag, className) {
  const made = document.createElement(tag);
  made.className = className;
  parent.append(made);
  return made;
}

function folded(parent, title, className) {
  const details = part(parent, "details", className);
  part(details, "summary", "").textContent = title;
  return { details, body: part(details, "div", "vivace-folded") };
}

// Copies the text of `source`; says so for a moment.
function copyButton(parent, label, source) {
  const button = part(parent, "button", "vivace-copy");
  button.textContent = "Copy";
  button.ariaLabel = label;
  button.addEventListener("click", async (event) => {
    event.preventDefault(); // or the part would fold
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not allowed"; // pages that are not secure may not
    }
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  return button;
}

function createView(node) {
  const root = document.createElement("div");
  root.className = "vivace-live";
  // Wheel and selection belong to the text, not to the canvas beneath it.
  for (const event of ["pointerdown", "wheel"]) root.addEventListener(event, (e) => e.stopPropagation());
  const view = {
    node,
    thinking: folded(root, "Thinking", "vivace-thinking"),
    answer: part(root, "div", "vivace-answer"),
    copy: null,
    report: folded(root, "Report", "vivace-timings"),
  };
  copyButton(view.thinking.details.querySelector("summary"), "Copy the thinking", view.thinking.body);
  view.copy = copyButton(root, "Copy the text", view.answer);
  view.answer.after(view.copy);
  view.copy.hidden = true;
  view.answer.textContent = "Run to see the text.";
  view.thinking.details.hidden = view.report.details.hidden = true;
  const options = { serialize: false, getMinHeight: () => 140 };
  node.addDOMWidget("live_text", "VIVACE_LIVE_TEXT", root, options).serialize = false;
  return view;
}

function showText(view, answer, thinking) {
  view.answer.textContent = answer;
  view.thinking.body.textContent = thinking;
  view.thinking.details.hidden = !thinking;
  view.copy.hidden = !answer;
  view.answer.parentElement.scrollTop = view.answer.parentElement.scrollHeight;
}

// The id of a node in a subgraph ends in its own, after those of the subgraphs.
const isOf = (view, id) => String(id).split(":").pop() === String(view.node.id);

api.addEventListener("vivace.text", ({ detail }) => {
  for (const view of views) {
    if (!isOf(view, detail.node)) continue;
    view.report.details.hidden = true;
    showText(view, detail.answer, detail.thinking);
  }
});

app.registerExtension({
  name: "Vivace.LiveText",
  settings: [
    {
      id: "Vivace.QwenVL.DiskMB",
      category: ["Vivace", "QwenVL", "DiskMB"],
      name: "Image embeddings on disk, in MB",
      tooltip: "Kept across restarts. 0 keeps none on disk. Takes effect when ComfyUI is started.",
      type: "number",
      defaultValue: 0,
    },
    {
      id: "Vivace.QwenVL.MemoryMB",
      category: ["Vivace", "QwenVL", "MemoryMB"],
      name: "Image embeddings in memory, in MB",
      tooltip: "-1 keeps up to 2048 MB. Takes effect when ComfyUI is started.",
      type: "number",
      defaultValue: -1,
    },
  ],
  nodeCreated(node) {
    if (!SHOWN_BY.has(node.comfyClass)) return;
    const view = createView(node);
    views.add(view);
    const { onExecuted, onRemoved } = node;
    node.onExecuted = function (result) {
      onExecuted?.apply(this, arguments);
      if (!result?.text) return;
      showText(view, [].concat(result.text).join("\n"), [].concat(result.thinking ?? "").join("\n"));
      renderReport(view.report.body, [].concat(result.report ?? "").join("\n"));
      view.report.details.hidden = false;
    };
    node.onRemoved = function () {
      onRemoved?.apply(this, arguments);
      views.delete(view);
    };
  },
});
