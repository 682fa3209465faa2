// What nodes have put out, as the editor keeps it for a workflow whose tab is left and opened again.

import { app } from "../../scripts/app.js";

/**
 * The node of a key of kept results: a node's id, in subgraphs after the subgraph's own id.
 * @param {string} key
 */
function nodeOf(key) {
  const [id, subgraph] = key.split(":").reverse();
  const graph = subgraph === undefined ? app.rootGraph : app.rootGraph.subgraphs?.get(subgraph);
  return graph?.getNodeById(id);
}

/**
 * @param {Record<string, Editor.NodeResult>} outputs
 * @returns {{ node: Editor.Node, result: Editor.NodeResult }[]} of the nodes that are there
 */
export function eachOutput(outputs) {
  return Object.entries(outputs).flatMap(([key, result]) => {
    const node = nodeOf(key);
    return node ? [{ node, result }] : [];
  });
}

/** @param {string[]} [lines] as a node returns them */
export const textOf = (lines) => [lines ?? []].flat().join("\n");
