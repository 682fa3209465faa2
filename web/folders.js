// Folders of names such as styles/ink: those inside of one, and the way to it as buttons.

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

/**
 * The folders inside of a folder, each with how many of the names it holds, at any depth.
 * @param {{ name: string, folder: string }[]} entries in order; those elsewhere do not count
 * @param {string} folder
 */
export function foldersIn(entries, folder) {
  /** @type {Map<string, number>} */
  const counts = new Map();
  for (const { name, folder: home } of entries) {
    if (home === folder || !name.startsWith(folder)) continue;
    const inner = name.slice(0, name.indexOf("/", folder.length) + 1);
    counts.set(inner, (counts.get(inner) ?? 0) + 1);
  }
  return [...counts].map(([inner, count]) => ({
    kind: /** @type {"folder"} */ ("folder"),
    folder: inner,
    text: inner.slice(folder.length, -1),
    count,
  }));
}
