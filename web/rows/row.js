// One row of a stack: its controls and its keys.

import { make } from "../dom.js";
import { button } from "./button.js";
import { isMissing } from "./names.js";
import { splitName } from "./picker_items.js";
import { StrengthField } from "./strength.js";

/** @typedef {import("./state.js").Row} Row */

/**
 * @typedef {object} RowEvents what a row asks its stack for
 * @property {(fields: Partial<Row>, done: boolean) => void} update `done`: a step to undo ends here
 * @property {() => void} done
 * @property {(by: number) => void} move
 * @property {() => void} remove
 * @property {(anchor: HTMLElement) => void} pick
 * @property {(anchor: HTMLElement | DOMRect, returnFocus: HTMLElement) => void} menu
 * @property {(part: string, by: number) => void} focus the same control of another row
 */

/** @param {KeyboardEvent} event */
const isMenuKey = (event) => event.key === "ContextMenu" || (event.key === "F10" && event.shiftKey);

export class RowView {
  /** @param {RowEvents} events */
  constructor(events) {
    this.events = events;
    /** @type {Row} */
    this.row = { on: true, lora: "", strength: 1 };
    this.handle = button("menu", { textContent: "⠿", ariaHasPopup: "menu" });
    this.on = button("on", { role: "switch" }, make("span", { className: "vivace-rows-knob" }));
    this.folder = make("span", { className: "vivace-rows-folder" });
    this.stem = make("span", { className: "vivace-rows-stem" });
    this.file = button("file", { ariaHasPopup: "dialog" }, this.folder, this.stem);
    this.strength = this.field("strength", "strength");
    this.clip = this.field("clip", "strength_clip");
    this.remove = button("remove", { textContent: "✕", title: "Remove (Delete)", ariaKeyShortcuts: "Delete" });
    this.element = make("div", { className: "vivace-rows-row", role: "listitem" });
    this.element.append(this.handle, this.on, this.file, this.strength.input, this.remove);
    this.listen();
  }

  /**
   * @param {string} part
   * @param {"strength" | "strength_clip"} name
   */
  field(part, name) {
    const onInput = (/** @type {number} */ value) => this.events.update({ [name]: value }, false);
    return new StrengthField(part, { onInput, onDone: () => this.events.done() });
  }

  listen() {
    const { events, handle, element } = this;
    this.on.addEventListener("click", () => events.update({ on: !this.row.on }, true));
    this.file.addEventListener("click", () => events.pick(this.file));
    this.remove.addEventListener("click", () => events.remove());
    handle.addEventListener("click", () => events.menu(handle, handle));
    element.addEventListener("contextmenu", (event) => {
      event.preventDefault();
      event.stopPropagation();
      events.menu(new DOMRect(event.clientX, event.clientY, 0, 0), handle);
    });
    element.addEventListener("keydown", (event) => this.onKey(event));
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    const target = /** @type {HTMLElement} */ (event.target);
    const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    const plain = !event.ctrlKey && !event.metaKey && !(target instanceof HTMLInputElement);
    if (by && event.altKey) this.events.move(by);
    else if (isMenuKey(event)) this.events.menu(target, target);
    else if (by && plain) this.events.focus(target.dataset.part ?? "", by);
    else if (event.key === "Delete" && plain) this.events.remove();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /**
   * @param {Row} row
   * @param {number} index
   */
  show(row, index) {
    this.row = row;
    const place = `LoRA ${index + 1}`;
    this.handle.ariaLabel = `${place}: menu`;
    this.handle.title = "Drag to move (Alt+↑, Alt+↓), click for more (Shift+F10)";
    this.on.ariaLabel = `${place}: on`;
    this.on.ariaChecked = String(row.on);
    this.on.title = row.on ? "On" : "Off";
    this.remove.ariaLabel = `${place}: remove`;
    this.element.classList.toggle("vivace-rows-off", !row.on);
    this.showFile(place);
    this.showStrengths(place);
  }

  /** @param {string} place */
  showFile(place) {
    const { lora } = this.row;
    const missing = isMissing(lora);
    const { folder, stem } = splitName(lora);
    this.folder.textContent = folder;
    this.stem.textContent = lora ? stem : "Choose a LoRA";
    this.file.classList.toggle("vivace-rows-missing", missing);
    this.file.classList.toggle("vivace-rows-empty", !lora);
    this.file.ariaLabel = `${place}: file, ${lora || "none"}${missing ? ", missing" : ""}`;
    this.file.title = missing ? `${lora} is not in ComfyUI's loras folders. Click to choose another file.` : lora;
  }

  /** @param {string} place */
  showStrengths(place) {
    const { strength, strength_clip: clip } = this.row;
    const separate = clip !== undefined;
    const meaning = separate ? "Strength on the diffusion model." : "Strength.";
    this.strength.show(strength, `${place}: strength`, meaning);
    if (separate) this.clip.show(clip, `${place}: text encoder strength`, "Strength on the text encoder.");
    if (!separate) this.clip.input.remove();
    else if (!this.clip.input.parentElement) this.strength.input.after(this.clip.input);
  }

  /** @param {string} part */
  focusPart(part) {
    const control = this.element.querySelector(`[data-part="${part}"]`) ?? this.file;
    /** @type {HTMLElement} */ (control).focus({ preventScroll: true });
  }
}
