// What a stack of LoRAs is: pure functions on lists of rows, which never change their arguments.

/**
 * @typedef {object} Row
 * @property {boolean} on
 * @property {string} lora name as ComfyUI lists it, with forward slashes
 * @property {number} strength
 * @property {number} [strength_clip] for the text encoder; without it, `strength` is meant
 */

/**
 * @param {unknown} value
 * @param {number} fallback
 */
function number(value, fallback) {
  if (typeof value !== "number" && (typeof value !== "string" || !value.trim())) return fallback;
  return Number.isFinite(Number(value)) ? Number(value) : fallback;
}

/**
 * A row wherever it comes from: an old workflow, an API prompt, a paste. Unknown fields stay.
 * @param {any} row
 * @returns {Row}
 */
export function normalRow(row) {
  const made = {
    ...row,
    on: row?.on !== false,
    lora: String(row?.lora ?? "").replaceAll("\\", "/"),
    strength: number(row?.strength, 1),
  };
  const clip = number(row?.strength_clip, NaN);
  delete made.strength_clip;
  return Number.isNaN(clip) ? made : { ...made, strength_clip: clip };
}

/**
 * Rows from a widget's saved value, an API prompt's `{"__value__": [...]}`, or JSON text.
 * @param {any} saved
 * @returns {Row[]}
 */
export function normalRows(saved) {
  const value = typeof saved === "string" ? parsedJson(saved) : saved;
  const rows = Array.isArray(value) ? value : value?.__value__;
  return Array.isArray(rows) ? rows.map(normalRow) : [];
}

/**
 * Rows to be kept outside the widget. The editor makes what it keeps observable, of which
 * `structuredClone` can make no copy; what is frozen to its depth stays as it is.
 * @param {Row[]} rows
 * @returns {readonly Row[]}
 */
export function kept(rows) {
  return frozen(JSON.parse(JSON.stringify(rows)));
}

/**
 * @template T
 * @param {T} value
 * @returns {T}
 */
function frozen(value) {
  if (value !== null && typeof value === "object") Object.values(value).forEach(frozen);
  return Object.freeze(value);
}

/**
 * @param {string} text
 * @returns {any} null if it is no JSON
 */
function parsedJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/**
 * @param {Row[]} rows
 * @param {number} index
 * @param {Partial<Row>} fields
 */
export function updated(rows, index, fields) {
  return rows.map((row, at) => (at === index ? { ...row, ...fields } : row));
}

/**
 * @param {Row[]} rows
 * @param {number} index
 */
export function removed(rows, index) {
  return rows.filter((_, at) => at !== index);
}

/**
 * @param {Row[]} rows
 * @param {number} index
 */
export function duplicated(rows, index) {
  return rows.toSpliced(index + 1, 0, { ...rows[index] });
}

/**
 * The rows with one of them at another place; a place outside the list means its end.
 * @param {Row[]} rows
 * @param {number} from
 * @param {number} to
 */
export function moved(rows, from, to) {
  const place = Math.min(Math.max(to, 0), rows.length - 1);
  return rows.toSpliced(from, 1).toSpliced(place, 0, rows[from]);
}

/**
 * @param {Row[]} rows
 * @returns {boolean | "mixed"}
 */
export function allOn(rows) {
  const count = rows.filter((row) => row.on).length;
  return count === rows.length ? true : count === 0 ? false : "mixed";
}

/**
 * @param {Row[]} rows
 * @param {boolean} on
 */
export function withAll(rows, on) {
  return rows.map((row) => ({ ...row, on }));
}

/**
 * @param {Row[]} rows
 * @param {number} index
 */
export function isSolo(rows, index) {
  return rows.length > 1 && rows.every((row, at) => row.on === (at === index));
}

/**
 * Only this row on; all of them, if it was already the only one.
 * @param {Row[]} rows
 * @param {number} index
 */
export function soloed(rows, index) {
  const all = isSolo(rows, index);
  return rows.map((row, at) => ({ ...row, on: all || at === index }));
}

/**
 * Whether the rows have a strength for the text encoder of their own.
 * @param {Row[]} rows
 * @returns {boolean | "mixed"}
 */
export function allSeparate(rows) {
  const count = rows.filter((row) => row.strength_clip !== undefined).length;
  return rows.length > 0 && count === rows.length ? true : count === 0 ? false : "mixed";
}

/**
 * The row with a strength for the text encoder, at first the same, or without one.
 * @param {Row} row
 * @param {boolean} separate
 * @returns {Row}
 */
export function separated(row, separate) {
  const { strength_clip: clip, ...rest } = row;
  return separate ? { ...rest, strength_clip: clip ?? row.strength } : rest;
}
