// Owns the browser test of what needs a real daemon and real guests: switching what a guest logs and measures, tokens, heaps,
// pages that only read, and the table of senders that are no VM. Usage: node test/switching.mjs
import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { open, until, watch } from "./chromium.mjs";
import { start } from "./daemon.mjs";

const TOKEN = "correct-horse-battery-staple";
/** A guest's own. */
const SESAME = "sesame-of-the-guest";
const WAIT_MS = 30_000;

const shots = new URL("../shots/", import.meta.url).pathname;
mkdirSync(shots, { recursive: true });

const guarded = await start((dir) => {
  const file = join(dir, "token");
  writeFileSync(file, TOKEN, { mode: 0o600 });
  return ["--ui-control", "--token-file", file];
});
const plain = await start().catch(async (error) => {
  await guarded.end();
  throw error;
});

const level = async (vm, source) =>
  (await guarded.json("log-level", vm)).sources.find((entry) => entry.source === source)?.state;
const metric = async (vm, source) =>
  (await guarded.json("metrics", vm)).sources.find((entry) => entry.source === source)?.state;
const result = (page, pattern) =>
  until(`the result ${pattern}`, WAIT_MS, async () => pattern.test(await page.textContent("#control-result")));
const giveToken = async (page, label, token) => {
  await until(`the question for ${label}`, WAIT_MS, async () =>
    (await page.isVisible("#control-ask")) && (await page.textContent("#control-ask-label")).includes(label));
  await page.fill("#control-token", token);
  await page.click("#control-ask-ok");
};
const openVm = async (page, daemon, vm) => {
  await page.goto(`${daemon.base}/ui/vm/${vm}`);
  await page.waitForSelector("#control-card:not([hidden])", { timeout: WAIT_MS });
};
/** Neither address, nor what outlives the tab, nor a cookie has it. */
const isNowhere = async (page, secret) => {
  const kept = await page.evaluate(() => [location.href, JSON.stringify(localStorage), document.cookie, document.body.innerHTML].join());
  assert.ok(!kept.includes(secret), "a secret is kept");
};

