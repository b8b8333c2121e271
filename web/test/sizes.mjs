// Owns the limit on what a first visit loads: prints the compressed size of each page with its files.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

const LIMIT_BYTES = 150 * 1024;
const dist = new URL("../dist/", import.meta.url).pathname;

/** Files a page needs, followed through imports by their names in the text. */
function filesOf(page) {
  const assets = readdirSync(join(dist, "assets"));
  const wanted = new Set([page]);
  for (const file of wanted) {
    const text = readFileSync(join(dist, file), "utf8");
    for (const asset of assets) if (text.includes(asset)) wanted.add(`assets/${asset}`);
  }
  return [...wanted];
}

let tooLarge = false;
for (const page of ["index.html", "vm.html"]) {
  const files = filesOf(page);
  const bytes = files.reduce((sum, file) => sum + gzipSync(readFileSync(join(dist, file))).length, 0);
  console.log(`${page}: ${(bytes / 1024).toFixed(1)} kB compressed in ${files.length} files (limit 150 kB)`);
  tooLarge ||= bytes > LIMIT_BYTES;
}
process.exit(tooLarge ? 1 : 0);
