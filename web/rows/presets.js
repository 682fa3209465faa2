// Stacks kept on the server by name: save, load, delete.

import { make } from "./dom.js";
import { openPopover } from "./popover.js";
import { deleteStack, listStacks, saveStack } from "./server.js";
import { normalRows } from "./state.js";

/** @typedef {import("./state.js").Row} Row */

class Presets {
  /**
   * @param {HTMLElement} anchor
   * @param {Row[]} rows those that *Save* keeps
   * @param {(rows: Row[]) => void} onLoad
   */
  constructor(anchor, rows, onLoad) {
    this.rows = rows;
    this.onLoad = onLoad;
    /** @type {Record<string, Row[]>} */
    this.stacks = {};
    this.list = make("div", { className: "vivace-presets-list", role: "list", ariaLabel: "Stacks" });
    this.note = make("div", { className: "vivace-picker-note", role: "status", textContent: "Fetching stacks …" });
    this.name = make("input", {
      type: "text",
      placeholder: "Save as …",
      ariaLabel: "Name of the stack",
      autocomplete: "off",
      spellcheck: false,
    });
    this.save = make("button", { type: "submit", textContent: "Save", disabled: true });
    const form = make("form", { className: "vivace-presets-save" }, this.name, this.save);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.attempt(() => saveStack(this.name.value.trim(), this.rows));
    });
    this.name.addEventListener("input", () => this.showSave());
    const element = make("div", { className: "vivace-presets", role: "dialog", ariaLabel: "Stacks" });
    element.append(this.list, this.note, form);
    this.popover = openPopover(anchor, element, anchor);
    this.name.focus();
    this.attempt(async () => {});
  }

  /**
   * Does something on the server, then shows what is there.
   * @param {() => Promise<void>} action
   */
  async attempt(action) {
    try {
      await action();
      this.stacks = await listStacks();
      this.name.value = "";
      this.note.textContent = Object.keys(this.stacks).length ? "" : "No stacks are saved yet.";
    } catch (error) {
      this.note.textContent = `That did not work: ${/** @type {Error} */ (error).message}`;
    }
    this.showSave();
    this.list.replaceChildren(...Object.keys(this.stacks).sort().map((name) => this.entry(name)));
    this.popover.place();
  }

  showSave() {
    const name = this.name.value.trim();
    this.save.textContent = Object.hasOwn(this.stacks, name) ? "Replace" : "Save";
    this.save.disabled = name === "" || this.rows.length === 0;
    this.save.title = this.rows.length === 0 ? "There are no rows to save" : "";
  }

  /** @param {string} name */
  entry(name) {
    const rows = normalRows(this.stacks[name]);
    const load = make("button", { type: "button", className: "vivace-menu-item", ariaLabel: `Load ${name}` });
    load.append(make("span", { textContent: name }), make("kbd", { textContent: rows.length === 1 ? "1 LoRA" : `${rows.length} LoRAs` }));
    load.title = rows.map((row) => `${row.lora} ${row.strength}`).join("\n");
    load.addEventListener("click", () => {
      this.popover.close();
      this.onLoad(rows);
    });
    const remove = make("button", { type: "button", textContent: "✕", title: "Delete", ariaLabel: `Delete ${name}` });
    remove.addEventListener("click", () => {
      if (remove.textContent === "Delete?") this.attempt(() => deleteStack(name));
      else remove.textContent = "Delete?"; // a second click does it
    });
    return make("div", { className: "vivace-presets-entry", role: "listitem" }, load, remove);
  }
}

/**
 * @param {HTMLElement} anchor
 * @param {Row[]} rows
 * @param {(rows: Row[]) => void} onLoad
 */
export function openPresets(anchor, rows, onLoad) {
  new Presets(anchor, rows, onLoad);
}
