// A list that makes elements only for what is in view, so that ten thousand items cost no more than twenty.

import { make } from "../dom.js";

const MARGIN = 4; // items made beyond the edges

/** @template T */
export class VirtualList {
  /**
   * @param {object} options
   * @param {string} options.label
   * @param {number} options.itemHeight in CSS pixels
   * @param {(item: T, index: number) => HTMLElement} options.render
   */
  constructor({ label, itemHeight, render }) {
    this.itemHeight = itemHeight;
    this.render = render;
    /** @type {T[]} */
    this.items = [];
    this.space = make("div", { className: "vivace-list-space", role: "presentation" });
    this.element = make("div", { className: "vivace-list", role: "listbox", ariaLabel: label }, this.space);
    this.element.addEventListener("scroll", () => this.draw());
  }

  /** @param {T[]} items */
  show(items) {
    this.items = items;
    this.space.style.height = `${items.length * this.itemHeight}px`;
    this.element.scrollTop = 0;
    this.draw();
  }

  draw() {
    const { scrollTop, clientHeight } = this.element;
    const first = Math.max(Math.floor(scrollTop / this.itemHeight) - MARGIN, 0);
    const end = Math.ceil((scrollTop + clientHeight) / this.itemHeight) + MARGIN;
    this.space.replaceChildren(
      ...this.items.slice(first, end).map((item, offset) => {
        const element = this.render(item, first + offset);
        element.style.transform = `translateY(${(first + offset) * this.itemHeight}px)`;
        element.style.height = `${this.itemHeight}px`;
        return element;
      }),
    );
  }

  /** @param {number} index */
  reveal(index) {
    const top = index * this.itemHeight;
    const { scrollTop, clientHeight } = this.element;
    if (top < scrollTop) this.element.scrollTop = top;
    else if (top + this.itemHeight > scrollTop + clientHeight) {
      this.element.scrollTop = top + this.itemHeight - clientHeight;
    }
    this.draw();
  }
}
