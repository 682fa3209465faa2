// One value in a Preview Outputs: what it is, what can be seen or heard of it, and its figures.

import { api } from "../../../scripts/api.js";
import { copyButton } from "../copy.js";
import { make } from "../dom.js";
import { drawWaveform } from "./waveform.js";

/** @param {Editor.SavedFile} file */
const urlOf = (file) => api.apiURL(`/view?${new URLSearchParams({ ...file })}`);

/**
 * @param {Editor.PreviewedValue} value
 * @returns {HTMLElement[]}
 */
function media({ media: kind, files, label, waveforms }) {
  if (kind === "image") {
    const links = files.map((file, at) => {
      const image = make("img", { src: urlOf(file), alt: `${label}, image ${at + 1}`, loading: "lazy", draggable: false });
      return make("a", { href: urlOf(file), target: "_blank", title: "Open in a new tab" }, image);
    });
    return [make("div", { className: links.length === 1 ? "vivace-one-image" : "vivace-images" }, ...links)];
  }
  if (kind === "video") {
    return files.map((file) => make("video", { src: urlOf(file), controls: true, loop: true, muted: true, ariaLabel: label }));
  }
  return files.map((file, at) => {
    const player = make("audio", { src: urlOf(file), controls: true, preload: "metadata", ariaLabel: label });
    const peaks = waveforms[at] ?? [];
    return make("div", { className: "vivace-sound" }, ...(peaks.length ? [drawWaveform(peaks, player)] : []), player);
  });
}

/** @param {[string, string][]} figures */
function table(figures) {
  const rows = figures.map(([name, figure]) =>
    make("tr", {}, make("th", { scope: "row", textContent: name }), make("td", { textContent: figure })),
  );
  return make("table", {}, ...rows);
}

/** @param {string} text */
function textBlock(text) {
  const copy = copyButton("Copy", "Copy the text", () => text);
  return make("div", { className: "vivace-text" }, make("pre", { textContent: text, tabIndex: 0 }), copy);
}

/**
 * @param {Editor.PreviewedValue} value
 * @returns {HTMLElement}
 */
export function viewOf(value) {
  const { label, title, kind, figures, text, files, problem } = value;
  const parts = [
    make("div", { className: "vivace-label", textContent: label }),
    make("div", { className: "vivace-title", textContent: title }),
    ...media(value),
  ];
  if (problem) parts.push(make("div", { className: "vivace-problem", textContent: problem }));
  if (text) parts.push(textBlock(text));
  // What can be seen or heard needs no figures at first sight.
  if (figures.length && files.length) parts.push(make("details", {}, make("summary", { textContent: "Figures" }), table(figures)));
  else if (figures.length) parts.push(table(figures));
  const section = make("section", { className: "vivace-value", ariaLabel: label }, ...parts);
  section.dataset.kind = kind;
  return section;
}
