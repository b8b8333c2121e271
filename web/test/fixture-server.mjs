// Owns a stand-in for the daemon's page API, with made-up but repeatable figures, so that the page can be
// developed and tested without a daemon. It is a test fixture: nothing of it is shipped.
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";

const DIST = new URL("../dist/", import.meta.url).pathname;
const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };
export const POLICY = "default-src 'self'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'none'";
export const HOSTILE = `<img src=x onerror=alert(1)>"'&\u202etxt`;
export const HOSTILE_CONSOLE = `<script>alert(1)</script> \x1b[31mred\x1b[0m \x1b]0;title\x07 bell\x07 \u202eright to left\r\n`;

const MIB = 1024 * 1024;
const started = Date.now() - 240_000;

/** A repeatable number in [0, 1) for a moment and a curve. */
function noise(seconds, salt) {
  const x = Math.sin(seconds * 12.9898 + salt * 78.233) * 43758.5453;
  return x - Math.floor(x);
}

const wave = (seconds, period, salt) => 0.5 + 0.5 * Math.sin((seconds / period + salt) * 2 * Math.PI);

/** What each curve is at a moment; `web` is full, `plain` is seen from outside only. */
const CURVES = {
  cpu_pct: (s) => 4 + 22 * wave(s, 95, 0.1) + 6 * noise(s, 1),
  host_memory_bytes: (s) => (58 + 5 * wave(s, 240, 0.3) + 0.4 * noise(s, 2)) * MIB,
  guest_heap_bytes: () => 24 * MIB,
  guest_live_bytes: (s) => (6 + 9 * ((s % 60) / 60) + 0.2 * noise(s, 3)) * MIB,
  "net_rx_bps:service": (s) => 42_000 + 30_000 * wave(s, 95, 0.1) + 9_000 * noise(s, 4),
  "net_tx_bps:service": (s) => 210_000 + 160_000 * wave(s, 95, 0.1) + 40_000 * noise(s, 5),
  "net_rx_bps:management": (s) => 900 + 200 * noise(s, 6),
  "net_tx_bps:management": (s) => 5_200 + 900 * noise(s, 7),
  http_2xx: (s) => 30 + 24 * wave(s, 95, 0.1) + 4 * noise(s, 8),
  http_3xx: (s) => 3 * wave(s, 140, 0.6),
  http_4xx: (s) => 2 + 2 * noise(s, 9),
  http_5xx: (s) => (s % 75 < 12 ? 5 * noise(s, 10) : 0),
  log_errors: (s) => Math.max(0, Math.floor((s - started / 1000) / 48)),
  log_warnings: (s) => Math.max(0, Math.floor((s - started / 1000) / 15)),
};
const OUTSIDE = ["cpu_pct", "host_memory_bytes", "net_rx_bps:service", "net_tx_bps:service"];

export const VMS = [
  { id: "9f2c41d07ab3", name: "web", state: "running", health: "healthy", image: "/srv/guests/http.elf", keys: Object.keys(CURVES) },
  { id: "41aa0c77de19", name: "hello", state: "running", health: "", image: "/srv/guests/hello.elf", keys: Object.keys(CURVES).filter((key) => !key.startsWith("http_")) },
  { id: "c0ffee00b1e5", name: "plain", state: "running", health: "", image: "/srv/guests/plain.elf", keys: OUTSIDE },
  { id: "00dead00beef", name: "batch", state: "stopped", health: "", image: "/srv/guests/hello.elf", keys: [] },
  { id: "bad0bad0bad0", name: HOSTILE, state: "running", health: "unhealthy", image: `/srv/${HOSTILE}.elf`, keys: OUTSIDE },
];

const find = (name) => VMS.find((vm) => vm.name === name || vm.id === name) ?? VMS.find((vm) => name.length > 3 && vm.id.startsWith(name));
/** Nothing was measured for 40 seconds, a while ago. */
const inHole = (timeMs) => timeMs - started > 60_000 && timeMs - started < 100_000;
const figure = (vm, key, timeMs) => (vm.keys.includes(key) ? CURVES[key](timeMs / 1000) : null);
const marks = (vm) =>
  vm.state === "stopped"
    ? [{ time: started, event: "start", text: "process 4711" }, { time: started + 90_000, event: "exit", text: "status 0" }]
    : [{ time: started, event: "start", text: "process 4712" }, { time: started + 100_000, event: "adopt", text: "the daemon came back" }];

function overview(timeMs) {
  const row = (vm) => ({
    id: vm.id, name: vm.name, state: vm.state, health: vm.health, image: vm.image,
    cpu_pct: figure(vm, "cpu_pct", timeMs),
    mem_bytes: figure(vm, "host_memory_bytes", timeMs),
    guest_heap_bytes: figure(vm, "guest_heap_bytes", timeMs),
    net_rx_bps: figure(vm, "net_rx_bps:service", timeMs),
    net_tx_bps: figure(vm, "net_tx_bps:service", timeMs),
    started_at: new Date(started).toISOString(),
  });
  return { version: "0.1.0", vms: VMS.map(row) };
}

