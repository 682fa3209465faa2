// The pack's settings in the editor's dialog, and what they do to new nodes. What the server does by
// them is in nodes/settings.py.

import { app } from "../../scripts/app.js";

/** @type {Editor.Setting[]} */
const SETTINGS = [
  {
    id: "Vivace.General.LogDetail",
    category: ["Vivace", "General", "LogDetail"],
    name: "Detail of the server's log",
    tooltip: "What this pack writes there. Quiet: warnings and errors only. Takes effect at once.",
    type: "combo",
    options: [
      { text: "Quiet", value: "quiet" },
      { text: "Normal", value: "normal" },
      { text: "Detailed", value: "detailed" },
    ],
    defaultValue: "normal",
  },
  {
    id: "Vivace.General.OpenReports",
    category: ["Vivace", "General", "OpenReports"],
    name: "Open reports in new nodes",
    tooltip: "Those of the LoRA nodes and of QwenVL; a click on a report's line opens it, too.",
    type: "boolean",
    defaultValue: false,
  },
  {
    id: "Vivace.LoRA.Mode",
    category: ["Vivace", "LoRA", "Mode"],
    name: "Mode in new LoRA nodes",
    tooltip: "The value that the input begins with. Nodes of saved workflows keep theirs.",
    type: "combo",
    options: ["auto", "merge", "branch"],
    defaultValue: "auto",
  },
  {
    id: "Vivace.LoRA.CacheMB",
    category: ["Vivace", "LoRA", "CacheMB"],
    name: "RAM for LoRA files, in MB",
    tooltip: "LoRA files kept in memory between runs. -1 uses an eighth of the RAM, 0 keeps none.",
    type: "number",
    defaultValue: -1,
  },
  {
    id: "Vivace.QwenVL.ImageQuality",
    category: ["Vivace", "QwenVL", "ImageQuality"],
    name: "Image quality in new QwenVL nodes",
    tooltip: "The value that the input begins with. Nodes of saved workflows keep theirs.",
    type: "combo",
    options: ["auto", "fast", "balanced", "high", "ultra"],
    defaultValue: "balanced",
  },
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
  {
    id: "Vivace.Workflow.ReplaceMissing",
    category: ["Vivace", "Workflow", "ReplaceMissing"],
    name: "Stand in for nodes of packs that are not installed",
    tooltip: "When a workflow is opened, as far as all values and links find a place in ours.",
    type: "boolean",
    defaultValue: true,
  },
];

// Inputs of new nodes, and the settings that they begin with.
/** @type {Record<string, Record<string, string>>} */
const DEFAULTS = {
  VivaceLoraStack: { mode: "Vivace.LoRA.Mode" },
  VivaceLoraLoader: { mode: "Vivace.LoRA.Mode" },
  VivaceQwenVL: { image_quality: "Vivace.QwenVL.ImageQuality" },
  VivaceQwenVLBatch: { image_quality: "Vivace.QwenVL.ImageQuality" },
};

/** @param {string} id */
export const settingOf = (id) => app.extensionManager.setting.get(id);

app.registerExtension({
  name: "Vivace.Settings",
  settings: SETTINGS,
  nodeCreated(node) {
    for (const [input, id] of Object.entries(DEFAULTS[node.comfyClass] ?? {})) {
      const widget = node.widgets?.find((one) => one.name === input);
      const value = settingOf(id);
      if (widget?.options?.values?.includes(value)) widget.value = value;
    }
  },
});
