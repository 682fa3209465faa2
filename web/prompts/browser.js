// The library beside a node: search, folders, tags; choose, rename, move, delete, import, export.

import { makeCrumbs, parentOf, showCrumbs } from "../folders.js";
import { make } from "../dom.js";
import { countOf, wordsOf } from "../rows/picker_items.js";
import { openPopover } from "../rows/popover.js";
import { chooseImport, exportEntries } from "./files.js";
import { findEntries, folderItems, promptItems, tagsOf } from "./items.js";
import * as library from "./library.js";
import { ask } from "../question.js";
import { SearchList } from "./search_list.js";
import { deletePrompt, renamePrompt } from "./server.js";

/** @typedef {import("./items.js").Entry} Entry */
/** @typedef {import("./items.js").Item} Item */

/**
 * @typedef {object} Choices
 * @property {(entry: Entry) => void} onTexts the texts are wanted in the node
 * @property {(entry: Entry) => void} onName the name alone is wanted, with whatever texts it has when the node runs
 * @property {(from: string, to: string) => void} onRenamed
 */

/**
 * @param {Item} item
 * @param {string} folder that is shown
 */
function itemElement(item, folder) {
  if (item.kind === "folder") {
    return make(
      "div",
      { ariaLabel: `Folder ${item.text}, ${countOf(item.count, "prompt")}` },
      make("span", { className: "vivace-list-icon", textContent: "▸", ariaHidden: "true" }),
      make("span", { className: "vivace-list-stem", textContent: item.text }),
      make("span", { className: "vivace-list-note", textContent: String(item.count) }),
    );
  }
  const { name, folder: home, stem, prompt } = item.entry;
  const place = make("span", { className: "vivace-prompts-place", textContent: home.slice(folder.length) });
  const element = make("div", { ariaLabel: name });
  element.append(
    make("span", { className: "vivace-list-stem" }, place, stem),
    make("span", { className: "vivace-list-note", textContent: prompt.tags.join(", ") }),
  );
  return element;
}

class Browser {
  /**
   * @param {HTMLElement} anchor
   * @param {string} current name of the node's prompt
   * @param {Choices} choices
   */
  constructor(anchor, current, choices) {
    this.choices = choices;
    this.current = current;
    this.folder = "";
    /** @type {Set<string>} */
    this.chosenTags = new Set();
    /** @type {Entry[]} */
    this.found = [];
    this.list = new SearchList({
      label: "Prompts",
      placeholder: "Search prompts",
      itemHeight: 28,
      shown: 8,
      render: (/** @type {Item} */ item) => itemElement(item, this.folder),
      onChoose: (/** @type {Item} */ item) => this.choose(item),
      onActive: (item) => this.showActive(item),
      onInput: () => this.update(),
    });
    this.tags = make("div", { className: "vivace-prompts-tags", role: "group", ariaLabel: "Tags" });
    this.crumbs = makeCrumbs();
    this.note = make("div", { className: "vivace-picker-note", role: "status" });
    this.text = make("div", { className: "vivace-prompts-text" });
    this.element = make("div", { className: "vivace-prompts", role: "dialog", ariaLabel: "Prompts" });
    const { search, list } = this.list;
    this.element.append(search, this.tags, this.crumbs, list.element, this.note, this.text, this.commands());
    search.addEventListener("keydown", (event) => this.onKey(event));
    const forget = library.onPrompts(() => this.update());
    this.popover = openPopover(anchor, this.element, anchor, forget);
    this.update();
    this.popover.place();
    search.focus();
    library.refreshPrompts();
  }

  commands() {
    const command = (/** @type {string} */ label, /** @type {string} */ title, /** @type {() => void} */ run) => {
      const made = make("button", { type: "button", textContent: label, title });
      made.addEventListener("click", run);
      return made;
    };
    const onActive = (/** @type {(entry: Entry) => void} */ run) => () => this.active && run(this.active);
    this.ofActive = [
      command("Use by name", "The node takes the texts that the prompt has when it runs", onActive((entry) => {
        this.popover.close();
        this.choices.onName(entry);
      })),
      command("Rename", "Another name or folder (F2)", onActive((entry) => this.rename(entry))),
      command("Delete", "Delete the prompt from the library", onActive((entry) => this.remove(entry))),
    ];
    this.export = command("Export", "A file of the prompts that are listed", () => exportEntries(this.found));
    const load = command("Import", "Prompts of a file", () => chooseImport(this.element, this.list.search));
    return make("div", { className: "vivace-prompts-commands" }, ...this.ofActive, this.export, load);
  }

