// Files of the user's machine.

import { make } from "./dom.js";

/**
 * Has the browser save a JSON file.
 * @param {string} name
 * @param {unknown} content
 */
export function saveFile(name, content) {
  const text = `${JSON.stringify(content, null, 2)}\n`;
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/**
 * Lets the user choose a file.
 * @param {string} accept
 * @param {(file: File) => void} onChosen
 */
export function chooseFile(accept, onChosen) {
  const chooser = make("input", { type: "file", accept });
  chooser.addEventListener("change", () => {
    const file = chooser.files?.[0];
    if (file) onChosen(file);
  });
  chooser.click();
}
