// Saves the texts of a node as a prompt, and asks before another one is replaced.

import { make } from "../dom.js";
import { openPopover } from "../rows/popover.js";
import { entryOf, promptsChanged, refreshPrompts, tellError } from "./library.js";
import { ask } from "../question.js";
import { savePrompt } from "./server.js";

/** @typedef {import("./items.js").Entry} Entry */
/** @typedef {import("./server.js").Prompt} Prompt */

/** @param {string} text */
const tagsIn = (text) => [...new Set(text.split(",").map((tag) => tag.trim()).filter(Boolean))];

/** @param {Prompt} prompt */
const shownTexts = ({ positive, negative }) => (negative ? `${positive}\n– ${negative}` : positive);

class SaveForm {
  /**
   * @param {HTMLElement} anchor
   * @param {string} name that it has now
   * @param {{ positive: string, negative: string }} texts
   * @param {(name: string) => void} onSaved
   */
  constructor(anchor, name, texts, onSaved) {
    this.texts = texts;
    this.onSaved = onSaved;
    const prompt = entryOf(name)?.prompt;
    this.name = this.field("Name, with folders", name, "portraits/soft light");
    this.tags = this.field("Tags, with commas", prompt?.tags.join(", ") ?? "", "");
    this.note = this.field("Note", prompt?.note ?? "", "");
    this.save = make("button", { type: "submit", textContent: "Save" });
    const form = make("form", { className: "vivace-prompts-form" });
    for (const input of [this.name, this.tags, this.note]) {
      form.append(make("label", {}, input.ariaLabel ?? "", input));
    }
    form.append(this.save);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    this.element = make("div", { className: "vivace-prompts", role: "dialog", ariaLabel: "Save the prompt" }, form);
    this.popover = openPopover(anchor, this.element, anchor);
    this.name.addEventListener("input", () => this.showSave());
    this.showSave();
    this.name.focus();
    this.name.select();
  }

  /**
   * @param {string} label
   * @param {string} value
   * @param {string} placeholder
   */
  field(label, value, placeholder) {
    return make("input", { type: "text", ariaLabel: label, value, placeholder, autocomplete: "off", spellcheck: false });
  }

  showSave() {
    this.save.disabled = this.name.value.trim() === "";
  }

  async submit() {
    const name = this.name.value.trim();
    const prompt = { ...this.texts, tags: tagsIn(this.tags.value), note: this.note.value.trim() };
    this.save.disabled = true; // once is enough
    try {
      if (await this.attempt(name, prompt)) {
        this.popover.close();
        this.onSaved(name);
        promptsChanged();
      }
    } catch (error) {
      tellError(`${name} was not saved`, error);
    }
    this.showSave();
  }

  /**
   * Saves; whatever prompt of the name turns up in the library is replaced only as far as the user
   * has seen it.
   * @param {string} name
   * @param {Prompt} prompt
   * @returns {Promise<boolean>} whether it was saved
   */
  async attempt(name, prompt) {
    let seen = entryOf(name);
    let question = `There is a prompt ${name}. Replace it?`;
    for (;;) {
      if (seen && !(await this.mayReplace(seen, question))) return false;
      try {
        await savePrompt(name, prompt, seen?.revision);
        return true;
      } catch (error) {
        await refreshPrompts();
        const now = entryOf(name);
        if (now?.revision === seen?.revision) throw error; // it was not for that
        question = `${name} was changed elsewhere just now. Replace it?`;
        seen = now;
      }
    }
  }

  /**
   * @param {Entry} entry
   * @param {string} text
   */
  async mayReplace(entry, text) {
    const answers = /** @type {[string, string][]} */ ([["Replace", "replace"]]);
    return (await ask(this.element, { text, detail: shownTexts(entry.prompt), answers }, this.name)) !== null;
  }
}

/**
 * @param {HTMLElement} anchor
 * @param {string} name
 * @param {{ positive: string, negative: string }} texts
 * @param {(name: string) => void} onSaved
 */
export function openSave(anchor, name, texts, onSaved) {
  new SaveForm(anchor, name, texts, onSaved);
}
