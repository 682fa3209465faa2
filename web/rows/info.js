// What a LoRA file says of itself, in a dialog.

import { copyText } from "./copy.js";
import { keepPlainKeys, make } from "./dom.js";
import { loraInfo, previewUrl } from "./server.js";

/** @typedef {import("./server.js").LoraInfo} LoraInfo */

/** @param {number | null} bytes */
const sizeText = (bytes) => (bytes === null ? null : `${(bytes / 2 ** 20).toFixed(1)} MiB`);

/**
 * @param {LoraInfo} info
 * @returns {[string, string | number | null][]}
 */
function facts(info) {
  return [
    ["File", info.name],
    ["Base model", info.base_model],
    ["Architecture", info.architecture],
    ["Format", info.format],
    ["Rank", info.rank],
    ["Alpha", info.alpha],
    ["Modules", info.modules],
    ["Size", sizeText(info.size)],
  ];
}

/**
 * A button that copies text, and says so.
 * @param {string} label
 * @param {string} text
 */
function copyButton(label, text) {
  const made = make("button", { type: "button", className: "vivace-copy", textContent: label, title: "Copy" });
  made.addEventListener("click", async () => {
    await copyText(text, /** @type {HTMLElement} */ (made.closest("dialog")));
    made.textContent = "Copied";
    setTimeout(() => {
      made.textContent = label;
    }, 1200);
  });
  return made;
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
    if (value === null || value === undefined) continue;
    list.append(make("dt", { textContent: name }), make("dd", { textContent: String(value) }));
  }
  const image = make("img", { className: "vivace-info-image", alt: `Preview of ${info.name}`, hidden: true });
  image.addEventListener("load", () => {
    image.hidden = false;
  });
  image.src = previewUrl(info.name);
  /** @type {HTMLElement[]} */
  const parts = [make("div", { className: "vivace-info-top" }, list, image)];
  const words = info.trigger_words ?? [];
  if (info.problems?.length) {
    const problems = info.problems.map((text) => make("li", { textContent: text }));
    parts.push(section("Problems", make("ul", { className: "vivace-info-problems" }, ...problems)));
  }
  if (words.length) {
    const buttons = words.map((word) => copyButton(word, word));
    if (words.length > 1) buttons.push(copyButton("Copy all", words.join(", ")));
    parts.push(section("Trigger words", make("div", { className: "vivace-info-words" }, ...buttons)));
  }
  if (info.tags?.length) {
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
  const content = make("div", { className: "vivace-info-body", textContent: "Reading the file …" });
  const dialog = make("dialog", { className: "vivace-info", ariaLabel: `About ${name}` });
  dialog.append(make("header", {}, title, close), content);
  keepPlainKeys(dialog);
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("pointerdown", (event) => event.target === dialog && dialog.close()); // beside it
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
