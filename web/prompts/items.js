// What the prompt library lists for a folder, tags and a query: pure functions.

import { foldersIn } from "../folders.js";
import { wordsOf } from "../rows/picker_items.js";

/**
 * @typedef {object} Entry a prompt of the library
 * @property {string} name
 * @property {string} folder "" at the top, else with a slash at its end
 * @property {string} stem the name without the folder
 * @property {string} revision
 * @property {import("./server.js").Prompt} prompt
 * @property {string} text all that a search looks at, in lower case
 */

/** @typedef {{ kind: "folder", folder: string, text: string, count: number } | { kind: "prompt", entry: Entry }} Item */

const compare = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" }).compare;

/** @param {string} name */
export function splitName(name) {
  const slash = name.lastIndexOf("/") + 1;
  return { folder: name.slice(0, slash), stem: name.slice(slash) };
}

/**
 * Sorted by name, numbers by value.
 * @param {Record<string, import("./server.js").Prompt>} prompts
 * @param {Record<string, string>} revisions
 * @returns {Entry[]}
 */
export function entriesOf(prompts, revisions) {
  const entries = Object.entries(prompts).map(([name, prompt]) => {
    const text = [name, prompt.positive, prompt.negative, prompt.note, ...prompt.tags].join("\n").toLowerCase();
    return { name, ...splitName(name), revision: revisions[name], prompt, text };
  });
  return entries.sort((a, b) => compare(a.name, b.name));
}

/**
 * Every tag once, in order.
 * @param {Entry[]} entries
 */
export function tagsOf(entries) {
  return [...new Set(entries.flatMap((entry) => entry.prompt.tags))].sort(compare);
}

/**
 * The prompts below a folder that have all tags and, anywhere, each word of the query; those that
 * have the words in their names come first.
 * @param {Entry[]} entries
 * @param {string} folder
 * @param {Set<string>} tags
 * @param {string} query
 */
export function findEntries(entries, folder, tags, query) {
  const words = wordsOf(query);
  const found = entries.filter(
    ({ name, prompt, text }) =>
      name.startsWith(folder) &&
      [...tags].every((tag) => prompt.tags.includes(tag)) &&
      words.every((word) => text.includes(word)),
  );
  const inName = (/** @type {Entry} */ { name }) => words.every((word) => name.toLowerCase().includes(word));
  return [...found.filter(inName), ...found.filter((entry) => !inName(entry))];
}

/**
 * The folders and prompts in a folder.
 * @param {Entry[]} entries those below the folder
 * @param {string} folder
 * @returns {Item[]}
 */
export function folderItems(entries, folder) {
  return [...foldersIn(entries, folder), ...promptItems(entries.filter((entry) => entry.folder === folder))];
}

/**
 * @param {Entry[]} entries
 * @returns {Item[]}
 */
export const promptItems = (entries) => entries.map((entry) => ({ kind: "prompt", entry }));
