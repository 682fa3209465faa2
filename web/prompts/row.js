// The line of a Prompt Manager node that leads to the library.

import { app } from "../../../scripts/app.js";
import { keepPlainKeys, make } from "../dom.js";
import { button } from "../rows/button.js";
import { closePopoverOf } from "../rows/popover.js";
import { openBrowser } from "./browser.js";
import { splitName } from "./items.js";
import { areKnown, ensurePrompts, entryOf, onPrompts } from "./library.js";
import { openRuns } from "./runs.js";
import { openSave } from "./save.js";
import { isLinked, literal, setValues, textOf } from "./texts.js";

export class PromptRow {
  /** @param {Editor.Node} node */
  constructor(node) {
    this.node = node;
    this.folder = make("span", { className: "vivace-rows-folder" });
    this.stem = make("span", { className: "vivace-rows-stem" });
    this.state = make("span", { className: "vivace-prompts-state" });
    this.name = button("file", { ariaHasPopup: "dialog" }, this.folder, this.stem, this.state);
    this.runs = button("runs", { textContent: "History", ariaHasPopup: "dialog" });
    this.runs.title = "What was run, to get it back";
    this.save = button("save", { textContent: "Save", ariaHasPopup: "dialog" });
    const line = make("div", { className: "vivace-rows-foot" }, this.name, this.runs, this.save);
    this.element = make("div", { className: "vivace-rows", role: "group", ariaLabel: "Prompt library" }, line);
    this.listen();
    this.forget = onPrompts(() => this.show());
    this.show();
    ensurePrompts();
  }

  listen() {
    const { node } = this;
    this.name.addEventListener("click", () => this.browse());
    this.runs.addEventListener("click", () =>
      openRuns(this.runs, ({ name, positive, negative, seed }) => {
        setValues(node, { prompt: name, positive: literal(positive), negative: literal(negative), seed });
        this.show();
      }),
    );
    this.save.addEventListener("click", () => {
      const texts = { positive: textOf(node, "positive"), negative: textOf(node, "negative") };
      openSave(this.save, textOf(node, "prompt"), texts, (name) => {
        setValues(node, { prompt: name });
        this.show();
      });
    });
    keepPlainKeys(this.element);
    this.element.addEventListener("pointerdown", (event) => event.stopPropagation()); // no drag of the node
    this.element.addEventListener("wheel", (event) => {
      event.preventDefault();
      event.stopPropagation();
      app.canvas.processMouseWheel(event); // nothing scrolls here, so the canvas zooms
    });
  }

  browse() {
    const { node } = this;
    openBrowser(this.name, textOf(node, "prompt"), {
      onTexts: ({ name, prompt: { positive, negative } }) => {
        setValues(node, { prompt: name, positive, negative });
        this.show();
      },
      onName: ({ name }) => {
        setValues(node, { prompt: name, positive: "", negative: "" });
        this.show();
      },
      onRenamed: (from, to) => {
        if (textOf(node, "prompt") === from) setValues(node, { prompt: to });
        this.show();
      },
    });
  }

  /** How the node's texts compare with those that the library has for its name. */
  get status() {
    const { node } = this;
    const name = textOf(node, "prompt");
    const texts = ["positive", "negative"];
    const own = texts.some((input) => isLinked(node, input) || textOf(node, input) !== "");
    const prompt = entryOf(name)?.prompt;
    if (!prompt) return areKnown() && name !== "" && !own ? "missing" : "";
    if (!own) return "by name";
    const { positive, negative } = prompt;
    return positive === textOf(node, "positive") && negative === textOf(node, "negative") ? "" : "edited";
  }

  /** Shows the name that the node has, and whether its texts can be saved. */
  show() {
    const { node, status } = this;
    const name = textOf(node, "prompt");
    const { folder, stem } = splitName(name);
    const none = isLinked(node, "prompt") ? "Name by a link" : "Choose a prompt";
    const missing = status === "missing";
    this.folder.textContent = folder;
    this.stem.textContent = stem || none;
    this.state.textContent = missing ? "" : status;
    this.name.classList.toggle("vivace-rows-missing", missing);
    this.name.classList.toggle("vivace-rows-empty", !name);
    this.name.ariaLabel = `Prompt: ${name || "none"}${status && `, ${status}`}`;
    this.name.title = missing ? `${name} is not in the library. Click to choose another prompt.` : name;
    this.showSave();
  }

  showSave() {
    const { node, save } = this;
    const linked = isLinked(node, "positive") || isLinked(node, "negative");
    save.disabled = linked || (textOf(node, "positive") === "" && textOf(node, "negative") === "");
    save.title = save.disabled
      ? "Save needs a text in positive or negative, written in this node"
      : "Save both texts as a prompt";
  }

  destroy() {
    this.forget();
    closePopoverOf(this.element);
  }
}
