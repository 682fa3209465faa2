// The buttons of the rows.

import { make } from "../dom.js";

/**
 * @param {string} part which of its row's controls it is
 * @param {Record<string, unknown>} properties
 * @param {...(Node | string)} children
 */
export function button(part, properties, ...children) {
  const made = make("button", { type: "button", className: `vivace-rows-${part}`, ...properties }, ...children);
  made.dataset.part = part;
  return made;
}
