// Owns the browser test of both pages against the fixture server: look, crosshair, zoom, keyboard, hostile text,
// narrow screens, loss and return of the connection. Usage: node test/browser.mjs [--shots DIR]
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { open, until, watch } from "./chromium.mjs";
import { HOSTILE, start, VMS } from "./fixture-server.mjs";

const { values: options } = parseArgs({ options: { shots: { type: "string" } } });
const shots = options.shots ?? new URL("../shots/", import.meta.url).pathname;
mkdirSync(shots, { recursive: true });

let server = await start(0);
const port = server.address().port;
const base = `http://127.0.0.1:${port}`;
const vmPage = (name, query = "") => `${base}/ui/vm/${encodeURIComponent(name)}${query}`;

const crosshairs = (page) =>
  page.$$eval("[data-chart] .u-cursor-x", (lines) => lines.map((line) => new DOMMatrix(getComputedStyle(line).transform).e));
const figuresOf = (page, chart) => page.$$eval(`[data-chart="${chart}"] .legend .figure`, (nodes) => nodes.map((node) => node.textContent));
const wide = (page) => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
const drawn = (page) =>
  until("the charts have points", 10_000, () => page.$eval('[data-chart="http"]', (chart) => Number(chart.dataset.points) > 10));

const tests = {
  async "the list shows every VM, and hostile names only as text"(page) {
    await page.goto(`${base}/ui`);
    await until("five rows", 10_000, async () => (await page.$$("tr[data-vm]")).length === 5);
    assert.equal(await page.title(), "Uni — Dashboard");
    assert.match(await page.textContent("h1"), /Uni Dashboard v0\.1\.0/);
    assert.equal(await page.$("tbody img"), null);
    const hostile = await page.textContent('tr[data-vm="bad0bad0bad0"] a');
    assert.equal(hostile, HOSTILE.replace("\u202e", "⟨202E⟩"));
    await page.click('tr[data-vm="bad0bad0bad0"] a');
    await until("its page", 10_000, async () => (await page.textContent("#name")) === hostile);
    await until("its console", 10_000, async () => (await page.textContent("#console")).includes("<script>alert(1)</script> ^[[31mred"));
    assert.equal(await page.$("#console *"), null);
  },

  async "the guest's log levels and metrics are shown, hostile names as text; a guest that tells none has no card"(page) {
    await page.goto(vmPage("bad0bad0bad0"));
    await page.waitForSelector("#control-card:not([hidden])");
    const terms = await page.$$eval("#log-levels dt", (nodes) => nodes.map((node) => node.textContent));
    assert.deepEqual(terms, ["Default", "runtime", HOSTILE.replace("\u202e", "⟨202E⟩")]);
    assert.equal(await page.$("#control-card img"), null);
    assert.match(await page.textContent("#metrics"), /^Defaultenabledgcdisabled/);
    await page.goto(vmPage("plain"));
    await until("its name", 10_000, async () => (await page.textContent("#name")) === "plain");
    await until("its events", 10_000, async () => (await page.$$("#events li")).length > 0);
    assert.equal(await page.isVisible("#control-card"), false);
  },

  async "libraries lie on each other under the same crosshair, and hostile ones are text"(page) {
    await page.goto(vmPage("web"));
    await drawn(page);
    const chart = '[data-chart="libraries"]';
    await until("the libraries", 10_000, async () => (await page.$$(`${chart} .legend button`)).length === 3);
    const labels = await page.$$eval(`${chart} .legend button > span:first-of-type`, (nodes) => nodes.map((node) => node.textContent));
    assert.deepEqual(labels, ["http", HOSTILE.replace("\u202e", "⟨202E⟩"), "(others)"]);
    assert.equal(await page.$(`${chart} img`), null);
    await until("their figures", 5_000, async () => (await figuresOf(page, "libraries")).slice(1).join() === "2 MiB,1 MiB");
    // what is drawn of all three reaches further than what is drawn without the first
    const reach = () => page.$eval(`${chart} canvas`, (canvas) => {
      const { data, width, height } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      const background = [...data.slice(0, 4)].join();
      const x = Math.floor(width * 0.8);
      let count = 0;
      for (let y = 0; y < height; y += 1) {
        const at = (y * width + x) * 4;
        if (data[at + 3] > 200 && [...data.slice(at, at + 4)].join() !== background) count += 1;
      }
      return count / height;
    });
    const all = await reach();
    assert.ok(all > 0.4, `${all} of the height is drawn`);
    const box = await (await page.$('[data-chart="cpu"] .u-over')).boundingBox();
    const newest = await figuresOf(page, "libraries");
    await page.mouse.move(box.x + box.width * 0.6, box.y + 30);
    await until("the figures at the crosshair", 5_000, async () => (await figuresOf(page, "libraries"))[0] !== newest[0]);
    await page.goto(`${base}/ui`);
    await page.waitForSelector("#fleet:not([hidden])");
    await until("those of both VMs together", 5_000, async () => (await figuresOf(page, "libraries")).slice(1).join() === "4 MiB,2 MiB");
  },

  async "a trace's flame graph is drawn, walked and zoomed by keyboard; its names are text"(page) {
    await page.goto(vmPage("web"));
    await page.waitForSelector("#trace-card:not([hidden])");
    assert.equal(await page.$(".flame-box"), null);
    await page.selectOption("#trace", "20261121T182900.123Z");
    await until("the boxes", 10_000, async () => (await page.$$(".flame-box")).length === 4);
    assert.match(await page.textContent("#trace-result"), /^The first 30\.0 s of the trace$/);
    assert.match(await page.getAttribute('[data-node="2"]', "aria-label"), /^<img src=x.*⟨202E⟩/);
    assert.equal(await page.$("#flame img"), null);
    const fills = await page.$$eval(".flame-box rect", (rects) => new Set(rects.map((rect) => getComputedStyle(rect).fill)).size);
    assert.ok(fills >= 3, "libraries have colours: the style is there");
    await page.focus('[data-node="0"]');
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
    await until("the zoom", 5_000, async () => (await page.$('[data-node="2"]')) === null);
    assert.ok(await page.$('[data-node="3"]'));
    await page.keyboard.press("Escape");
    await until("all again", 5_000, async () => (await page.$$(".flame-box")).length === 4);
    await page.screenshot({ path: join(shots, "vm-flame.png"), fullPage: true });
    assert.equal(await page.textContent("#trace-moment"), "its end");
    const at = page.locator("#trace-at");
    await at.focus();
    assert.equal(await at.getAttribute("max"), "30");
    await at.fill("10");
    await until("the boxes of that moment", 5_000, async () => (await page.$$(".flame-box")).length === 2);
    assert.equal(await page.textContent("#trace-moment"), "10.0 s");
    assert.match(await page.textContent("#trace-result"), /^The first 10\.0 s of the trace$/);
    assert.match(await page.getAttribute('[data-node="1"]', "aria-label"), / 50 B live/);
    await page.selectOption("#trace-lifetime", "1");
    await until("what lived that long", 5_000, async () => / 0 B live/.test(await page.getAttribute('[data-node="1"]', "aria-label")));
    await page.selectOption("#trace-lifetime", "");
    assert.match(await page.textContent("#moment"), /^\d{4}-\d\d-\d\d /, "the charts' crosshair stands at that moment");
    await at.fill("30");
    await until("all again", 5_000, async () => (await page.$$(".flame-box")).length === 4);
    // the trace was taken from 240 s to 210 s ago; a click in a chart of 5 min looks at it then
    const plot = page.locator('[data-chart="cpu"] .u-over');
    const { width } = await plot.boundingBox();
    await plot.click({ position: { x: (width * (300 - 230)) / 300, y: 30 } });
    await until("the boxes of the moment in the chart", 5_000, async () => (await page.$$(".flame-box")).length === 2);
    assert.ok(Math.abs(Number(await at.inputValue()) - 10) < 8, await at.inputValue());
    await plot.click({ position: { x: width * 0.95, y: 30 } });
    assert.equal((await page.$$(".flame-box")).length, 2, "no moment of the trace");
    await page.goto(vmPage("plain"));
    await until("its events", 10_000, async () => (await page.$$("#events li")).length > 0);
    assert.equal(await page.isVisible("#trace-card"), false);
  },

  async "a trace is taken with the token asked for once"(page, faults) {
    await page.goto(vmPage("web"));
    await page.waitForSelector("#trace-take:not([hidden])");
    const give = async (token) => {
      await page.waitForSelector("#trace-ask:not([hidden])");
      await page.fill("#trace-token", token);
      await page.click("#trace-ask-ok");
    };
    await page.click("#trace-take");
    await give("wrong");
    await until("the refusal", 5_000, async () => (await page.textContent("#trace-result")).includes("does not take this token"));
    forgive(faults, /401/);
    await give("open-sesame-of-unid");
    await until("the trace", 5_000, async () => (await page.textContent("#trace-result")) === "Taking a trace for 30 s");
    await until("it is chosen", 5_000, async () => (await page.inputValue("#trace")) === "20261121T183000.456Z");
    assert.ok(await page.isDisabled("#trace-take"));
    await page.click("#trace-again");
    await until("what is there", 5_000, async () => /and it goes on$/.test(await page.textContent("#trace-result")));
  },

  async "the filter and its keys"(page) {
    await page.goto(`${base}/ui`);
    await page.waitForSelector("tr[data-vm]");
    await page.keyboard.press("/");
    await page.keyboard.type("hello");
    const shown = () => page.$$eval("tr[data-vm]", (rows) => rows.filter((row) => !row.hidden).map((row) => row.dataset.name).sort());
    assert.deepEqual(await shown(), ["batch", "hello"]);
    await page.keyboard.press("Escape");
    assert.equal((await shown()).length, 5);
  },

  async "one crosshair reads all charts at the same moment"(page) {
    await page.goto(vmPage("web"));
    await drawn(page);
    const newest = await figuresOf(page, "http");
    const box = await (await page.$('[data-chart="memory"] .u-over')).boundingBox();
    await page.mouse.move(box.x + box.width * 0.75, box.y + 30);
    await until("all crosshairs stand under each other", 5_000, async () => {
      const places = await crosshairs(page);
      return places.length === 6 && places[0] > 0 && places.every((place) => Math.abs(place - places[0]) <= 1);
    });
    assert.match(await page.textContent("#moment"), /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/);
    assert.notDeepEqual(await figuresOf(page, "http"), newest);
    await page.mouse.move(box.x + box.width * 0.12, box.y + 30);
    await until("nothing is read where nothing was measured", 5_000, async () => (await figuresOf(page, "cpu"))[0] === "–");
  },

  async "dragging zooms all charts; Escape, double click and button lead back"(page) {
    await page.goto(vmPage("web"));
    await drawn(page);
    const box = await (await page.$('[data-chart="cpu"] .u-over')).boundingBox();
    const drag = async () => {
      await page.mouse.move(box.x + box.width * 0.5, box.y + 40);
      await page.mouse.down();
      await page.mouse.move(box.x + box.width * 0.7, box.y + 50, { steps: 6 });
      await page.mouse.up();
      await page.waitForSelector("#live:not([hidden])", { timeout: 3_000 });
    };
    const live = () => page.waitForSelector("#live", { state: "hidden", timeout: 3_000 });
    await drag();
    await page.mouse.move(5, 5);
    assert.match(await page.textContent("#moment"), /^\d\d:\d\d:\d\d to \d\d:\d\d:\d\d$/);
    await page.screenshot({ path: join(shots, "vm-zoomed.png") });
    await page.keyboard.press("Escape");
    await live();
    await drag();
    await page.mouse.dblclick(box.x + 200, box.y + 40);
    await live();
    await drag();
    await page.click("#live");
    await live();
  },

  async "charts work by keyboard"(page) {
    await page.goto(vmPage("web"));
    await drawn(page);
    await page.focus('[data-chart="cpu"] .plot');
    for (let i = 0; i < 20; i += 1) await page.keyboard.press("ArrowLeft");
    const places = await crosshairs(page);
    assert.ok(places.every((place) => place > 100 && Math.abs(place - places[0]) <= 1), `crosshairs at ${places}`);
    await page.keyboard.press("+");
    await page.waitForSelector("#live:not([hidden])");
    await page.keyboard.press("-");
    await page.waitForSelector("#live", { state: "hidden" });
    await page.keyboard.press("Escape");
    assert.equal(await page.textContent("#moment"), "live");
  },

  async "ranges and links can be chosen, curves hidden"(page) {
    await page.goto(vmPage("web", "?range=1h"));
    await drawn(page);
    assert.equal(await page.textContent('#ranges [aria-pressed="true"]'), "1h");
    await page.click("#ranges button:first-child");
    assert.match(page.url(), /range=5m/);
    await page.selectOption("#link", "management");
    await until("the other link's figures", 5_000, async () => {
      const curve = page.locator('[data-key="net_tx_bps:management"]');
      return (await curve.count()) === 1 && Number(await curve.getAttribute("data-points")) > 10;
    });
    await page.click('[data-chart="http"] .legend button:first-child');
    assert.equal(await page.getAttribute('[data-chart="http"] .legend button:first-child', "aria-pressed"), "false");
  },

  async "a VM without an inside says what is missing; an unknown one says so"(page, faults) {
    await page.goto(vmPage("plain"));
    await until("the hint", 10_000, async () => page.isVisible('[data-chart="http"] .nodata'));
    assert.match(await page.textContent('[data-chart="http"] .nodata'), /^no data yet: /);
    await page.goto(vmPage("batch"));
    await until("an empty console", 10_000, async () => (await page.textContent("#console-empty")) === "No console output captured");
    await page.goto(vmPage("nobody"));
    await page.waitForSelector("#missing:not([hidden])");
    assert.equal(await page.textContent("#missing-name"), "nobody");
    forgive(faults, /404 \(Not Found\)|\/nobody/);
  },

  async "the overview tells configuration, health, restarts, limits and ports, as text"(page) {
    await page.goto(vmPage("web"));
    await page.waitForSelector("#overview dd");
    const text = await page.$$eval("#overview dt", (terms) =>
      Object.fromEntries(terms.map((term) => [term.textContent, term.nextElementSibling.textContent])),
    );
    assert.equal(await page.title(), "Uni — VM 9f2c41d07ab3");
    assert.deepEqual(
      [text.State, text.Health, text.Restart, text.Machine, text.Arguments, text.Limits],
      ["running", "healthy", "on-failure, 0 restarts", "microvm, tcg", "--greeting=<b>hi</b>", "memory 512 MiB"],
    );
    assert.equal(await page.textContent("#ports"), "8080 → 80/tcp");
    for (const id of ["stat-cpu", "stat-mem", "stat-rx", "stat-tx", "stat-source"]) assert.ok(await page.$(`#${id}`));
  },

  async "values of the environment stay covered until asked for"(page) {
    await page.goto(vmPage("web"));
    await page.waitForSelector("#env dd");
    assert.doesNotMatch(await page.textContent("#env"), /not-for-everyone/);
    await page.click("#env-toggle");
    assert.match(await page.textContent("#env"), /not-for-everyone/);
  },

  async "the console follows its end unless the reader scrolled up, and stays bounded"(page) {
    await page.goto(vmPage("web"));
    await until("console text", 10_000, async () => (await page.textContent("#console")).length > 50);
    await page.$eval("#console", (box) => { box.style.height = "60px"; });
    const atEnd = () => page.$eval("#console", (box) => box.scrollHeight - box.scrollTop - box.clientHeight < 24);
    await page.$eval("#console", (box) => { box.scrollTop = box.scrollHeight; });
    const before = await page.getAttribute("#console", "data-next");
    await until("more text", 5_000, async () => (await page.getAttribute("#console", "data-next")) !== before);
    assert.ok(await atEnd());
    await page.$eval("#console", (box) => { box.scrollTop = 0; });
    await page.waitForSelector("#console-jump:not([hidden])");
    await page.waitForTimeout(2_200);
    assert.equal(await page.$eval("#console", (box) => box.scrollTop), 0);
    await page.click("#console-jump");
    assert.ok(await atEnd());
  },

  async "both pages fit 400 px, light and dark"(page) {
    for (const scheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme: scheme });
      await page.setViewportSize({ width: 1280, height: 900 });
      await page.goto(`${base}/ui`);
      await page.waitForSelector("tr[data-vm]");
      await page.waitForTimeout(1_500);
      assert.ok((await wide(page)) <= 0 && (await page.$eval(".scroll", (box) => box.scrollWidth - box.clientWidth)) <= 0, "the list overflows at 1280");
      await page.screenshot({ path: join(shots, `dashboard-${scheme}.png`) });
      await page.setViewportSize({ width: 970, height: 800 });
      assert.ok((await page.$eval(".scroll", (box) => box.scrollWidth - box.clientWidth)) <= 0, "the list overflows at 970");
      await page.setViewportSize({ width: 400, height: 800 });
      assert.ok((await wide(page)) <= 0, "the list overflows at 400");
      await page.waitForTimeout(1_200);
      await page.screenshot({ path: join(shots, `dashboard-400-${scheme}.png`), fullPage: true });
      await page.goto(vmPage("web"));
      await drawn(page);
      assert.ok((await wide(page)) <= 0, "the VM's page overflows at 400");
      await page.screenshot({ path: join(shots, `vm-400-${scheme}.png`), fullPage: true });
      await page.setViewportSize({ width: 1280, height: 900 });
      await page.waitForTimeout(1_200);
      await page.screenshot({ path: join(shots, `vm-${scheme}.png`), fullPage: true });
    }
  },

  async "a lost connection is shown, and the page comes back by itself"(page, faults) {
    await page.goto(vmPage("web"));
    await drawn(page);
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    await page.waitForSelector('#connection[data-state="lost"]', { timeout: 10_000 });
    assert.ok(await page.$("main.stale"));
    server = await start(port);
    await page.waitForSelector('#connection[data-state="live"]', { timeout: 15_000 });
    const last = await page.getAttribute('[data-chart="cpu"]', "data-last");
    await until("the curves go on", 10_000, async () => (await page.getAttribute('[data-chart="cpu"]', "data-last")) !== last);
    forgive(faults, /ERR_|Failed to load resource/);
  },

  async "memory is flat over a simulated day, a second at a time"(page) {
    await page.addInitScript(simulateStream);
    await page.goto(vmPage("web"));
    await drawn(page);
    const session = await page.context().newCDPSession(page);
    const heap = async () => {
      await session.send("HeapProfiler.collectGarbage");
      return (await session.send("Runtime.getHeapUsage")).usedSize;
    };
    const hours = async (count) => {
      for (let hour = 0; hour < count; hour += 1) await page.evaluate(() => window.simulateSeconds(3600));
    };
    await hours(6);
    const early = await heap();
    await hours(18);
    const late = await heap();
    const curve = page.locator('[data-key="cpu_pct"]');
    assert.ok(Number(await curve.getAttribute("data-points")) <= 310, "a curve keeps more than its range");
    assert.ok((await page.textContent("#console")).length <= 131_072);
    assert.ok((await page.$$("#events li")).length <= 30);
    assert.ok(late - early < 1_000_000, `the heap grew from ${early} to ${late} bytes`);
    console.log(`        heap after 6 h ${(early / 1e6).toFixed(1)} MB, after 24 h ${(late / 1e6).toFixed(1)} MB`);
  },

  async "a daemon without VMs says how to start one"(page) {
    const all = VMS.splice(0);
    await page.goto(`${base}/ui`);
    await page.waitForSelector("#empty:not([hidden])");
    assert.match(await page.textContent("#empty"), /No VMs registered/);
    assert.match(await page.textContent("#empty pre"), /^uni run /);
    await page.screenshot({ path: join(shots, "empty.png") });
    VMS.push(...all);
    await until("a VM that comes shows up", 5_000, async () => (await page.$$("tr[data-vm]")).length === all.length);
  },
};

