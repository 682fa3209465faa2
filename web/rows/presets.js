// Stacks kept on the server by name: save, load, delete, and as files of the user's machine.

import { make } from "../dom.js";
import { chooseFile, saveFile } from "../files.js";
import { ask } from "../question.js";
import { openPopover } from "./popover.js";
import { countOf } from "./picker_items.js";
import { deleteStack, importStacks, listStacks, saveStack } from "./server.js";
import { normalRows } from "./state.js";

/** @typedef {import("./state.js").Row} Row */

const FIELD = "vivace_stacks"; // as toolkit/stack_presets.py has it

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
      this.attempt(async () => {
        await saveStack(this.name.value.trim(), this.rows);
        this.name.value = "";
      });
    });
    this.name.addEventListener("input", () => this.showSave());
    this.element = make("div", { className: "vivace-presets", role: "dialog", ariaLabel: "Stacks" });
    this.exportAll = make("button", { type: "button", textContent: "Export all", disabled: true });
    this.exportAll.addEventListener("click", () => saveFile("stacks.json", { [FIELD]: this.stacks }));
    const importing = make("button", { type: "button", textContent: "Import …" });
    importing.addEventListener("click", () => chooseFile(".json,application/json", (file) => this.importFile(file, importing)));
    const files = make("div", { className: "vivace-presets-files" }, this.exportAll, importing);
    this.element.append(this.list, this.note, form, files);
    this.popover = openPopover(anchor, this.element, anchor);
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
      const { stacks, problems } = await listStacks();
      this.stacks = stacks;
      const none = Object.keys(stacks).length || problems.length ? [] : ["No stacks are saved yet."];
      this.note.textContent = [...problems, ...none].join("\n");
    } catch (error) {
      this.note.textContent = `That did not work: ${/** @type {Error} */ (error).message}`;
    }
    this.showSave();
    const focused = this.element.contains(document.activeElement);
    this.list.replaceChildren(...Object.keys(this.stacks).sort().map((name) => this.entry(name)));
    // What had the focus may be gone.
    if (focused && !this.element.contains(document.activeElement)) this.name.focus();
    this.popover.place();
  }

  /**
   * @param {File} file
   * @param {HTMLElement} returnFocus
   */
  async importFile(file, returnFocus) {
    await this.attempt(async () => {
      const content = JSON.parse(await file.text());
      const taken = Object.keys(content?.[FIELD] ?? {}).filter((name) => Object.hasOwn(this.stacks, name));
      let replace = false;
      if (taken.length) {
        const text = `Of the same name there is already: ${countOf(taken.length, "stack")}`;
        const detail = taken.slice(0, 8).join("\n");
        const answers = /** @type {[string, string][]} */ ([
          ["Keep mine", "keep"],
          ["Replace mine", "replace"],
        ]);
        const answer = await ask(this.element, { text, detail, answers }, returnFocus);
        if (!answer) return;
        replace = answer.answer === "replace";
      }
      await importStacks(content, replace);
    });
  }

  showSave() {
    const name = this.name.value.trim();
    this.save.textContent = Object.hasOwn(this.stacks, name) ? "Replace" : "Save";
    this.save.disabled = name === "" || this.rows.length === 0;
    this.exportAll.disabled = Object.keys(this.stacks).length === 0;
    this.save.title = this.rows.length === 0 ? "There are no rows to save" : "";
  }

  /** @param {string} name */
  entry(name) {
    const rows = normalRows(this.stacks[name]);
    const load = make("button", { type: "button", className: "vivace-menu-item", ariaLabel: `Load ${name}` });
    load.append(make("span", { textContent: name }), make("kbd", { textContent: countOf(rows.length, "LoRA") }));
    load.title = rows.map((row) => `${row.lora} ${row.strength}`).join("\n");
    load.addEventListener("click", () => {
      this.popover.close();
      this.onLoad(rows);
    });
    const share = make("button", { type: "button", title: "Export", textContent: "⤓", ariaLabel: `Export ${name}` });
    share.addEventListener("click", () => saveFile(`${name}.json`, { [FIELD]: { [name]: rows } }));
    const remove = make("button", { type: "button", title: "Delete" });
    let sure = false;
    const arm = (/** @type {boolean} */ asked) => {
      sure = asked;
      remove.textContent = sure ? "Delete?" : "✕";
      remove.ariaLabel = sure ? `Delete ${name}: press again to delete` : `Delete ${name}`;
    };
    arm(false);
    remove.addEventListener("click", () => {
      if (sure) this.attempt(() => deleteStack(name));
      else arm(true);
    });
    remove.addEventListener("blur", () => arm(false));
    return make("div", { className: "vivace-presets-entry", role: "listitem" }, load, share, remove);
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
