// Opens workflows of other packs with our nodes in the place of those that are not installed.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { settingOf } from "./settings.js";

/**
 * @typedef {object} Report
 * @property {{ node: string, notes: string[] }[]} replaced
 * @property {{ node: string, old: string, into: string }[]} folded
 * @property {string[]} lines what was done, to read
 */

// What a migration may change of a graph. The rest may be shared with the editor already.
/** @type {(keyof Editor.SavedGraph)[]} */
const CHANGED = ["nodes", "links", "inputs", "last_link_id", "state"];

/** @param {Editor.Workflow} workflow */
function graphsOf(workflow) {
  return [workflow, ...(workflow.definitions?.subgraphs ?? [])];
}

/**
 * Whether there are nodes that are neither registered nor subgraphs of the workflow.
 * @param {Editor.Workflow} workflow
 */
function lacksSome(workflow) {
  const known = LiteGraph.registered_node_types;
  const inside = new Set((workflow.definitions?.subgraphs ?? []).map((graph) => graph.id));
  const lacks = (/** @type {Editor.SavedNode | null} */ node) =>
    node?.type !== undefined && !Object.hasOwn(known, node.type) && !inside.has(node.type);
  return graphsOf(workflow).some((graph) => Array.isArray(graph.nodes) && graph.nodes.some(lacks));
}

/**
 * @param {Editor.Workflow} workflow
 * @returns {Promise<{ workflow: Editor.Workflow, report: Report }>}
 */
async function migrate(workflow) {
  const response = await api.fetchApi("/vivace/migrate", {
    method: "POST",
    body: JSON.stringify(workflow),
  });
  if (!response.ok) throw new Error(`/vivace/migrate: ${response.status}`);
  return response.json();
}

/** @param {Report} report */
function tell({ replaced, folded, lines }) {
  console.info(["Vivace, nodes of packs that are not installed:", ...lines].join("\n"));
  const notes = replaced.flatMap((item) => item.notes.map((note) => `${item.node}: ${note}`));
  notes.push(...folded.map((item) => `${item.node}: ${item.old} is part of ${item.into} now`));
  const count = replaced.length === 1 ? "a node" : `${replaced.length} nodes`;
  app.extensionManager.toast.add({
    severity: notes.length ? "warn" : "info",
    summary: `Vivace stands in for ${count} of packs that are not installed`,
    detail: notes.length ? notes.join("\n") : "Their values and links were carried over.",
    life: notes.length ? undefined : 8000,
  });
}

app.registerExtension({
  name: "Vivace.MissingNodes",
  async beforeConfigureGraph(workflow) {
    if (!settingOf("Vivace.Workflow.ReplaceMissing") || !lacksSome(workflow)) return;
    try {
      const { workflow: migrated, report } = await migrate(workflow);
      if (report.replaced.length === 0) return;
      // The editor has read the list of subgraphs already; each is changed where it stands.
      const ours = graphsOf(migrated);
      graphsOf(workflow).forEach((graph, index) => {
        const changed = CHANGED.filter((key) => key in ours[index]);
        Object.assign(graph, Object.fromEntries(changed.map((key) => [key, ours[index][key]])));
      });
      tell(report);
    } catch (error) {
      console.error("Vivace: the workflow was opened as it is.", error);
    }
  },
});
