// Moves a row to another place with the pointer.

const DRAG_AFTER = 4; // pixels: less is a click

/**
 * The place that the dragged row takes when it is dropped at a height.
 * @param {HTMLElement[]} rows
 * @param {number} from
 * @param {number} y in the window
 */
function placeAt(rows, from, y) {
  const middles = rows.filter((_, index) => index !== from).map((row) => {
    const { top, bottom } = row.getBoundingClientRect();
    return (top + bottom) / 2;
  });
  return middles.filter((middle) => middle < y).length;
}

/**
 * @param {HTMLElement[]} rows
 * @param {number} from
 * @param {number} to -1 removes the marks
 */
function mark(rows, from, to) {
  rows.forEach((row, index) => {
    row.classList.toggle("vivace-rows-dragged", to >= 0 && index === from);
    row.classList.toggle("vivace-rows-before", to >= 0 && index === to && to < from);
    row.classList.toggle("vivace-rows-after", to >= 0 && index === to && to > from);
  });
}

/**
 * Lets a handle drag its row; Escape gives up. A click without a drag stays a click.
 * @param {HTMLElement} handle
 * @param {object} options
 * @param {() => HTMLElement[]} options.rows the elements of all rows, in order
 * @param {() => number} options.index the place of the handle's row
 * @param {(from: number, to: number) => void} options.onMove
 */
export function dragToReorder(handle, { rows, index, onMove }) {
  /** @type {{ y: number, to: number, moved: boolean } | null} */
  let drag = null;
  let dropped = false; // a click follows, which is not meant
  const stop = () => {
    mark(rows(), -1, -1);
    drag = null;
  };
  handle.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    handle.setPointerCapture(event.pointerId);
    dropped = false;
    drag = { y: event.clientY, to: index(), moved: false };
  });
  handle.addEventListener("pointermove", (event) => {
    if (!drag) return;
    drag.moved ||= Math.abs(event.clientY - drag.y) > DRAG_AFTER;
    if (!drag.moved) return;
    drag.to = placeAt(rows(), index(), event.clientY);
    mark(rows(), index(), drag.to);
  });
  handle.addEventListener("pointerup", () => {
    const done = drag;
    stop();
    if (!done?.moved) return;
    dropped = true;
    if (done.to !== index()) onMove(index(), done.to);
  });
  handle.addEventListener("pointercancel", stop);
  const onClick = (/** @type {MouseEvent} */ event) => {
    const pressed = event.detail === 0; // by a key
    if (dropped && !pressed) event.stopImmediatePropagation();
    dropped = false;
  };
  handle.addEventListener("click", onClick, { capture: true });
  handle.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !drag) return;
    dropped = drag.moved;
    stop();
  });
}
