// Makes room in a node for what has grown, or gives it back.

/**
 * Makes the node taller or shorter by a number of pixels, but never too short.
 * @param {Editor.Node} node
 * @param {number} by
 */
export function resizeNode(node, by) {
  const [width, height] = node.size;
  const wanted = Math.max(node.computeSize()[1], height + by);
  if (node.graph && wanted !== height) node.setSize([width, wanted]);
  node.setDirtyCanvas(true, true);
}
