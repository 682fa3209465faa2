// The names of the LoRA files, fetched once for the whole page, and those used last.

import { entriesOf } from "./picker_items.js";
import { listLoras } from "./server.js";

/** @typedef {import("./picker_items.js").Entry} Entry */

const RECENT_KEY = "Vivace.RecentLoras";
const RECENT_COUNT = 8;

/** @type {{ entries: Entry[], names: Set<string> | null, error: string }} */
let known = { entries: [], names: null, error: "" };
/** @type {Promise<void> | null} */
let fetching = null;
let asked = 0; // how often; only the last answer counts
/** @type {Set<() => void>} */
const listeners = new Set();

async function fetchNames() {
  const turn = ++asked;
  try {
    const entries = entriesOf(await listLoras());
    if (turn !== asked) return;
    known = { entries, names: new Set(entries.map((entry) => entry.name)), error: "" };
  } catch (error) {
    if (turn !== asked) return;
    fetching = null; // the next one who asks tries again
    // The names fetched before are better than none.
    known = { ...known, error: `The LoRA files could not be listed: ${/** @type {Error} */ (error).message}` };
  }
  for (const listener of listeners) listener();
}

/** Fetches the names again. */
export function refreshNames() {
  fetching = fetchNames();
  return fetching;
}

/** Fetches the names unless that has been done. */
export const ensureNames = () => fetching ?? refreshNames();

export const knownEntries = () => known.entries;

/** Why there are no names, or none that are up to date; "" if there are. */
export const namesProblem = () => known.error || (known.names ? "" : "Fetching the LoRA files …");

/** @param {string} name */
export const hasPreview = (name) => known.entries.some((entry) => entry.name === name && entry.preview);

/**
 * Whether there is no such file; false as long as the names are not known.
 * @param {string} name
 */
export const isMissing = (name) => name !== "" && known.names !== null && !known.names.has(name);

/**
 * Calls the listener whenever names have been fetched, until the function that it returns is called.
 * @param {() => void} listener
 */
export function onNames(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** @returns {string[]} names of files that exist, the last used first */
export function recentNames() {
  try {
    const names = JSON.parse(localStorage.getItem(RECENT_KEY) ?? "[]");
    return names.filter((/** @type {string} */ name) => known.names?.has(name));
  } catch {
    return [];
  }
}

/** @param {string} name */
export function addRecent(name) {
  const others = recentNames().filter((other) => other !== name);
  try {
    localStorage.setItem(RECENT_KEY, JSON.stringify([name, ...others].slice(0, RECENT_COUNT)));
  } catch {
    // The browser keeps nothing for this page, or has no room left.
  }
}
