// The prompts of the library, as the server had them last, for the whole page.

import { app } from "../../../scripts/app.js";
import { entriesOf } from "./items.js";
import { listPrompts } from "./server.js";

/** @typedef {import("./items.js").Entry} Entry */

/** @type {{ entries: Map<string, Entry> | null, problems: string[] }} */
let known = { entries: null, problems: [] };
/** @type {Promise<void> | null} */
let fetching = null;
let asked = 0; // how often; only the last answer counts
/** @type {Set<() => void>} */
const listeners = new Set();
const otherTabs = new BroadcastChannel("vivace.prompts");

/**
 * Shows an error as the editor shows its own.
 * @param {string} summary
 * @param {unknown} error
 */
export function tellError(summary, error) {
  const detail = error instanceof Error ? error.message : String(error);
  app.extensionManager.toast.add({ severity: "error", summary, detail });
}

async function fetchPrompts() {
  const turn = ++asked;
  try {
    const { prompts, revisions, problems } = await listPrompts();
    if (turn !== asked) return;
    const entries = new Map(entriesOf(prompts, revisions).map((entry) => [entry.name, entry]));
    known = { entries, problems };
  } catch (error) {
    if (turn !== asked) return;
    fetching = null; // the next one who asks tries again
    tellError("The saved prompts could not be listed", error);
  }
  for (const listener of listeners) listener();
}

/** Fetches the prompts again. */
export function refreshPrompts() {
  fetching = fetchPrompts();
  return fetching;
}

/** Fetches the prompts unless that has been done. */
export const ensurePrompts = () => fetching ?? refreshPrompts();

/** Fetches what was changed, in the other tabs, too. */
export function promptsChanged() {
  otherTabs.postMessage("");
  return refreshPrompts();
}

otherTabs.addEventListener("message", () => {
  if (fetching) refreshPrompts();
});

/** @returns {Entry[]} */
export const knownEntries = () => [...(known.entries?.values() ?? [])];

/** @param {string} name */
export const entryOf = (name) => known.entries?.get(name);

/** Whether the prompts have been fetched. */
export const areKnown = () => known.entries !== null;

export const knownProblems = () => known.problems;

/**
 * Calls the listener whenever prompts have been fetched, until the function that it returns is called.
 * @param {() => void} listener
 */
export function onPrompts(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}
