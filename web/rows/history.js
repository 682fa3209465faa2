// The editor's undo history.

import { app } from "../../../scripts/app.js";

/** Tells the editor that the user has changed something: one step to undo. */
export function recordChange() {
  app.canvas.emitBeforeChange();
  app.canvas.emitAfterChange(); // compares the graph with what it was, and keeps the difference
}

/**
 * Undoes or redoes in the editor when a field has the focus whose text is as it was; the editor
 * itself leaves these keys to text fields.
 * @param {KeyboardEvent} event
 * @returns {boolean} whether it was such a key
 */
export function undoFromField(event) {
  if (!(event.ctrlKey || event.metaKey) || event.altKey) return false;
  const key = event.key.toLowerCase();
  const undo = key === "z" && !event.shiftKey;
  const redo = (key === "y" && !event.shiftKey) || (key === "z" && event.shiftKey);
  if (!undo && !redo) return false;
  event.preventDefault();
  event.stopPropagation();
  app.extensionManager.command.execute(undo ? "Comfy.Undo" : "Comfy.Redo");
  return true;
}
