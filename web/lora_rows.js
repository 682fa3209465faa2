// The rows of a LoRA Stack: a DOM widget, so that it works on the canvas and in the Vue renderer.
// Its value is the list that the node receives: [{"on": true, "lora": "x.safetensors", "strength": 0.8}].

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const WIDGET_TYPE = "VIVACE_LORA_ROWS";
const LIST_ID = "vivace-lora-names";
const ROW_HEIGHT = 30;
const FOOTER_HEIGHT = 52; // the button and the margin that the canvas keeps around a widget

const MIN_WIDTH = 360;

let names = new Set();
const widgets = new Set();

/** Fetches the names once for all widgets; they share one <datalist>. */
async function refreshNames() {
  const response = await api.fetchApi("/models/loras");
  const listed = response.ok ? await response.json() : [];
  names = new Set(listed.map((name) => name.replaceAll("\\", "/")));
  let list = document.getElementById(LIST_ID);
  if (!list) {
    list = document.createElement("datalist");
    list.id = LIST_ID;
    document.body.append(list);
  }
  list.replaceChildren(...[...names].map((name) => new Option(name, name)));
  for (const widget of widgets) widget.markMissing();
}

/** What a row looks like wherever it comes from: an old workflow, an API prompt, a paste. */
function normalRow(row) {
  return {
    ...row,
    on: row?.on !== false,
    lora: String(row?.lora ?? "").replaceAll("\\", "/"),
    strength: Number.isFinite(Number(row?.strength ?? 1)) ? Number(row?.strength ?? 1) : 1,
  };
}

function normalRows(value) {
  if (typeof value === "string") {
    try {
      value = JSON.parse(value || "[]");
    } catch {
      value = [];
    }
  }
  const rows = Array.isArray(value) ? value : value?.__value__;
  return Array.isArray(rows) ? rows.map(normalRow) : [];
}

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

class LoraRowsWidget {
  constructor(node) {
    this.node = node;
    this.rows = [];
    this.list = make("div", { className: "vivace-rows-list", role: "list" });
    const add = make("button", { type: "button", className: "vivace-rows-add", textContent: "Add LoRA" });
    add.addEventListener("click", () => this.change([...this.rows, normalRow({})], true));
    this.element = make("div", { className: "vivace-rows" }, this.list, add);
    // Keys and drags belong to the fields, not to the canvas beneath them.
    for (const event of ["pointerdown", "keydown", "wheel"]) {
      this.element.addEventListener(event, (e) => e.stopPropagation());
    }
  }

  get height() {
    return this.rows.length * ROW_HEIGHT + FOOTER_HEIGHT;
  }

  get value() {
    return this.rows.map((row) => ({ ...row }));
  }

  set value(value) {
    this.rows = normalRows(value);
    this.render();
  }

  change(rows, focusLast = false) {
    this.rows = rows;
    this.render();
    this.widget.callback?.(this.value);
    if (focusLast) this.list.lastElementChild?.querySelector(".vivace-rows-name").focus();
  }

  update(index, fields) {
    Object.assign(this.rows[index], fields);
    this.markMissing();
    this.widget.callback?.(this.value);
  }

  render() {
    this.list.replaceChildren(...this.rows.map((row, index) => this.renderRow(row, index)));
    this.markMissing();
    const [width, height] = this.node.size;
    const needed = this.node.computeSize()[1];
    if (this.node.graph && needed > height) this.node.setSize([width, needed]);
    this.node.setDirtyCanvas?.(true, true);
  }

  renderRow(row, index) {
    const place = `LoRA ${index + 1}`;
    const on = make("input", { type: "checkbox", checked: row.on, title: "On or off", ariaLabel: `${place}: on` });
    on.addEventListener("change", () => this.update(index, { on: on.checked }));

    const name = make("input", {
      type: "text",
      className: "vivace-rows-name",
      value: row.lora,
      placeholder: "Choose a LoRA",
      ariaLabel: `${place}: file`,
      spellcheck: false,
    });
    name.setAttribute("list", LIST_ID);
    name.addEventListener("change", () => this.update(index, { lora: name.value.trim() }));

    const strength = make("input", {
      type: "number",
      className: "vivace-rows-strength",
      value: row.strength,
      step: 0.05,
      title: "Strength",
      ariaLabel: `${place}: strength`,
    });
    strength.addEventListener("change", () => {
      if (!Number.isFinite(strength.valueAsNumber)) strength.value = this.rows[index].strength;
      this.update(index, { strength: strength.valueAsNumber });
    });

    const remove = make("button", { type: "button", textContent: "✕", title: "Remove", ariaLabel: `${place}: remove` });
    remove.addEventListener("click", () => this.change(this.rows.filter((_, i) => i !== index)));

    return make("div", { className: "vivace-rows-row", role: "listitem" }, on, name, strength, remove);
  }

  markMissing() {
    [...this.list.children].forEach((element, index) => {
      const name = element.querySelector(".vivace-rows-name");
      const missing = names.size > 0 && name.value !== "" && !names.has(name.value);
      name.classList.toggle("vivace-rows-missing", missing);
      name.title = missing ? `${name.value} is not in ComfyUI's loras folders` : name.value;
      element.classList.toggle("vivace-rows-off", !this.rows[index].on);
    });
  }
}

function createWidget(node, inputName) {
  const rows = new LoraRowsWidget(node);
  const widget = node.addDOMWidget(inputName, WIDGET_TYPE, rows.element, {
    getValue: () => rows.value,
    setValue: (value) => {
      rows.value = value;
    },
    getMinHeight: () => rows.height,
    getMaxHeight: () => rows.height,
  });
  rows.widget = widget;
  widgets.add(rows);
  const { onRemove } = widget;
  widget.onRemove = function () {
    widgets.delete(rows);
    onRemove?.apply(this, arguments);
  };
  return { widget, minWidth: MIN_WIDTH, minHeight: rows.height };
}

app.registerExtension({
  name: "Vivace.LoraRows",
  settings: [
    {
      id: "Vivace.LoRA.CacheMB",
      category: ["Vivace", "LoRA", "CacheMB"],
      name: "RAM for LoRA files, in MB",
      tooltip: "LoRA files kept in memory between runs. -1 uses an eighth of the RAM, 0 keeps none.",
      type: "number",
      defaultValue: -1,
    },
  ],
  getCustomWidgets: () => ({ [WIDGET_TYPE]: createWidget }),
  async setup() {
    const style = new URL("./vivace.css", import.meta.url);
    document.head.append(make("link", { rel: "stylesheet", href: style.href }));
    await refreshNames();
  },
  refreshComboInNodes: refreshNames,
});
