// A search field and the list of what it finds; the focus stays in the field.

import { make } from "../dom.js";
import { VirtualList } from "../rows/virtual_list.js";

/**
 * @template T
 * @typedef {object} SearchListOptions
 * @property {string} label of the list
 * @property {string} placeholder
 * @property {number} itemHeight in CSS pixels
 * @property {number} shown how many items have room
 * @property {(item: T) => HTMLElement} render
 * @property {(item: T) => void} onChoose
 * @property {(item: T | undefined) => void} onActive
 * @property {() => void} onInput
 */

/** @template T */
export class SearchList {
  /** @param {SearchListOptions<T>} options */
  constructor(options) {
    this.options = options;
    this.active = -1;
    /** @type {T[]} */
    this.items = [];
    const { label, placeholder, itemHeight, shown } = options;
    this.search = make("input", {
      type: "text",
      placeholder,
      role: "combobox",
      ariaLabel: placeholder,
      ariaExpanded: "true",
      ariaAutoComplete: "list",
      autocomplete: "off",
      spellcheck: false,
    });
    this.list = new VirtualList({
      label,
      itemHeight,
      render: (/** @type {T} */ item, index) => this.itemElement(item, index),
    });
    this.list.element.id = "vivace-search-list";
    this.list.element.style.height = `${itemHeight * shown}px`;
    this.search.setAttribute("aria-controls", this.list.element.id);
    this.listen();
  }

  listen() {
    this.search.addEventListener("input", () => this.options.onInput());
    this.search.addEventListener("keydown", (event) => this.onKey(event));
    const list = this.list.element;
    const indexAt = (/** @type {Event} */ event) => {
      const item = /** @type {HTMLElement} */ (event.target).closest("[data-index]");
      return item instanceof HTMLElement ? Number(item.dataset.index) : -1;
    };
    list.addEventListener("mousedown", (event) => event.preventDefault()); // the field keeps the focus
    list.addEventListener("click", (event) => this.choose(indexAt(event)));
    list.addEventListener("pointermove", (event) => {
      const index = indexAt(event);
      if (index >= 0 && index !== this.active) this.activate(index);
    });
  }

  /**
   * @param {T[]} items
   * @param {number} active
   */
  show(items, active = 0) {
    this.items = items;
    this.list.show(items);
    this.activate(Math.min(Math.max(active, 0), items.length - 1));
  }

  /**
   * @param {T} item
   * @param {number} index
   */
  itemElement(item, index) {
    const element = this.options.render(item);
    Object.assign(element, { id: `vivace-found-${index}`, role: "option" });
    element.classList.add("vivace-list-item");
    element.ariaSelected = String(index === this.active);
    element.ariaSetSize = String(this.items.length);
    element.ariaPosInSet = String(index + 1);
    element.dataset.index = String(index);
    return element;
  }

  /** @param {number} index */
  activate(index) {
    this.active = index;
    if (index >= 0) this.list.reveal(index);
    if (index >= 0) this.search.setAttribute("aria-activedescendant", `vivace-found-${index}`);
    else this.search.removeAttribute("aria-activedescendant");
    this.options.onActive(this.items[index]);
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    const { itemHeight } = this.options;
    const page = Math.max(Math.floor(this.list.element.clientHeight / itemHeight) - 1, 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page }[event.key];
    if (steps) this.activate(Math.min(Math.max(this.active + steps, 0), this.items.length - 1));
    else if (event.key === "Enter") this.choose(this.active);
    else return;
    event.preventDefault();
  }

  /** @param {number} index */
  choose(index) {
    if (index in this.items) this.options.onChoose(this.items[index]);
  }
}
