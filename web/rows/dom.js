// Makes elements.

/**
 * An element with properties and children; children may be text.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, any>} [properties] properties of the element, such as `ariaLabel`
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/**
 * A button with a name for screen readers; `part` says which of its row's controls it is.
 * @param {string} part
 * @param {Record<string, any>} properties
 * @param {...(Node | string)} children
 */
export function button(part, properties, ...children) {
  const made = make("button", { type: "button", className: `vivace-rows-${part}`, ...properties }, ...children);
  made.dataset.part = part;
  return made;
}

/**
 * Keeps the editor from acting on plain keys, such as Delete, which removes nodes. Keys with Ctrl
 * or Cmd pass, so that undo and run work from anywhere.
 * @param {HTMLElement} element
 */
export function keepPlainKeys(element) {
  element.addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey) event.stopPropagation();
  });
}
