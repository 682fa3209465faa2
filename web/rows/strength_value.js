// The arithmetic of strengths: steps, limits, what a user may type.

export const LIMIT = 100; // as in LoRA Loader
const STEP = 0.05; // of the arrow keys
const PIXEL = 0.01; // of a drag

export const HINT =
  `Drag, type, or press the arrow keys: steps of ${STEP}, with Shift ${STEP / 10}, with Ctrl ${STEP * 10}.`;

/** @typedef {{ shiftKey: boolean, ctrlKey: boolean, metaKey: boolean }} Modifiers */

/** @param {number} value */
function limited(value) {
  // Without rounding, steps of 0.05 end in 0.15000000000000002.
  return Math.min(Math.max(Number(value.toFixed(4)), -LIMIT), LIMIT) + 0;
}

/** @param {Modifiers} keys */
const factor = (keys) => (keys.shiftKey ? 0.1 : keys.ctrlKey || keys.metaKey ? 10 : 1);

/**
 * @param {number} value
 * @param {number} steps
 * @param {Modifiers} keys
 */
export const stepped = (value, steps, keys) => limited(value + steps * STEP * factor(keys));

/**
 * @param {number} value
 * @param {number} pixels
 * @param {Modifiers} keys
 */
export const dragged = (value, pixels, keys) => limited(value + pixels * PIXEL * factor(keys));

/**
 * The number in a text, with a decimal point or comma; null if it is none.
 * @param {string} text
 */
export function parsed(text) {
  const plain = text.trim().replace(",", ".");
  return /^[+-]?(\d+\.?\d*|\.\d+)$/.test(plain) ? limited(Number(plain)) : null;
}

/**
 * At least two decimals, so that numbers line up.
 * @param {number} value
 */
export function shown(value) {
  const text = String(value);
  return /\.\d{3,}|e/.test(text) ? text : value.toFixed(2);
}