const tests = {
  async "a level is set for a time, with the token asked for once"(page, faults) {
    const asked = [];
    page.on("request", (request) => asked.push(request));
    await openVm(page, guarded, "web");
    await page.selectOption("#control-for", "600");
    await page.selectOption('#log-levels select[data-source="app"]', "debug");
    await giveToken(page, "daemon's token", "not-the-token-at-all");
    await result(page, /does not take this token/);
    forgive(faults, /401/);
    assert.equal(await level("web", "app"), "info");
    await giveToken(page, "daemon's token", TOKEN);
    await result(page, /^Changed app:debug, for 10 minutes$/);
    assert.equal(await level("web", "app"), "debug");
    assert.equal(await page.inputValue('#log-levels select[data-source="app"]'), "debug");
    assert.match(guarded.log(), /msg="guest control" vm=web command=Lapp:debug@600s by="page, 127\.0\.0\.1" for=600s/);
    await until("the mark among the events", WAIT_MS, async () => (await page.textContent("#events")).includes("Lapp:debug@600s"));

    await page.selectOption("#control-for", "");
    await page.uncheck('#metrics input[data-source="gc"]');
    await result(page, /^Changed gc:off$/);
    assert.equal(await metric("web", "gc"), "disabled");
    assert.equal(await page.isVisible("#control-ask"), false);
    await page.screenshot({ path: join(shots, "vm-switching.png"), fullPage: true });
    await page.setViewportSize({ width: 400, height: 800 });
    assert.ok((await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)) <= 0, "it overflows at 400");
    await page.setViewportSize({ width: 1280, height: 900 });
    // one after the other, however fast
    for (const source of ["memory", "tcp", "logs"]) await page.uncheck(`#metrics input[data-source="${source}"]`);
    await result(page, /^Changed logs:off$/);
    for (const source of ["memory", "tcp", "logs"]) assert.equal(await metric("web", source), "disabled");
    await page.reload();
    await page.waitForSelector('#metrics input[data-source="gc"]:not(:checked)', { timeout: WAIT_MS });
    await page.check('#metrics input[data-source="gc"]');
    await result(page, /^Changed gc:on$/);
    assert.equal(await metric("web", "gc"), "enabled");
    assert.equal(await page.evaluate(() => sessionStorage.getItem("uni-token")), TOKEN);
    await isNowhere(page, TOKEN);
    assert.ok(asked.every((request) => !request.url().includes(TOKEN)), "the token is in an address");
    const posts = asked.filter((request) => request.method() === "POST");
    assert.equal(posts.at(-1)?.headers()["authorization"], `Bearer ${TOKEN}`);
  },

  async "what the daemon refuses is told as text, and what is in force is shown again"(page, faults) {
    await openVm(page, guarded, "web");
    await page.evaluate((token) => sessionStorage.setItem("uni-token", token), TOKEN);
    const select = '#log-levels select[data-source="runtime"]';
    await page.$eval(select, (node) => node.append(new Option("<img src=x>", "<img src=x>")));
    await page.selectOption(select, "<img src=x>");
    await result(page, /^Not changed: .*<img src=x>.*levels are quiet/);
    assert.equal(await page.$("#control-card img"), null);
    await until("what is in force", WAIT_MS, async () => (await page.inputValue(select)) === "info");
    forgive(faults, /422/);
  },

  async "a guest with a token of its own asks for it, and it is kept nowhere"(page) {
    await openVm(page, guarded, "vault");
    await page.evaluate((token) => sessionStorage.setItem("uni-token", token), TOKEN);
    assert.match(await page.textContent("#control-ask-text"), /needs the guest's token/);
    await giveToken(page, "guest's token", "wrong");
    await result(page, /guest does not take this token/);
    await giveToken(page, "guest's token", SESAME);
    await page.waitForSelector('#metrics input[data-source="gc"]', { timeout: WAIT_MS });
    await page.uncheck('#metrics input[data-source="gc"]');
    await result(page, /^Changed gc:off$/);
    await isNowhere(page, SESAME);
    assert.ok(!(await page.evaluate(() => JSON.stringify(sessionStorage))).includes(SESAME));
    assert.ok(!guarded.log().includes(SESAME), "it is in the log");
    await page.reload();
    await until("the question again", WAIT_MS, () => page.isVisible("#control-ask"));
  },

  async "the heap is told by library, and a trace taken from the page names who leaks"(page) {
    await guarded.runLeaky("drip", "--leak-rate=1048576", "--memtrace-rate=0.01");
    // Curves stay in the order in which the page first saw them: it is opened when the leak is the largest already.
    await until("a leak that is the largest", WAIT_MS, async () => {
      const answer = await page.request.get(`${guarded.base}/ui/api/vm/drip/libraries?seconds=60`);
      return answer.ok() && (await answer.json()).libraries[0]?.library === "leaky";
    });
    await page.goto(`${guarded.base}/ui/vm/drip`);
    await page.evaluate((token) => sessionStorage.setItem("uni-token", token), TOKEN);
    await until("the leaking library on top", WAIT_MS, async () =>
      (await page.$$eval('[data-chart="libraries"] .legend button', (nodes) => nodes.map((node) => node.dataset.key)))[0] === "library:leaky");
    const last = () => page.getAttribute('[data-key="library:leaky"]', "data-last");
    const before = await last();
    await until("its curve to go on", WAIT_MS, async () => (await last()) !== before);
    await page.click("#trace-take");
    await until("the trace to begin", WAIT_MS, async () => (await page.textContent("#trace-result")) === "Taking a trace for 30 s");
    await page.waitForTimeout(4_000);
    await page.click("#trace-again");
    await until("who leaks", WAIT_MS, async () =>
      (await page.$$eval(".flame-box", (boxes) => boxes.map((box) => box.getAttribute("aria-label")))).some((label) => label.startsWith("leaky::leak_a_little")));
    assert.match(await page.textContent("#trace-result"), /and it goes on$/);
    await page.screenshot({ path: join(shots, "vm-trace.png"), fullPage: true });
    await page.goto(`${guarded.base}/ui`);
    await page.waitForSelector('#fleet [data-key="library:leaky"]', { timeout: WAIT_MS });
    await page.screenshot({ path: join(shots, "dashboard-fleet.png"), fullPage: true });
  },

  async "without --ui-control the page only shows"(page, faults) {
    await openVm(page, plain, "quiet");
    await until("the levels", WAIT_MS, async () => (await page.textContent("#log-levels")).startsWith("Defaultinfo"));
    assert.equal(await page.$("#control-states select, #control-states input"), null);
    assert.equal(await page.isVisible("#control-tools"), false);
    await openVm(page, plain, "locked");
    await result(page, /needs the guest's token/);
    assert.equal(await page.isVisible("#control-token"), false);
    const refused = await page.evaluate(async () => {
      const answer = await fetch("/ui/api/vm/quiet/control", {
        method: "POST", headers: { "content-type": "application/json" }, body: '{"kind":"logs","spec":"debug"}',
      });
      return [answer.status, (await answer.json()).error];
    });
    assert.equal(refused[0], 403);
    assert.match(refused[1], /--ui-control/);
    forgive(faults, /403/);
  },

  async "a program that is no VM has a row among the senders"(page) {
    await page.goto(`${plain.base}/ui`);
    await page.waitForSelector('tr[data-vm]', { timeout: WAIT_MS });
    assert.equal(await page.isVisible("#others"), false);
    const [host, port] = plain.lineAddress.split(":");
    const socket = connect(Number(port), host);
    const hostile = "<b>billing</b>";
    let answers = 0;
    const send = setInterval(() => {
      answers += 10;
      socket.write(`http_response,vm=${hostile} 2xx=${answers}i\nheap,vm=${hostile} heap_live_bytes=2097152i\nlogs,vm=${hostile} errors=3i\n`);
    }, 1_000);
    try {
      const row = `tr[data-sender="${hostile}"]`;
      await page.waitForSelector(row, { timeout: WAIT_MS });
      await until("its figures", WAIT_MS, async () => /\d+\.\d\/s/.test(await page.textContent(`${row} [data-cell="answers"]`)));
      assert.equal(await page.getAttribute(row, "data-state"), "reporting");
      assert.equal(await page.textContent(`${row} [data-cell="name"]`), hostile);
      assert.equal(await page.textContent(`${row} [data-cell="guest"]`), "2 MiB");
      assert.equal(await page.textContent(`${row} [data-cell="errors"]`), "3");
      assert.equal(await page.$("#senders b"), null);
      // the VM reports too, and is no sender
      assert.equal(await page.$('tr[data-sender="quiet"]'), null);
    } finally {
      clearInterval(send);
      socket.end();
    }
  },
};

/** Removes faults that the test itself provoked. */
function forgive(faults, pattern) {
  for (let i = faults.length - 1; i >= 0; i -= 1) if (pattern.test(faults[i])) faults.splice(i, 1);
}

let failed = 0;
const browser = await open({ httpCredentials: { username: "any", password: TOKEN } });
try {
  await Promise.all([guarded.run("web"), guarded.run("vault", `--monitor-token=${SESAME}`), plain.run("quiet"), plain.run("locked", `--monitor-token=${SESAME}`)]);
  for (const [name, run] of Object.entries(tests)) {
    const faults = [];
    const page = await browser.context.newPage();
    page.setDefaultTimeout(10_000);
    watch(page, name.includes("no VM") || name.includes("only shows") ? plain.base : guarded.base, faults);
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
} finally {
  await browser.close();
  await Promise.all([guarded.end(), plain.end()]);
}
process.exit(failed === 0 ? 0 : 1);
