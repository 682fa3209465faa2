// The little Markdown that reports are made of: tables and lists.

function element(tag, text) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  return made;
}

const isRow = (line) => line.startsWith("|");
const isRule = (line) => /^\|[\s:|-]+\|$/.test(line);
const cells = (line) => line.slice(1, -1).split("|").map((cell) => cell.trim());

function meter(value, most) {
  const made = element("meter");
  made.max = most;
  made.value = value;
  const cell = element("td");
  cell.append(made);
  return cell;
}

// What a cell says of a size: "12.5 of 2048 MB".
function share(text) {
  const found = text.match(/([\d.]+) of ([\d.]+) MB/);
  return found && Number(found[2]) > 0 ? [Number(found[1]), Number(found[2])] : null;
}

// Times get a bar each, in relation to the longest; sizes one that shows how full they are.
function table(lines) {
  const rows = lines.filter((line) => !isRule(line)).map(cells);
  const timed = rows[0]?.at(-1) === "ms";
  const longest = Math.max(...rows.slice(1).map((row) => Number(row.at(-1))), 0);
  const made = element("table");
  rows.forEach((texts, index) => {
    const row = element("tr");
    for (const text of texts) row.append(element("td", text));
    const size = share(texts.at(-1) ?? "");
    if (timed && index > 0 && longest > 0) row.append(meter(Number(texts.at(-1)), longest));
    else if (size) row.append(meter(...size));
    made.append(row);
  });
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
