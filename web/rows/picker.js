// Chooses a LoRA file: search, folders, files used last, preview images, all by keyboard too.

import { makeCrumbs, parentOf, showCrumbs } from "../folders.js";
import { make } from "../dom.js";
import { addRecent, ensureNames, knownEntries, namesProblem, onNames, recentNames } from "./names.js";
import { itemElement } from "./picker_item.js";
import { countOf, folderItems, searchItems, wordsOf } from "./picker_items.js";
import { openPopover } from "./popover.js";
import { Thumbnail } from "./thumbnail.js";
import { VirtualList } from "./virtual_list.js";

/** @typedef {import("./picker_items.js").Item} Item */

const ITEM_HEIGHT = 28;
const MAX_SHOWN = 11;

/**
 * @typedef {object} PickerOptions
 * @property {string} label
 * @property {string} current the name that is chosen now, or ""
 * @property {boolean} several whether Shift chooses and stays open
 * @property {(name: string) => void} onChoose
 */

class Picker {
  /**
   * @param {HTMLElement} anchor
   * @param {PickerOptions} options
   */
  constructor(anchor, options) {
    this.options = options;
    this.folder = "";
    this.active = -1;
    /** @type {Item[]} */
    this.items = [];
    this.search = make("input", {
      type: "text",
      className: "vivace-picker-search",
      placeholder: "Search LoRAs",
      role: "combobox",
      ariaLabel: "Search LoRAs",
      ariaExpanded: "true",
      ariaAutoComplete: "list",
      autocomplete: "off",
      spellcheck: false,
    });
    this.crumbs = makeCrumbs();
    this.list = new VirtualList({
      label: "LoRAs",
      itemHeight: ITEM_HEIGHT,
      render: (/** @type {Item} */ item, index) => this.itemElement(item, index),
    });
    this.list.element.id = "vivace-picker-list";
    this.search.setAttribute("aria-controls", this.list.element.id);
    this.note = make("div", { className: "vivace-picker-note", role: "status" });
    this.element = make("div", { className: "vivace-picker", role: "dialog", ariaLabel: options.label });
    this.element.append(this.search, this.crumbs, this.list.element, this.note);
    this.thumbnail = new Thumbnail(this.element);
    this.listen();
    const forget = onNames(() => this.update());
    this.popover = openPopover(anchor, this.element, anchor, () => {
      forget();
      this.thumbnail.show(null);
    });
    this.update();
    this.popover.place();
    this.search.focus();
    ensureNames();
  }

  listen() {
    this.search.addEventListener("input", () => this.update());
    this.search.addEventListener("keydown", (event) => this.onKey(event));
    const list = this.list.element;
    const indexAt = (/** @type {Event} */ event) => {
      const item = /** @type {HTMLElement} */ (event.target).closest("[data-index]");
      return item instanceof HTMLElement ? Number(item.dataset.index) : -1;
    };
    list.addEventListener("mousedown", (event) => event.preventDefault()); // the search keeps the focus
    list.addEventListener("click", (event) => this.choose(indexAt(event), event.shiftKey));
    list.addEventListener("pointermove", (event) => {
      const index = indexAt(event);
      if (index >= 0 && index !== this.active) this.activate(index);
    });
  }

  /** Lists again what the folder and the query ask for. */
  update() {
    const words = wordsOf(this.search.value);
    const entries = knownEntries();
    this.items = words.length
      ? searchItems(entries, this.folder, this.search.value)
      : folderItems(entries, this.folder, recentNames());
    // The same for every query, so that the list stays where it is.
    const shown = Math.min(entries.length + 2, MAX_SHOWN);
    this.list.element.style.height = `${shown * ITEM_HEIGHT}px`;
    this.list.show(this.items);
    showCrumbs(this.crumbs, this.folder, (folder) => this.enter(folder));
    const files = this.items.filter((item) => item.kind === "file").length;
    const counted = words.length ? `${files} of ${entries.length}` : countOf(entries.length, "file");
    this.note.textContent = namesProblem() || (entries.length ? counted : "There are no LoRA files.");
    this.note.title = this.options.several ? "Shift+Enter or Shift+click adds one and stays open" : "";
    const chosen = words.length ? -1 : this.items.findIndex((item) => this.isChosen(item));
    this.activate(chosen >= 0 ? chosen : this.items.findIndex((item) => item.kind !== "heading"));
  }

  /** @param {string} folder */
  enter(folder) {
    this.folder = folder;
    this.search.value = "";
    this.update();
    this.search.focus();
  }

  /** @param {Item} item */
  isChosen(item) {
    return item.kind === "file" && item.entry.name === this.options.current;
  }

  /**
   * @param {Item} item
   * @param {number} index
   */
  itemElement(item, index) {
    return itemElement(item, {
      index,
      count: this.items.length,
      active: index === this.active,
      chosen: this.isChosen(item),
      folder: this.folder,
      words: wordsOf(this.search.value),
    });
  }

  /** @param {number} index */
  activate(index) {
    this.active = index;
    if (index >= 0) this.list.reveal(index);
    if (index >= 0) this.search.setAttribute("aria-activedescendant", `vivace-item-${index}`);
    else this.search.removeAttribute("aria-activedescendant");
    const item = this.items[index];
    this.thumbnail.show(item?.kind === "file" && item.entry.preview ? item.entry.name : null);
  }

  /** @param {number} by */
  step(by) {
    let index = Math.min(Math.max(this.active + by, 0), this.items.length - 1);
    if (this.items[index]?.kind === "heading") index += by < 0 && index > 0 ? -1 : 1;
    if (index < this.items.length) this.activate(index);
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    const page = Math.max(Math.floor(this.list.element.clientHeight / ITEM_HEIGHT) - 1, 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page }[event.key];
    const up = event.key === "Backspace" && this.search.value === "" && this.folder !== "";
    if (steps) this.step(steps);
    else if (event.key === "Enter") this.choose(this.active, event.shiftKey);
    else if (up) this.enter(parentOf(this.folder));
    else if (event.key === "Tab") this.popover.close();
    else return;
    event.preventDefault();
  }

  /**
   * @param {number} index
   * @param {boolean} stay
   */
  choose(index, stay) {
    const item = this.items[index];
    if (item?.kind === "folder") this.enter(item.folder);
    if (item?.kind !== "file") return;
    if (!stay || !this.options.several) this.popover.close();
    this.options.onChoose(item.entry.name);
    addRecent(item.entry.name);
  }
}

/**
 * Opens the picker beside a control, which gets the focus back.
 * @param {HTMLElement} anchor
 * @param {PickerOptions} options
 */
export function openPicker(anchor, options) {
  new Picker(anchor, options);
}
