// The whole widget: a line for all rows, the rows, and a line with what adds to them.

import { app } from "../../../scripts/app.js";
import { keepPlainKeys, make } from "../dom.js";
import { button } from "./button.js";
import { recordChange } from "./history.js";
import { showInfo } from "./info.js";
import { openMenu } from "./menu.js";
import { ensureNames, onNames } from "./names.js";
import { openPicker } from "./picker.js";
import { closePopoverOf } from "./popover.js";
import { openPresets } from "./presets.js";
import { dragToReorder } from "./reorder.js";
import { RowView } from "./row.js";
import { rowMenu } from "./row_menu.js";
import * as state from "./state.js";

/** @typedef {state.Row} Row */

const LINE = 30; // the height of a row, with the gap after it; as in rows.css

export class LoraStack {
  constructor() {
    /** @type {(grown: number) => void} after every change by the user, with the pixels it has grown by */
    this.onChange = () => {};
    /** @type {Row[]} */
    this.rows = [];
    /** @type {RowView[]} */
    this.views = [];
    this.all = button("all", { role: "checkbox", ariaLabel: "All LoRAs: on", title: "All on or off" });
    this.count = make("span", { className: "vivace-rows-count" });
    this.separate = button("separate", { textContent: "CLIP", ariaLabel: "Separate text encoder strengths" });
    this.head = make("div", { className: "vivace-rows-head" }, this.all, this.count, this.separate);
    this.list = make("div", { className: "vivace-rows-list", role: "list", ariaLabel: "LoRAs" });
    this.add = button("add", { textContent: "Add LoRA", ariaHasPopup: "dialog" });
    this.presets = button("presets", { textContent: "Stacks ▾", ariaLabel: "Stacks", ariaHasPopup: "dialog" });
    this.presets.title = "Save these rows under a name, or load others";
    const foot = make("div", { className: "vivace-rows-foot" }, this.add, this.presets);
    this.element = make("div", { className: "vivace-rows", role: "group", ariaLabel: "LoRA stack" });
    this.element.append(this.head, this.list, foot);
    this.listen();
    this.forget = onNames(() => this.render());
    this.render();
    ensureNames();
  }

  listen() {
    this.all.addEventListener("click", () => this.change(state.withAll(this.rows, state.allOn(this.rows) !== true)));
    this.separate.addEventListener("click", () => {
      const separate = state.allSeparate(this.rows) !== true;
      this.change(this.rows.map((row) => state.separated(row, separate)));
    });
    this.add.addEventListener("click", () => this.pickNew());
    this.presets.addEventListener("click", () => {
      openPresets(this.presets, this.rows, (rows) => this.change(rows));
    });
    keepPlainKeys(this.element);
    this.element.addEventListener("pointerdown", (event) => event.stopPropagation()); // no drag of the node
    this.element.addEventListener("wheel", (event) => {
      event.preventDefault();
      event.stopPropagation();
      app.canvas.processMouseWheel(event); // nothing scrolls here, so the canvas zooms
    });
  }

  /** The height that all lines take, in CSS pixels at zoom 1. */
  get height() {
    return (this.rows.length + (this.rows.length ? 2 : 1)) * LINE;
  }

  /** @returns {Row[]} */
  get value() {
    return this.rows.map((row) => ({ ...row }));
  }

  /** @param {unknown} value */
  set value(value) {
    this.rows = state.normalRows(value);
    this.render();
  }

  destroy() {
    this.forget();
    closePopoverOf(this.element);
  }

  /**
   * @param {Row[]} rows
   * @param {boolean} [done] whether a step to undo ends here
   */
  change(rows, done = true) {
    const before = this.height;
    this.rows = rows;
    this.render();
    this.onChange(this.height - before);
    if (done) recordChange();
  }

  render() {
    const { rows, views } = this;
    while (views.length > rows.length) views.pop()?.element.remove();
    while (views.length < rows.length) this.list.append(this.addView(views.length).element);
    views.forEach((view, index) => view.show(rows[index], index));
    const on = state.allOn(rows);
    const separate = state.allSeparate(rows);
    this.head.hidden = rows.length === 0;
    this.all.ariaChecked = String(on);
    this.count.textContent = `${rows.filter((row) => row.on).length} of ${rows.length} on`;
    this.separate.ariaPressed = String(separate);
    this.separate.title = "A second strength in every row, for the text encoder";
  }

  /** @param {number} index */
  addView(index) {
    const view = new RowView({
      update: (fields, done) => this.change(state.updated(this.rows, index, fields), done),
      done: recordChange,
      move: (by) => this.move(index, index + by),
      remove: () => this.remove(index),
      pick: (anchor) => this.pick(index, anchor),
      menu: (anchor, returnFocus) => this.openMenu(index, anchor, returnFocus),
      focus: (part, by) => this.views[index + by]?.focusPart(part),
    });
    dragToReorder(view.handle, {
      rows: () => this.views.map((other) => other.element),
      index: () => index,
      onMove: (from, to) => this.move(from, to),
    });
    this.views.push(view);
    return view;
  }

  /**
   * Moves a row; the focus stays on the same control of it.
   * @param {number} from
   * @param {number} to
   */
  move(from, to) {
    if (to < 0 || to >= this.rows.length) return;
    const focused = /** @type {HTMLElement | null} */ (document.activeElement);
    const inside = focused && this.views[from].element.contains(focused);
    if (focused instanceof HTMLInputElement) focused.blur(); // what was typed counts
    this.change(state.moved(this.rows, from, to));
    if (inside) this.views[to].focusPart(focused.dataset.part ?? "menu");
  }

  /** @param {number} index */
  remove(index) {
    this.change(state.removed(this.rows, index));
    const next = this.views[Math.min(index, this.rows.length - 1)];
    if (next) next.focusPart("remove");
    else this.add.focus({ preventScroll: true });
  }

  /**
   * @param {number} index
   * @param {HTMLElement} anchor
   */
  pick(index, anchor) {
    openPicker(anchor, {
      label: `LoRA ${index + 1}: choose a file`,
      current: this.rows[index].lora,
      several: false,
      onChoose: (lora) => this.change(state.updated(this.rows, index, { lora })),
    });
  }

  pickNew() {
    openPicker(this.add, {
      label: "Choose a LoRA to add",
      current: "",
      several: true,
      onChoose: (lora) => this.change([...this.rows, state.normalRow({ lora })]),
    });
  }

  /**
   * @param {number} index
   * @param {import("./popover.js").Anchor} anchor
   * @param {HTMLElement} returnFocus
   */
  openMenu(index, anchor, returnFocus) {
    const row = this.rows[index];
    const separate = row.strength_clip === undefined;
    const items = rowMenu(this.rows, index, {
      move: (by) => this.move(index, index + by),
      duplicate: () => this.change(state.duplicated(this.rows, index)),
      remove: () => this.remove(index),
      solo: () => this.change(state.soloed(this.rows, index)),
      separate: () => this.change(this.rows.map((one) => (one === row ? state.separated(one, separate) : one))),
      info: () => showInfo(row.lora, returnFocus),
    });
    openMenu(anchor, `LoRA ${index + 1}`, items, returnFocus);
  }
}
