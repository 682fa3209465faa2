// What a LoRA file says of itself, in a dialog.

import { copyButton } from "../copy.js";
import { keepPlainKeys, make } from "../dom.js";
import { hasPreview } from "./names.js";
import { loraInfo, previewUrl } from "./server.js";

/** @typedef {import("./server.js").LoraInfo} LoraInfo */

/**
 * @param {LoraInfo} info
 * @returns {[string, string | number | null][]}
 */
function facts(info) {
  const { rank, rank_lowest: lowest, modules, modules_total: total } = info;
  return [
    ["File", info.name],
    ["Base model", info.base_model],
    ["Architecture", info.architecture],
    ["Format", info.format],
    ["Rank", lowest === rank ? rank : `${lowest} to ${rank}`],
    ["Alpha", info.alpha],
    ["Modules", total ? `${modules} of ${total}` : null],
    ["Size", `${(info.size / 2 ** 20).toFixed(1)} MiB`],
  ];
}

/**
 * @param {string} title
 * @param {...(Node | string)} children
 */
const section = (title, ...children) => make("section", {}, make("h3", { textContent: title }), ...children);

/** @param {LoraInfo} info */
function body(info) {
  const list = make("dl", {});
  for (const [name, value] of facts(info)) {
    if (value === null) continue;
    list.append(make("dt", { textContent: name }), make("dd", { textContent: String(value) }));
  }
  const top = make("div", { className: "vivace-info-top" }, list);
  if (hasPreview(info.name)) {
    const source = { src: previewUrl(info.name), alt: `Preview of ${info.name}` };
    top.append(make("img", { className: "vivace-info-image", ...source }));
  }
  /** @type {HTMLElement[]} */
  const parts = [top];
  const { problems: faults, trigger_words: words } = info;
  if (faults.length) {
    const problems = faults.map((text) => make("li", { textContent: text }));
    parts.push(section("Problems", make("ul", { className: "vivace-info-problems" }, ...problems)));
  }
  if (info.warnings?.length) {
    const warnings = info.warnings.map((text) => make("li", { textContent: text }));
    parts.push(section("To know", make("ul", {}, ...warnings)));
  }
  if (words.length) {
    const buttons = words.map((word) => copyButton(word, `Copy ${word}`, () => word));
    if (words.length > 1) buttons.push(copyButton("Copy all", "Copy all trigger words", () => words.join(", ")));
    parts.push(section("Trigger words", make("div", { className: "vivace-info-words" }, ...buttons)));
  }
  if (info.tags.length) {
    const tags = info.tags.map(([tag, count]) => `${tag} (${count})`).join(", ");
    parts.push(section("Tags of the training images", make("p", { textContent: tags })));
  }
  if (info.notes) parts.push(section("Notes", make("p", { textContent: info.notes })));
  return parts;
}

/**
 * @param {string} name
 * @param {HTMLElement} returnFocus
 */
export async function showInfo(name, returnFocus) {
  const title = make("h2", { textContent: name });
  const close = make("button", { type: "button", textContent: "✕", ariaLabel: "Close" });
  const content = make("div", { role: "status", textContent: "Reading the file …" });
  const dialog = make("dialog", { className: "vivace-info", ariaLabel: `About ${name}` });
  // All of the dialog is covered by this, so that a press on the dialog itself is one beside it.
  dialog.append(make("div", { className: "vivace-info-page" }, make("header", {}, title, close), content));
  keepPlainKeys(dialog);
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("pointerdown", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => {
    dialog.remove();
    returnFocus.focus({ preventScroll: true });
  });
  document.body.append(dialog);
  dialog.showModal();
  try {
    const info = await loraInfo(name);
    title.textContent = info.title || name;
    content.replaceChildren(...body({ ...info, name }));
  } catch (error) {
    content.textContent = `No information about ${name}: ${/** @type {Error} */ (error).message}`;
  }
}
