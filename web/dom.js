// Makes elements, and keeps events in them from the editor.

/**
 * An element with properties and children; children may be text.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, unknown>} [properties] properties of the element, such as `ariaLabel`
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
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

/**
 * Makes text in a node scroll and be selected, by mouse and by keyboard, where the canvas would
 * otherwise zoom or drag the node.
 * @param {HTMLElement} element
 */
export function makeReadable(element) {
  for (const type of ["pointerdown", "wheel"]) element.addEventListener(type, (event) => event.stopPropagation());
  element.tabIndex = 0;
  keepPlainKeys(element);
}
