// Asks our routes of the server.

import { api } from "../../scripts/api.js";

/** An answer that is an error; `message` is for the user. */
export class AnswerError extends Error {
  /**
   * @param {number} status of HTTP
   * @param {string} message
   */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/**
 * What our routes say when something is wrong; null if the answer is another's.
 * @param {string} answer
 * @returns {string | null}
 */
function reasonIn(answer) {
  try {
    return JSON.parse(answer).error ?? null;
  } catch {
    return null;
  }
}

/**
 * @param {string} route
 * @param {RequestInit} [options]
 * @throws {AnswerError} the server refuses
 */
export async function request(route, options) {
  const response = await api.fetchApi(route, options);
  if (!response.ok) {
    const reason = reasonIn(await response.text()) ?? `The server answered ${response.status} to ${route}.`;
    throw new AnswerError(response.status, reason);
  }
  return response;
}

/**
 * Options of a request with a JSON body.
 * @param {string} method
 * @param {unknown} content
 * @returns {RequestInit}
 */
export function withJson(method, content) {
  return { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(content) };
}
