// Copies text.

import { make } from "./dom.js";

/**
 * Copies text from a dialog. Browsers offer the clipboard itself only to pages of this machine or
 * over HTTPS; elsewhere, as in a home network, a selected text can still be copied.
 * @param {string} text
 * @param {HTMLElement} dialog that has the focus
 */
export async function copyText(text, dialog) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const focused = /** @type {HTMLElement | null} */ (document.activeElement);
  const field = make("textarea", { value: text });
  dialog.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
  focused?.focus();
}
