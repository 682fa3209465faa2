// The way to a folder as buttons, one for each folder above it.

import { make } from "./dom.js";

/** An empty bar, to be filled by `showCrumbs`. */
export function makeCrumbs() {
  return make("nav", { className: "vivace-picker-crumbs", ariaLabel: "Folder" });
}

/**
 * @param {HTMLElement} bar
 * @param {string} folder that is shown, with a slash at its end, or ""
 * @param {(folder: string) => void} enter
 */
export function showCrumbs(bar, folder, enter) {
  const names = folder.split("/").slice(0, -1);
  const paths = names.map((_, index) => `${names.slice(0, index + 1).join("/")}/`);
  bar.replaceChildren(
    ...["", ...paths].map((path, index) => {
      const crumb = make("button", { type: "button", textContent: index ? names[index - 1] : "All" });
      crumb.ariaCurrent = path === folder ? "true" : null;
      crumb.addEventListener("click", () => enter(path));
      return crumb;
    }),
  );
}

/**
 * The folder that a folder lies in.
 * @param {string} folder
 */
export function parentOf(folder) {
  return folder.replace(/[^/]*\/$/, "");
}
