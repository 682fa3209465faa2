// Shows something beside a control, in the size of the page whatever the zoom of the canvas.

import { keepPlainKeys, make } from "../dom.js";

const GAP = 4;

/** @typedef {HTMLElement | DOMRect} Anchor a control, or a place in the window */

/** @type {{ element: HTMLElement, returnFocus: HTMLElement, close: (refocus?: boolean) => void } | null} */
let opened = null;

/** @param {Anchor} anchor */
const rectOf = (anchor) => (anchor instanceof HTMLElement ? anchor.getBoundingClientRect() : anchor);

/**
 * Below the anchor, or above where there is more room, and inside the window.
 * @param {HTMLElement} element
 * @param {DOMRect} rect
 */
function place(element, rect) {
  const { offsetWidth: width, offsetHeight: height } = element;
  const below = window.innerHeight - rect.bottom - GAP;
  const top = height <= below || below >= rect.top ? rect.bottom + GAP : rect.top - GAP - height;
  const inside = (/** @type {number} */ at, /** @type {number} */ room) => Math.max(GAP, Math.min(at, room - GAP));
  element.style.left = `${inside(rect.left, window.innerWidth - width)}px`;
  element.style.top = `${inside(top, window.innerHeight - height)}px`;
}

/** Closes what is open. */
const closePopover = () => opened?.close(false);

/**
 * Closes what was opened from a control inside the element.
 * @param {HTMLElement} element
 */
export function closePopoverOf(element) {
  if (opened && element.contains(opened.returnFocus)) closePopover();
}

/**
 * Opens a popover; another one closes. Escape and a click outside close it.
 * @param {Anchor} anchor
 * @param {HTMLElement} content
 * @param {HTMLElement} returnFocus what gets the focus when it closes
 * @param {() => void} [onClose]
 * @returns {{ element: HTMLElement, place: () => void, close: (refocus?: boolean) => void }}
 */
export function openPopover(anchor, content, returnFocus, onClose) {
  closePopover();
  const element = make("div", { className: "vivace-popover", popover: "manual" }, content);
  const listening = new AbortController();
  const placeNow = () => place(element, rectOf(anchor));
  const resized = new ResizeObserver(placeNow); // what grows stays inside the window
  const close = (refocus = true) => {
    if (opened?.element !== element) return;
    opened = null;
    listening.abort();
    resized.disconnect();
    element.remove();
    onClose?.();
    if (refocus) returnFocus.focus({ preventScroll: true });
  };
  const outside = (/** @type {Event} */ event) => {
    if (!element.contains(/** @type {Node} */ (event.target))) close(false);
  };
  const { signal } = listening;
  document.addEventListener("pointerdown", outside, { capture: true, signal });
  document.addEventListener("wheel", outside, { capture: true, passive: true, signal });
  window.addEventListener("resize", () => close(false), { signal });
  element.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.preventDefault();
    close();
  });
  keepPlainKeys(element);
  document.body.append(element);
  element.showPopover(); // above everything, also the editor's own dialogs
  placeNow();
  resized.observe(element);
  opened = { element, returnFocus, close };
  return { element, place: placeNow, close };
}