function detail(vm) {
  const at = new Date(started).toISOString();
  return {
    id: vm.id, name: vm.name, state: vm.state, image: vm.image, memory: "64M", cpus: 1, health: vm.health || "-",
    restart_policy: "on-failure", restart_count: 0, created_at: at, started_at: at,
    stopped_at: vm.state === "stopped" ? new Date(started + 90_000).toISOString() : "",
    ip_address: "10.0.2.15", gateway_ip: "10.0.2.2",
    machine: "microvm", accelerator: "tcg", args: ["--greeting=<b>hi</b>"], daemon_recovered: false,
    exit: vm.state === "stopped" ? "status 0" : "", limits: { cpu_shares: 0, memory_max: 1 << 29, disk_iops: 0, disk_bps: 0 },
    env: ["MODE=not-for-everyone", "API_TOKEN=***"], ports: [{ host_port: 8080, guest_port: 80, protocol: "tcp" }],
  };
}

function charts(vm, seconds) {
  const to = Date.now();
  const from = to - seconds * 1000;
  const step = Math.max(1000, Math.ceil(seconds / 1000) * 1000);
  const series = {};
  for (const key of vm.keys) {
    const times = [];
    const values = [];
    for (let time = Math.ceil(Math.max(from, started) / step) * step; time <= to; time += step) {
      times.push(time);
      values.push(inHole(time) ? null : figure(vm, key, time));
    }
    series[key] = { times, values };
  }
  return { from, to, step, series, marks: marks(vm) };
}

function control(vm) {
  if (vm.name === "plain" || vm.state === "stopped") return { logs: [], metrics: [], error: "it has no control port" };
  const logs = [["*", "info"], ["runtime", "info"], [vm.name, "debug"]].map(([source, level]) => ({ source, level }));
  const metrics = [["*", "enabled"], ["gc", "disabled"], [vm.name, "enabled"]].map(([source, state]) => ({ source, state }));
  return { logs, metrics };
}

/** Libraries of `web` over time; none of VMs that are seen from outside only. */
function libraries(vms, seconds) {
  const to = Date.now();
  const from = to - seconds * 1000;
  const step = Math.max(1000, Math.ceil(seconds / 600) * 1000);
  const times = [];
  for (let time = Math.ceil(Math.max(from, started) / step) * step; time <= to; time += step) times.push(time);
  const inside = vms.filter((vm) => vm.keys.includes("guest_heap_bytes"));
  const of = (library, size) => ({ library, bytes: times.map((time) => inside.length * size(time / 1000)) });
  if (inside.length === 0) return { from, to, step, times: [], libraries: [] };
  return {
    from, to, step, times,
    libraries: [of("http", (s) => (3 + 4 * ((s % 60) / 60)) * MIB), of(HOSTILE, () => 2 * MIB), of("(others)", () => MIB)],
  };
}

const traces = new Map();
function tracesOf(vm) {
  if (!vm.keys.includes("guest_heap_bytes")) return [];
  if (!traces.has(vm.id)) {
    const end = { whole: true, why: "its time is over" };
    traces.set(vm.id, [{ name: "20261121T182900.123Z", started_ms: started, bytes: 40_000, running: false, end }]);
  }
  return traces.get(vm.id);
}

// at 10 s only one function had allocated; nothing of it lived a second
function flame(trace, query) {
  const [at, lifetime] = ["at", "min_lifetime"].map((name) => Number(query.get(name) ?? NaN));
  if (at < 20) {
    const box = (name, live, children) => ({ name, file: "", library: "http", live, allocated: 50, children });
    const live = lifetime >= 1 ? 0 : 50;
    return { title: "web", weight: "live", duration_seconds: at, running: trace.running, nodes: [box("all", live, [1]), box("http::serve", live, [])] };
  }
  const node = (name, library, live, allocated, children = []) => ({ name, file: "a.rs", library, live, allocated, children });
  return {
    title: "web", weight: "live", duration_seconds: 30, running: trace.running,
    nodes: [
      node("all", "", 1000, 4000, [1, 2]),
      node("http::serve", "http", 700, 1000, [3]),
      node(HOSTILE, "evil", 300, 3000),
      node("http::page", "http", 700, 1000),
    ],
  };
}

const consoles = new Map();
function consoleOf(vm) {
  const boot = vm.state === "stopped" ? "" : `booting ${vm.name === HOSTILE ? "the hostile one" : vm.name}\r\nmemory 64 MiB, heap 24 MiB\r\nlink service 10.0.2.15/24, gateway 10.0.2.2\r\nlistening on port 80\r\n${HOSTILE_CONSOLE}`;
  if (!consoles.has(vm.id)) consoles.set(vm.id, Buffer.from(boot));
  return consoles.get(vm.id);
}

function say(vm, text) {
  const before = consoleOf(vm);
  consoles.set(vm.id, Buffer.concat([before, Buffer.from(text)]));
  return { from: before.length, next: before.length + Buffer.byteLength(text), text };
}

function stream(request, answer, tick) {
  answer.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store", "content-security-policy": POLICY });
  const send = (event, data) => answer.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
  tick(send);
  const timer = setInterval(() => tick(send), 1000);
  request.on("close", () => clearInterval(timer));
}

