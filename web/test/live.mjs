// Owns the browser test against a running daemon with load: both pages, curves that move, no breach of the policy.
// Usage: node test/live.mjs --base http://127.0.0.1:PORT --vm web --shots DIR [--outside-only]
// Exits 0, or 1 with the reason. The VM must report from inside too, and answer HTTP, unless --outside-only.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { open, until, watch } from "./chromium.mjs";

const ROW_LIMIT_MS = 30_000;
const MOVE_LIMIT_MS = 30_000;
/** Curves that any running VM has, seen from outside. */
const OUTSIDE = ["cpu_pct", "host_memory_bytes", "net_rx_bps:service", "net_tx_bps:service"];
/** Curves that a VM has which reports itself and serves HTTP. */
const INSIDE = ["guest_heap_bytes", "http_2xx"];

const rowsOf = (page) =>
  page.$$eval("tr[data-vm]", (rows) =>
    rows.map((row) => ({
      name: row.dataset.name,
      state: row.dataset.state,
      cpu: row.querySelector('[data-cell="cpu"] canvas')?.dataset.last ?? "",
      memory: row.querySelector('[data-cell="memory"] canvas')?.dataset.last ?? "",
      cells: [...row.querySelectorAll("td")].map((cell) => cell.textContent).join("|"),
    })),
  );

/** Number of points and the newest one of each curve, by key. */
const curvesOf = (page) =>
  page.$$eval("[data-chart] [data-key]", (curves) =>
    Object.fromEntries(curves.map(({ dataset }) => [dataset.key, { points: Number(dataset.points ?? 0), last: dataset.last ?? "" }])),
  );

/** Waits until each wanted curve passes; at the end says which did not. */
async function untilCurves(page, keys, what, passes) {
  let lacking = keys;
  try {
    return await until(what, MOVE_LIMIT_MS, async () => {
      const curves = await curvesOf(page);
      lacking = keys.filter((key) => !(curves[key] !== undefined && passes(curves[key], key)));
      return lacking.length === 0 ? curves : undefined;
    });
  } catch (error) {
    throw new Error(`${error.message} (lacking: ${lacking.join(", ")})`);
  }
}

async function checkDashboard(page, base, vm, shots) {
  await page.goto(`${base}/ui`);
  if ((await page.title()) !== "Uni — Dashboard") throw new Error(`/ui has the title ${await page.title()}`);
  const first = await until(`the list shows ${vm} as running, with figures`, ROW_LIMIT_MS, async () => {
    const rows = await rowsOf(page);
    const row = rows.find(({ name }) => name === vm);
    return row?.state === "running" && row.cpu !== "" && row.memory !== "" ? rows : undefined;
  });
  const running = first.filter(({ state }) => state === "running").map(({ name }) => name);
  await until(`the small curves and the figures of ${running.join(", ")} change`, MOVE_LIMIT_MS, async () => {
    const rows = await rowsOf(page);
    return running.every((name) => {
      const before = first.find((row) => row.name === name);
      const now = rows.find((row) => row.name === name);
      return now !== undefined && now.cpu !== "" && now.cpu !== before.cpu && now.cells !== before.cells;
    });
  });
  await new Promise((resolve) => setTimeout(resolve, 3_000));
  await page.screenshot({ path: join(shots, "dashboard.png") });
  console.log(`ok: /ui shows ${first.length} VMs, ${running.length} running, and their figures move`);
}

async function checkVm(page, base, vm, shots, keys) {
  await page.goto(`${base}/ui/vm/${encodeURIComponent(vm)}`);
  await until("the heading names the VM", ROW_LIMIT_MS, async () => (await page.textContent("#name")) === vm);
  await until("the title has its id", ROW_LIMIT_MS, async () => /^Uni — VM [0-9a-f]{12}$/.test(await page.title()));
  const first = await untilCurves(page, keys, "every curve has points", (curve) => curve.points > 1);
  const moved = await untilCurves(page, keys, "every curve goes on", (curve, key) => curve.last !== first[key].last);
  const text = await until("the console shows text", ROW_LIMIT_MS, async () => (await page.textContent("#console"))?.trim());
  await new Promise((resolve) => setTimeout(resolve, 3_000));
  await page.screenshot({ path: join(shots, "vm.png"), fullPage: true });
  const counts = keys.map((key) => `${key} ${moved[key].points}`).join(", ");
  console.log(`ok: /ui/vm/${vm} curves move (points: ${counts}); console ${text.length} characters`);
}

const { values } = parseArgs({ options: { base: { type: "string" }, vm: { type: "string" }, shots: { type: "string" }, "outside-only": { type: "boolean" } } });
if (!values.base || !values.vm || !values.shots) {
  console.error("usage: node test/live.mjs --base http://127.0.0.1:PORT --vm NAME --shots DIR [--outside-only]");
  process.exit(1);
}
const base = values.base.replace(/\/+$/, "");
mkdirSync(values.shots, { recursive: true });
const faults = [];
const browser = await open();
try {
  const page = await browser.context.newPage();
  watch(page, base, faults);
  await checkDashboard(page, base, values.vm, values.shots);
  await checkVm(page, base, values.vm, values.shots, values["outside-only"] ? OUTSIDE : [...OUTSIDE, ...INSIDE]);
} catch (error) {
  faults.push(error.message);
} finally {
  await browser.close();
}
for (const fault of faults) console.error(`failed: ${fault}`);
process.exit(faults.length === 0 ? 0 : 1);
