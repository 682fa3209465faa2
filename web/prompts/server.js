// What the prompt library asks the server for.

import { request, withJson } from "../request.js";

/**
 * @typedef {object} Prompt
 * @property {string} positive
 * @property {string} negative
 * @property {string[]} tags
 * @property {string} note
 */

/**
 * @typedef {object} Run what was run
 * @property {string} name of the prompt, or ""
 * @property {string} positive as it was used, with variables put in and alternatives chosen
 * @property {string} negative
 * @property {number} seed
 * @property {Record<string, string>} variables
 * @property {string} when in UTC
 */

/** @typedef {{ saved: string[], skipped: string[] }} Imported names */

/**
 * @param {string} name
 * @param {Record<string, string | undefined>} [query]
 */
function routeOf(name, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined);
  const parameters = new URLSearchParams(/** @type {[string, string][]} */ (given)).toString();
  return `/vivace/prompts/${encodeURIComponent(name)}${parameters && `?${parameters}`}`;
}

/**
 * Prompts and revisions by name, and what is wrong with files that hold none.
 * @returns {Promise<{ prompts: Record<string, Prompt>, revisions: Record<string, string>, problems: string[] }>}
 */
export async function listPrompts() {
  return (await request("/vivace/prompts")).json();
}

/**
 * Saves a prompt: a new one, or in place of the one that has the revision.
 * @param {string} name
 * @param {Prompt} prompt
 * @param {string} [revision]
 */
export async function savePrompt(name, prompt, revision) {
  await request(routeOf(name, { overwrite: "false", revision }), withJson("PUT", prompt));
}

/**
 * @param {string} name
 * @param {string} newName
 * @param {string} revision
 */
export async function renamePrompt(name, newName, revision) {
  await request(routeOf(name, { revision }), withJson("PATCH", { name: newName }));
}

/**
 * @param {string} name
 * @param {string} revision
 */
export async function deletePrompt(name, revision) {
  await request(routeOf(name, { revision }), { method: "DELETE" });
}

/**
 * The latest first.
 * @returns {Promise<Run[]>}
 */
export async function listRuns() {
  return (await (await request("/vivace/prompt_history")).json()).runs;
}

export async function forgetRuns() {
  await request("/vivace/prompt_history", { method: "DELETE" });
}

/**
 * @param {unknown} content of an exported file
 * @param {string} existing what happens where there is another of the name: keep, replace or rename
 * @returns {Promise<Imported>}
 */
export async function importPrompts(content, existing) {
  return (await request(`/vivace/prompt_bundle?existing=${existing}`, withJson("POST", content))).json();
}
