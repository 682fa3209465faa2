// What the widget asks the server for.

import { api } from "../../../scripts/api.js";
import { request, withJson } from "../request.js";

/** @typedef {{ name: string, preview: boolean }} Lora `preview`: whether there is an image of it */
/** @typedef {import("./state.js").Row} Row */

/**
 * @typedef {object} LoraInfo the fields of `lora.info.LoraInfo`; whatever is null or empty is not known
 * @property {string} name
 * @property {string | null} title
 * @property {string | null} base_model
 * @property {string | null} architecture
 * @property {string | null} format
 * @property {number | null} rank the largest
 * @property {number | null} rank_lowest
 * @property {number | null} alpha
 * @property {number} modules that can be applied
 * @property {number} modules_total that the file addresses
 * @property {string[]} trigger_words
 * @property {[string, number][]} tags and how often each was used
 * @property {string | null} notes
 * @property {number} size in bytes
 * @property {string[]} problems
 * @property {string[]} [warnings]
 */

const NODE_INFO = "/object_info/VivaceLoraLoader";

/**
 * All LoRA files; only their names where the server lists no more.
 * @returns {Promise<Lora[]>}
 */
export async function listLoras() {
  try {
    return (await (await request("/vivace/loras")).json()).loras;
  } catch {
    const node = (await (await request(NODE_INFO)).json()).VivaceLoraLoader;
    const names = /** @type {string[]} */ (node.input.required.lora[1].options);
    return names.map((name) => ({ name, preview: false }));
  }
}

/**
 * @param {string} name
 * @returns {Promise<LoraInfo>}
 */
export async function loraInfo(name) {
  return (await request(`/vivace/lora/info?name=${encodeURIComponent(name)}`)).json();
}

/** @param {string} name */
export const previewUrl = (name) => api.apiURL(`/vivace/lora/preview?name=${encodeURIComponent(name)}`);

/**
 * The stacks by name, and what is wrong with files that hold none.
 * @returns {Promise<{ stacks: Record<string, Row[]>, problems: string[] }>}
 */
export async function listStacks() {
  return (await request("/vivace/stacks")).json();
}

/** @param {string} name */
const stackRoute = (name) => `/vivace/stacks/${encodeURIComponent(name)}`;

/**
 * @param {string} name
 * @param {Row[]} rows
 */
export async function saveStack(name, rows) {
  await request(stackRoute(name), withJson("PUT", rows));
}

/** @param {string} name */
export async function deleteStack(name) {
  await request(stackRoute(name), { method: "DELETE" });
}

/**
 * Saves the stacks of an exported file, or none of them if one is damaged.
 * @param {unknown} content
 * @param {boolean} replace those that are there already
 */
export async function importStacks(content, replace) {
  await request(`/vivace/stack_bundle${replace ? "?existing=replace" : ""}`, withJson("POST", content));
}