function vmTick(vm) {
  let round = 0;
  return (send) => {
    const time = Date.now();
    if (round === 0) send("state", { state: vm.state, health: vm.health });
    round += 1;
    if (vm.keys.length === 0) return;
    send("points", { time, points: vm.keys.map((key) => [key, time, figure(vm, key, time)]) });
    send("console", say(vm, `[${String(Math.floor((time - started) / 1000)).padStart(6)}] GET /${round % 5 === 0 ? "missing 404" : " 200"}\r\n`));
    if (round === 20) send("mark", { time, event: "adopt", text: "the daemon came back" });
  };
}

function json(answer, status, body) {
  answer.writeHead(status, { "content-type": "application/json", "content-security-policy": POLICY });
  answer.end(`${JSON.stringify(body)}\n`);
}

async function file(answer, name) {
  try {
    const bytes = await readFile(join(DIST, normalize(`/${name}`)));
    answer.writeHead(200, { "content-type": TYPES[extname(name)] ?? "application/octet-stream", "content-security-policy": POLICY, "x-content-type-options": "nosniff" });
    answer.end(bytes);
  } catch {
    answer.writeHead(404).end("not found\n");
  }
}

function vmApi(request, answer, vm, [what = "", ...rest], query) {
  if (what === "") return json(answer, 200, detail(vm));
  if (what === "logs") return json(answer, 200, { id: vm.id, logs: consoleOf(vm).toString() });
  if (what === "charts") return json(answer, 200, charts(vm, Number(query.get("seconds") ?? 900)));
  if (what === "stream") return stream(request, answer, vmTick(vm));
  if (what === "console") {
    const all = consoleOf(vm);
    const tail = all.subarray(-Number(query.get("tail") ?? 16384));
    return json(answer, 200, { from: all.length - tail.length, next: all.length, text: tail.toString() });
  }
  if (what === "libraries") return json(answer, 200, libraries([vm], Number(query.get("seconds") ?? 900)));
  if (what === "traces" && request.method === "POST") {
    if (request.headers["authorization"] !== "Bearer open-sesame-of-unid") return json(answer, 401, { error: "no" });
    const trace = { name: "20261121T183000.456Z", started_ms: Date.now(), bytes: 900, running: true };
    tracesOf(vm).unshift(trace);
    return json(answer, 200, { id: vm.id, vm: vm.name, name: trace.name });
  }
  if (what === "traces" && rest.length > 0) {
    const trace = tracesOf(vm).find(({ name }) => name === rest[0]);
    return trace && rest[1] === "flame" ? json(answer, 200, flame(trace, query)) : json(answer, 404, { error: "trace not found" });
  }
  if (what === "traces") return json(answer, 200, { traces: tracesOf(vm), can_take: vm.name === "web" });
  if (what === "control") return json(answer, 200, control(vm));
  if (what !== "stats") return json(answer, 404, { error: "not found" });
  const now = Date.now();
  return json(answer, 200, {
    id: vm.id, state: vm.state, cpu_pct: figure(vm, "cpu_pct", now) ?? 0, mem_bytes: Math.round(figure(vm, "host_memory_bytes", now) ?? 0),
    net_rx_bytes: 1_536_000, net_tx_bytes: 32_770_000, timestamp: new Date(now).toISOString(), source: "proc",
  });
}

function handle(request, answer) {
  const { pathname, searchParams } = new URL(request.url, "http://fixture");
  const parts = pathname.split("/").slice(1).map(decodeURIComponent);
  if (pathname === "/ui" || pathname === "/ui/") return file(answer, "index.html");
  if (pathname.startsWith("/ui/assets/")) return file(answer, pathname.slice("/ui/".length));
  if (parts[1] === "vm" && parts.length === 3) return file(answer, "vm.html");
  if (pathname === "/ui/api/libraries") return json(answer, 200, libraries(VMS, Number(searchParams.get("seconds") ?? 900)));
  if (pathname === "/ui/api/overview") return json(answer, 200, overview(Date.now()));
  if (pathname === "/ui/api/overview/stream") return stream(request, answer, (send) => send("overview", overview(Date.now())));
  if (parts[1] === "api" && parts[2] === "vm") {
    const vm = find(parts[3] ?? "");
    return vm ? vmApi(request, answer, vm, parts.slice(4), searchParams) : json(answer, 404, { error: "vm not found" });
  }
  answer.writeHead(404).end("not found\n");
}

/** Starts the fixture on a port, 0 for a free one; answers the server. `empty` has no VMs at all. */
export function start(port, { empty = false } = {}) {
  if (empty) VMS.length = 0;
  const server = createServer(handle);
  return new Promise((resolve) => server.listen(port, "127.0.0.1", () => resolve(server)));
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  const at = process.argv.indexOf("--port");
  const server = await start(at < 0 ? 0 : Number(process.argv[at + 1]), { empty: process.argv.includes("--empty") });
  console.log(`fixture on http://127.0.0.1:${server.address().port}/ui`);
}
