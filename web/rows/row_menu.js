// The commands of a row.

import { isSolo } from "./state.js";

/**
 * @typedef {object} RowCommands
 * @property {(by: number) => void} move
 * @property {() => void} duplicate
 * @property {() => void} remove
 * @property {() => void} solo
 * @property {() => void} separate
 * @property {() => void} info
 */

/**
 * @param {import("./state.js").Row[]} rows
 * @param {number} index
 * @param {RowCommands} commands
 * @returns {(import("./menu.js").MenuItem | null)[]}
 */
export function rowMenu(rows, index, commands) {
  const row = rows[index];
  return [
    { label: "Info", run: commands.info, disabled: !row.lora },
    null,
    { label: "Solo", run: commands.solo, checked: isSolo(rows, index), disabled: rows.length < 2 },
    { label: "Separate text encoder strength", run: commands.separate, checked: row.strength_clip !== undefined },
    null,
    { label: "Move up", run: () => commands.move(-1), keys: "Alt+↑", disabled: index === 0 },
    { label: "Move down", run: () => commands.move(1), keys: "Alt+↓", disabled: index === rows.length - 1 },
    { label: "Duplicate", run: commands.duplicate },
    { label: "Remove", run: commands.remove, keys: "Delete" },
  ];
}
