// Prompts as files of the user's machine.

import { app } from "../../../scripts/app.js";
import { make } from "../dom.js";
import { countOf } from "../rows/picker_items.js";
import { entryOf, promptsChanged, tellError } from "./library.js";
import { ask } from "./question.js";
import { importPrompts } from "./server.js";

/** @typedef {import("./items.js").Entry} Entry */

const FIELD = "vivace_prompts"; // as toolkit/prompt_bundle.py has it

/**
 * Has the browser save a file with the prompts.
 * @param {Entry[]} entries
 */
export function exportEntries(entries) {
  const prompts = Object.fromEntries(entries.map((entry) => [entry.name, entry.prompt]));
  const content = `${JSON.stringify({ [FIELD]: prompts }, null, 2)}\n`;
  const url = URL.createObjectURL(new Blob([content], { type: "application/json" }));
  make("a", { href: url, download: "prompts.json" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/**
 * The names in an exported file that the library has otherwise.
 * @param {any} content
 */
function conflictsIn(content) {
  const prompts = Object.entries(content?.[FIELD] ?? {});
  return prompts.filter(([name, { positive, negative = "" }]) => {
    const own = entryOf(name)?.prompt;
    return own && (own.positive !== positive || own.negative !== negative);
  });
}

/**
 * @param {HTMLElement} host where to ask
 * @param {File} file
 * @param {HTMLElement} returnFocus
 */
async function importFile(host, file, returnFocus) {
  try {
    const content = JSON.parse(await file.text());
    const conflicts = conflictsIn(content).map(([name]) => name);
    let existing = "keep";
    if (conflicts.length) {
      const text = `The library has ${countOf(conflicts.length, "prompt")} of the same name with another text.`;
      const detail = conflicts.slice(0, 8).join("\n");
      const answers = /** @type {[string, string][]} */ ([
        ["Keep mine", "keep"],
        ["Replace mine", "replace"],
        ["Keep both", "rename"],
      ]);
      const answer = await ask(host, { text, detail, answers }, returnFocus);
      if (!answer) return;
      existing = answer.answer;
    }
    const { saved, skipped } = await importPrompts(content, existing);
    const left = skipped.length ? `, ${skipped.length} left as they were` : "";
    const detail = `${countOf(saved.length, "prompt")} saved${left}.`;
    app.extensionManager.toast.add({ severity: "info", summary: `${file.name} was imported`, detail, life: 6000 });
  } catch (error) {
    tellError(`${file.name} was not imported`, error);
  }
  await promptsChanged();
}

/**
 * Lets the user choose a file, and saves the prompts in it.
 * @param {HTMLElement} host
 * @param {HTMLElement} returnFocus
 */
export function chooseImport(host, returnFocus) {
  const chooser = make("input", { type: "file", accept: ".json,application/json" });
  chooser.addEventListener("change", () => {
    const file = chooser.files?.[0];
    if (file) importFile(host, file, returnFocus);
  });
  chooser.click();
}