/** Runs in the page, before its modules: a clock and a stream that the test moves by hand. */
function simulateStream() {
  const realNow = Date.now.bind(Date);
  let aheadMs = 0;
  Date.now = () => realNow() + aheadMs;
  const listeners = new Map();
  window.EventSource = class {
    static CLOSED = 2;
    readyState = 1;
    addEventListener(event, listener) {
      listeners.set(event, listener);
    }
    close() {}
  };
  const fire = (event, data) => listeners.get(event)({ data: JSON.stringify(data) });
  const keys = ["cpu_pct", "host_memory_bytes", "guest_heap_bytes", "net_rx_bps:service", "net_tx_bps:service", "http_2xx", "log_errors"];
  window.simulateSeconds = async (seconds) => {
    for (let second = 0; second < seconds; second += 1) {
      aheadMs += 1000;
      const time = Date.now();
      fire("points", { points: keys.map((key) => [key, time, second % 97]) });
      const next = Number(document.querySelector("#console").dataset.next ?? 0);
      fire("console", { from: next, next: next + 40, text: "a line of console, forty characters....\n" });
      if (second % 900 === 0) fire("mark", { time, event: "adopt", text: "the daemon came back" });
      if (second % 120 === 0) await new Promise((resolve) => requestAnimationFrame(resolve));
    }
  };
}

/** Removes faults that the test itself provoked. */
function forgive(faults, pattern) {
  for (let i = faults.length - 1; i >= 0; i -= 1) if (pattern.test(faults[i])) faults.splice(i, 1);
}

const browser = await open();
let failed = 0;
for (const [name, run] of Object.entries(tests)) {
  const faults = [];
  const page = await browser.context.newPage();
  page.setDefaultTimeout(10_000);
  watch(page, base, faults);
  try {
    await run(page, faults);
    assert.deepEqual(faults, []);
    console.log(`ok      ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${name}\n        ${error.message.replaceAll("\n", "\n        ")}`);
  }
  await page.close();
}
await browser.close();
server.closeAllConnections();
server.close();
process.exit(failed === 0 ? 0 : 1);
