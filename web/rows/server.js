// What the widget asks the server for.

import { api } from "../../../scripts/api.js";

/** @typedef {{ name: string, preview: boolean }} Lora `preview`: whether there is an image of it */
/** @typedef {import("./state.js").Row} Row */

/**
 * @typedef {object} LoraInfo all but `name` may be null
 * @property {string} name
 * @property {string | null} title
 * @property {string | null} base_model
 * @property {string | null} architecture
 * @property {string | null} format
 * @property {number | null} rank
 * @property {number | null} alpha
 * @property {number | null} modules
 * @property {string[] | null} trigger_words
 * @property {[string, number][] | null} tags
 * @property {string | null} notes
 * @property {number | null} size in bytes
 * @property {string[] | null} problems
 */

/**
 * @param {string} route
 * @param {RequestInit} [options]
 */
async function request(route, options) {
  const response = await api.fetchApi(route, options);
  if (!response.ok) {
    const reason = (await response.text()).slice(0, 300);
    throw Object.assign(new Error(reason || `The server answered ${response.status} to ${route}.`), {
      status: response.status,
    });
  }
  return response;
}

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

/** @returns {Promise<Record<string, Row[]>>} */
export async function listStacks() {
  return (await (await request("/vivace/stacks")).json()).stacks;
}

/** @param {string} name */
const stackRoute = (name) => `/vivace/stacks/${encodeURIComponent(name)}`;

/**
 * @param {string} name
 * @param {Row[]} rows
 */
export async function saveStack(name, rows) {
  await request(stackRoute(name), {
    method: "PUT",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(rows),
  });
}

/** @param {string} name */
export async function deleteStack(name) {
  await request(stackRoute(name), { method: "DELETE" });
}
