// A menu of commands, by mouse and by keyboard.

import { make } from "../dom.js";
import { openPopover } from "./popover.js";

/**
 * @typedef {object} MenuItem
 * @property {string} label
 * @property {() => void} run
 * @property {string} [keys] the keys that do the same
 * @property {boolean} [disabled]
 * @property {boolean} [checked] for what is on or off
 */

/**
 * @param {MenuItem} item
 * @param {(item: MenuItem) => void} choose
 */
function itemElement(item, choose) {
  const element = make(
    "button",
    {
      type: "button",
      className: "vivace-menu-item",
      role: item.checked === undefined ? "menuitem" : "menuitemcheckbox",
      ariaChecked: item.checked === undefined ? null : String(item.checked),
      disabled: Boolean(item.disabled),
      tabIndex: -1,
      ariaKeyShortcuts: item.keys?.replace("↑", "ArrowUp").replace("↓", "ArrowDown") ?? null,
    },
    make("span", { textContent: item.label }),
    make("kbd", { textContent: item.checked ? "✓" : (item.keys ?? ""), ariaHidden: "true" }),
  );
  element.addEventListener("click", () => choose(item));
  return element;
}

/**
 * @param {HTMLElement[]} items those that can be chosen
 * @param {KeyboardEvent} event
 */
function moveFocus(items, event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const at = items.indexOf(/** @type {HTMLElement} */ (document.activeElement));
  const places = new Map([["ArrowDown", at + 1], ["ArrowUp", at < 0 ? -1 : at - 1], ["Home", 0], ["End", -1]]);
  const letter = event.key.toLowerCase();
  const after = [...items.slice(at + 1), ...items.slice(0, at + 1)];
  const named = after.find((item) => item.textContent.toLowerCase().startsWith(letter));
  const place = places.get(event.key) ?? (named ? items.indexOf(named) : undefined);
  if (place === undefined) return;
  event.preventDefault();
  items.at(place % items.length)?.focus();
}

/**
 * @param {import("./popover.js").Anchor} anchor
 * @param {string} label
 * @param {(MenuItem | null)[]} items null is a line between items
 * @param {HTMLElement} returnFocus
 */
export function openMenu(anchor, label, items, returnFocus) {
  const menu = make("div", { className: "vivace-menu", role: "menu", ariaLabel: label });
  const popover = openPopover(anchor, menu, returnFocus);
  const choose = (/** @type {MenuItem} */ item) => {
    popover.close();
    item.run();
  };
  menu.append(
    ...items.map((item) => (item ? itemElement(item, choose) : make("hr", { role: "separator" }))),
  );
  popover.place();
  const usable = /** @type {HTMLElement[]} */ ([...menu.querySelectorAll("button:enabled")]);
  menu.addEventListener("keydown", (event) => {
    if (event.key === "Tab") popover.close();
    else moveFocus(usable, event);
  });
  menu.addEventListener("contextmenu", (event) => event.preventDefault()); // the key that opened this one
  usable[0]?.focus();
}
