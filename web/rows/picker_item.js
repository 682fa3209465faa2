// One line of the picker: a folder, a file, or a heading.

import { make } from "../dom.js";
import { countOf } from "./picker_items.js";

/** @typedef {import("./picker_items.js").Item} Item */

/**
 * The text with every word marked.
 * @param {string} text
 * @param {string[]} words in lower case
 * @returns {(Node | string)[]}
 */
function marked(text, words) {
  const lower = text.toLowerCase();
  const hit = words.filter((word) => lower.includes(word)).sort((a, b) => b.length - a.length)[0];
  if (!hit) return [text];
  const at = lower.indexOf(hit);
  const end = at + hit.length;
  return [...marked(text.slice(0, at), words), make("mark", {}, text.slice(at, end)), ...marked(text.slice(end), words)];
}

/**
 * @param {Item} item
 * @param {object} state
 * @param {number} state.index
 * @param {number} state.count of all items
 * @param {boolean} state.active
 * @param {boolean} state.chosen whether it is the file of the row
 * @param {string} state.folder the folder that is shown
 * @param {string[]} state.words of the query
 */
export function itemElement(item, { index, count, active, chosen, folder, words }) {
  if (item.kind === "heading") {
    return make("div", { className: "vivace-list-heading", role: "presentation", textContent: item.text });
  }
  const element = make("div", { id: `vivace-item-${index}`, className: "vivace-list-item", role: "option" });
  element.ariaSelected = String(active);
  element.ariaSetSize = String(count);
  element.ariaPosInSet = String(index + 1);
  element.classList.toggle("vivace-list-chosen", chosen);
  element.dataset.index = String(index);
  if (item.kind === "folder") {
    element.ariaLabel = `Folder ${item.text}, ${countOf(item.count, "file")}`;
    element.append(
      make("span", { className: "vivace-list-icon", textContent: "▸", ariaHidden: "true" }),
      make("span", { className: "vivace-list-stem", textContent: item.text }),
      make("span", { className: "vivace-list-note", textContent: String(item.count) }),
    );
  } else {
    const { name, stem, folder: home } = item.entry;
    element.ariaLabel = name;
    element.append(
      make("span", { className: "vivace-list-stem" }, ...marked(stem, words)),
      // Where it is, unless that is where the user is.
      make("span", { className: "vivace-list-note" }, ...marked(home === folder ? "" : home.slice(0, -1), words)),
    );
  }
  return element;
}
