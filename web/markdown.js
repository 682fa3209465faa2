// The little Markdown that reports are made of: tables and lists.

function element(tag, text) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  return made;
}

const isRow = (line) => line.startsWith("|");
const isRule = (line) => /^\|[\s:|-]+\|$/.test(line);
const cells = (line) => line.slice(1, -1).split("|").map((cell) => cell.trim());

function table(rows) {
  const made = element("table");
  for (const line of rows.filter((line) => !isRule(line))) {
    const row = element("tr");
    for (const text of cells(line)) row.append(element("td", text));
    made.append(row);
  }
  return made;
}

// Replaces what is in `target`.
export function renderReport(target, text) {
  target.replaceChildren();
  const lines = text.split("\n");
  for (let at = 0; at < lines.length; ) {
    if (isRow(lines[at])) {
      const start = at;
      while (at < lines.length && isRow(lines[at])) at++;
      target.append(table(lines.slice(start, at)));
    } else {
      if (lines[at].trim()) target.append(element("div", lines[at].replace(/^(\s*)- /, "$1• ")));
      at++;
    }
  }
}
