// Owns the browser test of the flame graph's script as the CLI's .html has it: zoom, keyboard, search, widths, hostile
// names, light and dark. Usage: node test/flame.mjs
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { open, watch } from "./chromium.mjs";

const HOSTILE = "evil::</script><img src=x onerror=alert(1)>";
const node = (name, library, live, allocated, children = []) => ({ name, file: "a.rs", library, live, allocated, children });
const graph = {
  title: "test",
  nodes: [
    node("all", "", 1000, 4000, [1, 2]),
    node("http::serve", "http", 700, 1000, [3]),
    node("json::parse", "json", 300, 3000, [4]),
    node("http::page", "http", 700, 1000),
    node(HOSTILE, "evil", 100, 2000),
  ],
};

const source = (name) => readFileSync(new URL(`../../crates/uni-memtrace/src/${name}`, import.meta.url), "utf8");
const folder = mkdtempSync(join(tmpdir(), "uni-flame-"));
const file = join(folder, "flame.html");
const data = JSON.stringify(graph).replaceAll("<", "\\u003c");
writeFileSync(
  file,
  `<!doctype html><meta charset="utf-8"><style>${source("flame.css")}</style><body class="flame"><main id="flame"></main>` +
    `<script>${source("flame.js")}uniFlame.draw(document.getElementById("flame"), ${data});</script>`,
);
const url = pathToFileURL(file).href;

const names = (page) => page.$$eval(".flame-box", (boxes) => boxes.map((box) => box.getAttribute("aria-label").split(" ")[0]));
const status = (page) => page.textContent(".flame-status");
const width = (page, at) => page.$eval(`[data-node="${at}"] rect`, (rect) => Number(rect.getAttribute("width")));
const focused = (page) => page.evaluate(() => document.activeElement.getAttribute("data-node"));

const tests = {
  async "every function has a box as wide as its live bytes, and hostile names are text"(page) {
    assert.equal((await names(page)).length, 5);
    const [whole, serve] = [await width(page, 0), await width(page, 1)];
    assert.ok(Math.abs(serve / whole - 0.7) < 0.01, `${serve} of ${whole}`);
    assert.equal(await page.$("main img"), null);
    assert.match(await page.textContent('[data-node="4"] title'), /^evil::<\/script><img/);
  },
  async "a click zooms, Escape shows all again"(page) {
    await page.click('[data-node="2"]');
    assert.deepEqual((await names(page)).sort(), ["all", "evil::</script><img", "json::parse"]);
    assert.equal(await width(page, 2), await width(page, 0));
    await page.keyboard.press("Escape");
    assert.equal((await names(page)).length, 5);
  },
  async "arrow keys walk and Enter zooms"(page) {
    await page.focus('[data-node="0"]');
    for (const [key, at] of [["ArrowDown", "1"], ["ArrowRight", "2"], ["ArrowDown", "4"], ["ArrowUp", "2"], ["ArrowLeft", "1"]]) {
      await page.keyboard.press(key);
      assert.equal(await focused(page), at, key);
    }
    assert.match(await status(page), /^http::serve \(a\.rs\), library http: 70\.0%, 700 B live, 1000 B allocated$/);
    await page.keyboard.press("Enter");
    assert.equal((await names(page)).includes("json::parse"), false);
    assert.equal(await focused(page), "1");
  },
  async "a search marks and counts each byte once"(page) {
    await page.focus('[data-node="0"]');
    await page.keyboard.press("/");
    await page.keyboard.type("HTTP");
    assert.equal(await status(page), "1 found, 700 B, 70.0%");
    assert.equal((await page.$$(".flame-match")).length, 2);
  },
  async "allocated bytes change the widths"(page) {
    await page.selectOption("select", "allocated");
    assert.ok(Math.abs((await width(page, 2)) / (await width(page, 0)) - 0.75) < 0.01);
  },
  async "dark and light differ"(page) {
    const text = () => page.$eval("body", (body) => getComputedStyle(body).color);
    await page.emulateMedia({ colorScheme: "light" });
    const light = await text();
    await page.emulateMedia({ colorScheme: "dark" });
    assert.notEqual(await text(), light);
  },
};

const { context, close } = await open();
let failed = 0;
for (const [name, test] of Object.entries(tests)) {
  const page = await context.newPage();
  const faults = [];
  watch(page, "file:", faults);
  try {
    await page.goto(url);
    await test(page);
    assert.deepEqual(faults, []);
    console.log(`ok: ${name}`);
  } catch (error) {
    failed += 1;
    console.error(`FAILED: ${name}\n${error.stack}`);
  }
  await page.close();
}
await close();
rmSync(folder, { recursive: true, force: true });
process.exitCode = failed === 0 ? 0 : 1;
