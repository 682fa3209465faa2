// Times what the picker does with the names in a JSON file; prints milliseconds as JSON.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [module, names, ...queries] = process.argv.slice(2);
const { entriesOf, folderItems, searchItems } = await import(pathToFileURL(module).href);
const loras = JSON.parse(readFileSync(names, "utf8")).map((name) => ({ name, preview: false }));
const entries = entriesOf(loras);

/** The median of several runs. */
function median(action) {
  const times = Array.from({ length: 5 }, () => {
    const start = performance.now();
    action();
    return performance.now() - start;
  });
  return times.sort((a, b) => a - b)[2];
}

const times = {
  sort: median(() => entriesOf(loras)),
  search: median(() => queries.forEach((query) => searchItems(entries, "", query))) / queries.length,
  open: median(() => folderItems(entries, "", [])),
};
process.stdout.write(JSON.stringify(times));
