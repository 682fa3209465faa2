// The little Markdown that reports are made of: tables and lists.

import { make } from "./dom.js";

/** @param {string} line */
const isRow = (line) => line.startsWith("|");

/** @param {string} line */
const isRule = (line) => /^\|[\s:|-]+\|$/.test(line);

/** @param {string} line */
const cells = (line) =>
  line
    .slice(1, -1)
    .split("|")
    .map((cell) => cell.trim().replaceAll("&#124;", "|"));

/**
 * What a cell says of a size, as "12.5 of 2048 MB".
 * @param {string} text
 * @returns {[number, number] | null}
 */
function share(text) {
  const found = text.match(/([\d.]+) of ([\d.]+) MB/);
  return found && Number(found[2]) > 0 ? [Number(found[1]), Number(found[2])] : null;
}

/**
 * @param {string} name
 * @param {number} value
 * @param {number} most
 */
function meterCell(name, value, most) {
  return make("td", {}, make("meter", { max: most, value, ariaLabel: name }));
}

/**
 * Text, in which `code` stands between backticks.
 * @param {string} text
 */
function inline(text) {
  return text.split("`").map((part, index, parts) => {
    const isCode = index % 2 === 1 && index < parts.length - 1;
    return isCode ? make("code", { textContent: part }) : part;
  });
}

/**
 * The rows without the columns in which nothing is counted: a node is narrow.
 * @param {string[]} head
 * @param {string[][]} rows
 */
function withoutZeros(head, rows) {
  const counted = head.map((_, column) => head.length < 3 || rows.length === 0 || rows.some((row) => row[column] !== "0"));
  const kept = (/** @type {string[]} */ row) => row.filter((_, column) => counted[column]);
  return { head: kept(head), rows: rows.map(kept) };
}

/**
 * Times get a bar each, in relation to the longest; sizes one that shows how full they are.
 * @param {string[]} lines
 */
function table(lines) {
  const [first, ...others] = lines.filter((line) => !isRule(line)).map(cells);
  const { head, rows } = withoutZeros(first, others);
  const timed = head.at(-1) === "ms";
  const longest = Math.max(...rows.map((row) => Number(row.at(-1))), 0);
  const made = make("table", {}, make("tr", {}, ...head.map((text) => make("th", { scope: "col" }, ...inline(text)))));
  for (const texts of rows) {
    const row = make("tr", {}, ...texts.map((text) => make("td", {}, ...inline(text))));
    const size = share(texts.at(-1) ?? "");
    if (timed && longest > 0) row.append(meterCell(texts[0], Number(texts.at(-1)), longest));
    else if (size) row.append(meterCell(texts[0], ...size));
    made.append(row);
  }
  return made;
}

/**
 * Shows the text in place of what is in the element.
 * @param {HTMLElement} target
 * @param {string} text
 */
export function renderReport(target, text) {
  target.replaceChildren();
  const lines = text.split("\n");
  for (let at = 0; at < lines.length; ) {
    if (isRow(lines[at])) {
      const start = at;
      while (at < lines.length && isRow(lines[at])) at++;
      target.append(table(lines.slice(start, at)));
    } else {
      if (lines[at].trim()) target.append(make("div", {}, ...inline(lines[at].replace(/^(\s*)- /, "$1• "))));
      at++;
    }
  }
}
