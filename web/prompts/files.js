// Prompts as files of the user's machine.

import { app } from "../../../scripts/app.js";
import { chooseFile, saveFile } from "../files.js";
import { ask } from "../question.js";
import { countOf } from "../rows/picker_items.js";
import { entryOf, promptsChanged, tellError } from "./library.js";
import { importPrompts } from "./server.js";

/** @typedef {import("./items.js").Entry} Entry */

const FIELD = "vivace_prompts"; // as toolkit/prompt_bundle.py has it

/**
 * Has the browser save a file with the prompts.
 * @param {Entry[]} entries
 */
export function exportEntries(entries) {
  const prompts = Object.fromEntries(entries.map((entry) => [entry.name, entry.prompt]));
  saveFile("prompts.json", { [FIELD]: prompts });
}

/**
 * The names in an exported file that the library has otherwise.
 * @param {any} content
 */
function conflictsIn(content) {
  const prompts = Object.entries(content?.[FIELD] ?? {});
  return prompts.flatMap(([name, prompt]) => {
    const own = entryOf(name)?.prompt;
    const { positive, negative = "" } = prompt ?? {};
    return own && (own.positive !== positive || own.negative !== negative) ? [name] : [];
  });
}

/** @param {File} file */
async function contentOf(file) {
  try {
    return JSON.parse(await file.text());
  } catch {
    throw new Error("It is not JSON. Choose a file that Export has made.");
  }
}

/**
 * @param {HTMLElement} host where to ask
 * @param {File} file
 * @param {HTMLElement} returnFocus
 */
async function importFile(host, file, returnFocus) {
  try {
    const content = await contentOf(file);
    const conflicts = conflictsIn(content);
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
  chooseFile(".json,application/json", (file) => importFile(host, file, returnFocus));
}
