// Tells an API key from the name of one: the rules of vlm/remote/key_shape.py, which a test compares.

const PREFIX = new RegExp(
  "^(?:(?:sk|pk|rk|xai|gsk|r8|hf|fw|fal|pplx|nvapi|csk|tgp|glpat|ghp|gho|ghs|ghu|github_pat|AIza|AKIA)" +
    "[-_]?(?=[A-Za-z0-9+/_-]*[0-9])[A-Za-z0-9+/=_-]{12,}" +
    "|sk-\\S{8,}|(?:Bearer|Basic)\\s.{6,}|eyJ[\\p{L}\\p{N}_-]{10,}.*)$",
  "u",
);
const VARIABLE = /^[A-Z][A-Z0-9_]*_API_KEY$/;
const UUID = /[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}/;
const LONG_RUN = /[A-Za-z0-9]{20,}/g;
const CHANGE = /(?<=[A-Za-z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])/g;
const LONG = 20;
const MANY_CHANGES = 4;
const MAX_NAME = 100;

/**
 * Whether a text is rather a key than a name: a known beginning, or long and random.
 * @param {string} given
 */
export function looksLikeKey(given) {
  const text = given.trim();
  const { length } = [...text];
  if (VARIABLE.test(text) && length <= MAX_NAME) return false;
  if (length > MAX_NAME || PREFIX.test(text) || UUID.test(text)) return true;
  // Words have few digits, mostly at their ends; random characters mix them with letters.
  const runs = text.match(LONG_RUN) ?? [];
  if (runs.some((run) => run.replace(/[^0-9]/g, "").length >= 3)) return true;
  return length >= LONG && (text.match(CHANGE) ?? []).length >= MANY_CHANGES;
}