  /** @type {Entry | undefined} */
  get active() {
    const item = this.list.items[this.list.active];
    return item?.kind === "prompt" ? item.entry : undefined;
  }

  /** Lists again what folder, tags and query ask for. */
  update() {
    const before = this.active?.name ?? this.current;
    const entries = library.knownEntries();
    const known = tagsOf(entries);
    this.chosenTags = new Set([...this.chosenTags].filter((tag) => known.includes(tag)));
    const query = this.list.search.value;
    this.found = findEntries(entries, this.folder, this.chosenTags, query);
    const flat = this.chosenTags.size || wordsOf(query).length;
    const items = flat ? promptItems(this.found) : folderItems(this.found, this.folder);
    this.showTags(known);
    showCrumbs(this.crumbs, this.folder, (folder) => this.enter(folder));
    const counted = `${this.found.length} of ${countOf(entries.length, "prompt")}`;
    const none = library.areKnown() ? "No prompts are saved yet." : "Fetching the prompts …";
    this.note.textContent = [...library.knownProblems(), entries.length ? counted : none].join("\n");
    this.list.show(items, items.findIndex((item) => item.kind === "prompt" && item.entry.name === before));
  }

  /** @param {string[]} known */
  showTags(known) {
    const focused = document.activeElement?.textContent;
    const inside = this.tags.contains(document.activeElement);
    const buttons = known.map((tag) => {
      const button = make("button", { type: "button", textContent: tag, ariaPressed: String(this.chosenTags.has(tag)) });
      button.addEventListener("click", () => {
        if (!this.chosenTags.delete(tag)) this.chosenTags.add(tag);
        this.update();
      });
      return button;
    });
    this.tags.replaceChildren(...buttons);
    if (inside) (buttons.find((button) => button.textContent === focused) ?? this.list.search).focus();
  }

  /** @param {Item | undefined} item */
  showActive(item) {
    const prompt = item?.kind === "prompt" ? item.entry.prompt : null;
    for (const button of this.ofActive ?? []) button.disabled = !prompt;
    if (this.export) this.export.disabled = !this.found.length;
    const { positive = "", negative = "", note = "" } = prompt ?? {};
    this.text.replaceChildren(make("div", { textContent: positive }));
    if (negative) this.text.append(make("div", { className: "vivace-prompts-negative", textContent: `– ${negative}` }));
    if (note) this.text.append(make("div", { className: "vivace-picker-note", textContent: note }));
  }

  /** @param {string} folder */
  enter(folder) {
    this.folder = folder;
    this.list.search.value = "";
    this.update();
    this.list.search.focus();
  }

  /** @param {Item} item */
  choose(item) {
    if (item.kind === "folder") {
      this.enter(item.folder);
      return;
    }
    this.popover.close();
    this.choices.onTexts(item.entry);
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    const up = event.key === "Backspace" && this.list.search.value === "" && this.folder !== "";
    if (up) this.enter(parentOf(this.folder));
    else if (event.key === "F2" && this.active) this.rename(this.active);
    else return;
    event.preventDefault();
  }

  /**
   * Does something on the server; what goes wrong is told, and the list is fetched again.
   * @param {string} failure
   * @param {() => Promise<void>} action
   */
  async attempt(failure, action) {
    try {
      await action();
      return true;
    } catch (error) {
      library.tellError(failure, error);
      return false;
    } finally {
      await library.promptsChanged();
    }
  }

  /** @param {Entry} entry */
  async rename({ name, revision }) {
    const text = `New name of ${name}; what is before the last / are folders.`;
    const field = { label: "New name", value: name };
    const answer = await ask(this.element, { text, field, answers: [["Rename", "rename"]] }, this.list.search);
    if (!answer || answer.value === name) return;
    const done = await this.attempt(`${name} was not renamed`, () => renamePrompt(name, answer.value, revision));
    if (done) this.choices.onRenamed(name, answer.value);
  }

  /** @param {Entry} entry */
  async remove({ name, revision }) {
    const text = `Delete ${name} from the library?`;
    const answer = await ask(this.element, { text, answers: [["Delete", "delete"]] }, this.list.search);
    if (answer) await this.attempt(`${name} was not deleted`, () => deletePrompt(name, revision));
  }
}

/**
 * @param {HTMLElement} anchor
 * @param {string} current
 * @param {Choices} choices
 */
export function openBrowser(anchor, current, choices) {
  new Browser(anchor, current, choices);
}
