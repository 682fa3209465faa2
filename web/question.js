// Asks something inside what is open, by mouse and by keyboard.

import { make } from "./dom.js";

/**
 * @typedef {object} Question
 * @property {string} text
 * @property {string} [detail] shown below it
 * @property {[label: string, answer: string][]} answers
 * @property {{ label: string, value: string }} [field] a text that belongs to the first answer
 */

/** Gives up the question that was asked last, if it is still open. */
let giveUp = () => {};

/**
 * Shows a question in place of the one before; Escape and *Cancel* give none of the answers.
 * @param {HTMLElement} host
 * @param {Question} question
 * @param {HTMLElement} returnFocus
 * @returns {Promise<{ answer: string, value: string } | null>}
 */
export function ask(host, { text, detail, answers, field }, returnFocus) {
  giveUp();
  const form = make("form", { className: "vivace-question", role: "alertdialog", ariaLabel: text });
  form.append(make("p", { textContent: text }));
  if (detail) form.append(make("p", { className: "vivace-question-detail", textContent: detail }));
  const input = make("input", { type: "text", autocomplete: "off", spellcheck: false });
  if (field) {
    Object.assign(input, { ariaLabel: field.label, value: field.value });
    form.append(input);
  }
  const buttons = answers.map(([label, answer], index) =>
    make("button", { type: index ? "button" : "submit", textContent: label, value: answer }),
  );
  const cancel = make("button", { type: "button", textContent: "Cancel" });
  form.append(make("div", { className: "vivace-question-answers" }, ...buttons, cancel));
  host.append(form);
  form.scrollIntoView({ block: "nearest" });
  (field ? input : cancel).focus();
  if (field) input.select();
  return new Promise((resolve) => {
    const close = (/** @type {string | null} */ answer) => {
      if (form.isConnected) returnFocus.focus({ preventScroll: true });
      form.remove();
      resolve(answer === null ? null : { answer, value: input.value.trim() });
    };
    giveUp = () => close(null);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      close(answers[0][1]);
    });
    for (const button of buttons.slice(1)) button.addEventListener("click", () => close(button.value));
    cancel.addEventListener("click", () => close(null));
    form.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.preventDefault();
      event.stopPropagation(); // what the question is in stays open
      close(null);
    });
  });
}
