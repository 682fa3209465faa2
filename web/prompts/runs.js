// The history of what was run, to get one of it back.

import { make } from "../dom.js";
import { countOf, wordsOf } from "../rows/picker_items.js";
import { openPopover } from "../rows/popover.js";
import { tellError } from "./library.js";
import { ask } from "../question.js";
import { SearchList } from "./search_list.js";
import { forgetRuns, listRuns } from "./server.js";

/** @typedef {import("./server.js").Run} Run */

/** @param {Run} run */
function runElement({ name, positive, negative, when, seed }) {
  const time = new Date(when).toLocaleString(undefined, { dateStyle: "short", timeStyle: "short" });
  const text = positive || `– ${negative}`;
  return make(
    "div",
    { ariaLabel: `${text}, ${name || "no name"}, ${time}`, title: `${text}\nSeed ${seed}` },
    make("span", { className: "vivace-list-stem", textContent: text }),
    make("span", { className: "vivace-list-note", textContent: name ? `${name}, ${time}` : time }),
  );
}

class Runs {
  /**
   * @param {HTMLElement} anchor
   * @param {(run: Run) => void} onChoose
   */
  constructor(anchor, onChoose) {
    /** @type {Run[]} */
    this.runs = [];
    this.list = new SearchList({
      label: "What was run",
      placeholder: "Search what was run",
      itemHeight: 28,
      shown: 8,
      render: runElement,
      onChoose: (/** @type {Run} */ run) => {
        this.popover.close();
        onChoose(run);
      },
      onActive: (run) => (this.text.textContent = run ? [run.positive, run.negative].filter(Boolean).join("\n– ") : ""),
      onInput: () => this.update(),
    });
    this.note = make("div", { className: "vivace-picker-note", role: "status", textContent: "Fetching …" });
    this.text = make("div", { className: "vivace-prompts-text" });
    this.forget = make("button", { type: "button", textContent: "Forget all", disabled: true });
    this.forget.addEventListener("click", () => this.forgetAll());
    this.element = make("div", { className: "vivace-prompts", role: "dialog", ariaLabel: "History" });
    this.element.append(this.list.search, this.list.list.element, this.note, this.text);
    this.element.append(make("div", { className: "vivace-prompts-commands" }, this.forget));
    this.popover = openPopover(anchor, this.element, anchor);
    this.list.search.focus();
    this.fetch();
  }

  async fetch() {
    try {
      this.runs = await listRuns();
    } catch (error) {
      tellError("The history could not be read", error);
    }
    this.forget.disabled = false; // a damaged history, too
    this.update();
  }

  update() {
    const words = wordsOf(this.list.search.value);
    const found = this.runs.filter(({ name, positive, negative }) => {
      const text = [name, positive, negative].join("\n").toLowerCase();
      return words.every((word) => text.includes(word));
    });
    const counted = `${found.length} of ${countOf(this.runs.length, "run")}`;
    this.note.textContent = this.runs.length ? counted : "Nothing was run yet.";
    this.list.show(found);
  }

  async forgetAll() {
    const text = "Forget all that was run? Saved prompts stay.";
    const answer = await ask(this.element, { text, answers: [["Forget", "forget"]] }, this.list.search);
    if (!answer) return;
    try {
      await forgetRuns();
    } catch (error) {
      tellError("The history was not forgotten", error);
    }
    await this.fetch();
  }
}

/**
 * @param {HTMLElement} anchor
 * @param {(run: Run) => void} onChoose
 */
export function openRuns(anchor, onChoose) {
  new Runs(anchor, onChoose);
}
