// A number that is dragged, stepped with the arrow keys, or typed.

import { make } from "../dom.js";
import { undoFromField } from "./history.js";
import { dragged, HINT, LIMIT, parsed, shown, stepped } from "./strength_value.js";

const DRAG_AFTER = 3; // pixels: less is a click

export class StrengthField {
  /**
   * @param {string} part which of the row's controls it is
   * @param {object} events
   * @param {(value: number) => void} events.onInput for every value on the way
   * @param {() => void} events.onDone once at the end, for the undo history
   */
  constructor(part, { onInput, onDone }) {
    this.value = 1;
    this.onInput = onInput;
    this.onDone = onDone;
    this.stepping = false;
    this.input = make("input", {
      type: "text",
      inputMode: "decimal",
      className: "vivace-rows-number",
      role: "spinbutton",
      ariaValueMin: String(-LIMIT),
      ariaValueMax: String(LIMIT),
      autocomplete: "off",
    });
    this.input.dataset.part = part;
    this.listenToDrags();
    this.input.addEventListener("keydown", (event) => this.onKey(event));
    this.input.addEventListener("keyup", () => this.endSteps());
    this.input.addEventListener("blur", () => this.endSteps());
    this.input.addEventListener("change", () => this.accept());
  }

  /**
   * @param {number} value
   * @param {string} label
   * @param {string} meaning the beginning of the tooltip
   */
  show(value, label, meaning) {
    const typing = document.activeElement === this.input && value === this.value;
    this.value = value;
    if (!typing) this.input.value = shown(value);
    this.input.ariaLabel = label;
    this.input.ariaValueNow = String(value);
    this.input.title = `${meaning} ${HINT}`;
  }

  /** @param {number} value */
  set(value) {
    if (value === this.value) return;
    this.onInput(value); // which shows it
  }

  accept() {
    const value = parsed(this.input.value);
    const before = this.value;
    if (value !== null) this.set(value);
    this.input.value = shown(this.value);
    if (this.value !== before) this.onDone();
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    const untouched = this.input.value === shown(this.value);
    if (untouched && undoFromField(event)) return;
    const steps = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (steps && !event.altKey) {
      event.preventDefault();
      event.stopPropagation();
      this.set(stepped(parsed(this.input.value) ?? this.value, steps, event));
      this.stepping = true;
    } else if (event.key === "Enter") {
      this.accept(); // with Ctrl the editor runs the graph after this
      this.input.select();
    } else if (event.key === "Escape") {
      this.input.value = shown(this.value);
      this.input.blur();
    }
  }

  // A key held down is one step to undo.
  endSteps() {
    if (!this.stepping) return;
    this.stepping = false;
    this.onDone();
  }

  listenToDrags() {
    const { input } = this;
    /** @type {{ x: number, value: number, moved: boolean } | null} */
    let drag = null;
    input.addEventListener("mousedown", (event) => {
      if (document.activeElement !== input) event.preventDefault(); // focus waits for the click
    });
    input.addEventListener("pointerdown", (event) => {
      const active = /** @type {HTMLElement | null} */ (document.activeElement);
      if (event.button !== 0 || active === input) return;
      active?.blur(); // what was typed elsewhere counts
      input.setPointerCapture(event.pointerId);
      drag = { x: event.clientX, value: this.value, moved: false };
    });
    input.addEventListener("pointermove", (event) => {
      if (!drag) return;
      drag.moved ||= Math.abs(event.clientX - drag.x) > DRAG_AFTER;
      if (drag.moved) this.set(dragged(drag.value, event.clientX - drag.x, event));
    });
    input.addEventListener("lostpointercapture", () => {
      if (drag?.moved && this.value !== drag.value) this.onDone();
      if (drag && !drag.moved) {
        input.focus();
        input.select();
      }
      drag = null;
    });
  }
}
