// Replaces the editor's placeholders (%date:yyyy-MM-dd%, %Node.widget%) in file name prefixes, as
// the editor itself does for its own nodes only.

import { app } from "../../scripts/app.js";

const NODES = new Set(["VivacePreviewIf"]);

app.registerExtension({
  name: "Vivace.FilenamePrefix",
  nodeCreated(node) {
    if (!NODES.has(node.comfyClass)) return;
    const widget = node.widgets?.find(({ name }) => name === "filename_prefix");
    // Not imported: editors warn of the module that has it, and may drop it.
    const replace = window.comfyAPI?.utils?.applyTextReplacements;
    if (!widget || !replace) return;
    widget.serializeValue = () => replace(app.graph, String(widget.value));
  },
});
