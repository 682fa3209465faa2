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
/** @type {Set<() => void>} */
const listeners = new Set();

async function fetchNames() {
  try {
    const entries = entriesOf(await listLoras());
    known = { entries, names: new Set(entries.map((entry) => entry.name)), error: "" };
  } catch (error) {
    // The names fetched before are better than none.
    fetching = null; // the next one who asks tries again
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
export const namesError = () => known.error;

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
  localStorage.setItem(RECENT_KEY, JSON.stringify([name, ...others].slice(0, RECENT_COUNT)));
}
