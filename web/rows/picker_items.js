// What the picker lists for a folder and a query: pure functions.

import { foldersIn } from "../folders.js";

/**
 * @typedef {object} Entry a LoRA file
 * @property {string} name
 * @property {string} folder "" at the top, else with a slash at its end
 * @property {string} stem without folder and extension
 * @property {string} lower the name in lower case
 * @property {boolean} preview
 */

/**
 * @typedef {{ kind: "heading", text: string }
 *   | { kind: "folder", folder: string, text: string, count: number }
 *   | { kind: "file", entry: Entry }} Item
 */

const compare = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" }).compare;

/**
 * The folder of a name, with a slash at its end, and its name without folder and extension.
 * @param {string} name
 */
export function splitName(name) {
  const slash = name.lastIndexOf("/") + 1;
  return { folder: name.slice(0, slash), stem: name.slice(slash).replace(/\.[^.]+$/, "") };
}

/**
 * Sorted by name, numbers by value.
 * @param {import("./server.js").Lora[]} loras
 * @returns {Entry[]}
 */
export function entriesOf(loras) {
  const entries = loras.map(({ name: listed, preview }) => {
    const name = listed.replaceAll("\\", "/");
    return { name, ...splitName(name), lower: name.toLowerCase(), preview };
  });
  return entries.sort((a, b) => compare(a.name, b.name));
}

/**
 * The folders and files in a folder; at the top, the files used last come first.
 * @param {Entry[]} entries
 * @param {string} folder
 * @param {string[]} recent
 * @returns {Item[]}
 */
export function folderItems(entries, folder, recent) {
  const used = folder === "" ? recentItems(entries, recent) : [];
  const files = entries.filter((entry) => entry.folder === folder);
  /** @type {Item[]} */
  const others = [
    ...foldersIn(entries, folder),
    ...files.map((entry) => ({ kind: /** @type {"file"} */ ("file"), entry })),
  ];
  return used.length && others.length ? [...used, { kind: "heading", text: "All files" }, ...others] : others;
}

/**
 * @param {Entry[]} entries
 * @param {string[]} recent
 * @returns {Item[]}
 */
function recentItems(entries, recent) {
  const wanted = new Set(recent);
  const found = new Map(entries.filter((entry) => wanted.has(entry.name)).map((entry) => [entry.name, entry]));
  const used = recent.map((name) => found.get(name)).filter((entry) => entry !== undefined);
  if (!used.length) return [];
  return [{ kind: "heading", text: "Used last" }, ...used.map((entry) => /** @type {Item} */ ({ kind: "file", entry }))];
}

/**
 * @param {number} count
 * @param {string} noun
 */
export const countOf = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

/** @param {string} query */
export const wordsOf = (query) => query.toLowerCase().split(/\s+/).filter(Boolean);

/**
 * How well a word fits: 0 at the beginning of the file's name, 1 at that of a word in it, 2
 * elsewhere in it, 3 in its folder; -1 if it is nowhere.
 * @param {Entry} entry
 * @param {string} word
 */
function rank(entry, word) {
  const start = entry.folder.length;
  const at = entry.lower.indexOf(word, start);
  if (at < 0) return entry.lower.includes(word) ? 3 : -1;
  if (at === start) return 0;
  return /[a-z0-9]/.test(entry.lower[at - 1]) ? 2 : 1;
}

/**
 * The files below a folder that have every word of the query in their names, best fits first, of
 * equal ones the shortest.
 * @param {Entry[]} entries
 * @param {string} folder
 * @param {string} query
 * @returns {Item[]}
 */
export function searchItems(entries, folder, query) {
  const words = wordsOf(query);
  /** @type {[number, Entry][]} */
  const found = [];
  for (const entry of entries) {
    if (!entry.name.startsWith(folder)) continue;
    let total = 0;
    for (const word of words) {
      const one = rank(entry, word);
      total = one < 0 ? -1 : total + one;
      if (total < 0) break;
    }
    if (total >= 0) found.push([total, entry]);
  }
  found.sort(([a, one], [b, other]) => a - b || one.stem.length - other.stem.length);
  return found.map(([, entry]) => ({ kind: "file", entry }));
}
