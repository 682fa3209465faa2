// Copies text.

import { make } from "./dom.js";

const SAID_FOR = 1500; // ms

/**
 * Browsers offer the clipboard itself only to pages of this machine or over HTTPS; elsewhere, as in
 * a home network, a selected text can still be copied.
 * @param {string} text
 * @param {HTMLElement} host a place for the selected text, inside the dialog that is open, if one is
 * @returns {Promise<boolean>} whether that was allowed
 */
async function copyText(text, host) {
  try {
    if (navigator.clipboard) {
      await navigator.clipboard.writeText(text);
      return true;
    }
  } catch {
    // Refused, as to a frame of another page.
  }
  const focused = /** @type {HTMLElement | null} */ (document.activeElement);
  const field = make("textarea", { value: text });
  host.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  focused?.focus({ preventScroll: true });
  return copied;
}

/**
 * A button that copies text, and says so for a moment.
 * @param {string} label what it shows
 * @param {string} name for screen readers
 * @param {() => string} text what it copies
 */
export function copyButton(label, name, text) {
  const button = make("button", { type: "button", className: "vivace-copy", textContent: label, ariaLabel: name });
  const say = (/** @type {string} */ shown, /** @type {string} */ read) => {
    button.textContent = shown;
    button.ariaLabel = read;
  };
  let timer = 0;
  button.addEventListener("click", async (event) => {
    event.preventDefault(); // in a summary, it would fold
    const copied = await copyText(text(), button.closest("dialog") ?? document.body);
    if (copied) say("Copied", "Copied");
    else say("Not allowed", "The browser does not allow to copy");
    clearTimeout(timer);
    timer = setTimeout(() => say(label, name), SAID_FOR);
  });
  return button;
}
