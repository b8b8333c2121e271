// Owns the page of one VM: overview, live figures, charts, events and console, joined on one stream.

import "uplot/dist/uPlot.min.css";
import "./style.css";
import { fetchCharts, fetchLibraries, fetchStats, fetchVm, followVm, VmNotFound } from "./api.ts";
import { Connection } from "./connection.ts";
import { ConsoleView } from "./console-view.ts";
import { ControlView } from "./control-view.ts";
import {
  decodeConsole,
  decodeMark,
  decodePoints,
  decodeState,
  type Stats,
  type VmDetail,
} from "./decode.ts";
import { byId, definition, element, setText } from "./dom.ts";
import {
  ABSENT,
  classWord,
  formatBytes,
  formatClock,
  formatDateTime,
  formatDuration,
  formatPercent,
  orAbsent,
  visibleLine,
} from "./format.ts";
import { markColor } from "./marks.ts";
import { RANGES } from "./timeline.ts";
import { Stack } from "./stack.ts";
import { TraceView } from "./trace-view.ts";

const STATS_EVERY_MS = 3_000;
const DETAIL_EVERY_MS = 30_000;
const HEAP_EVERY_MS = 5_000;
const EVENTS_SHOWN = 30;
const DEFAULT_RANGE = "5m";

const vm = nameFromAddress(location.pathname);
const connection = new Connection();
const stack = new Stack(byId("charts"), rangeFromAddress() * 1000);
const consoleView = new ConsoleView(vm);
const control = new ControlView(vm);
const traces = new TraceView(vm);
let detail: VmDetail | undefined;
let envShown = false;

/** The VM named by `/ui/vm/<name>`; an ill-formed escape is taken as it stands. */
function nameFromAddress(path: string): string {
  const last = path.replace(/\/+$/, "").split("/").at(-1) ?? "";
  try {
    return decodeURIComponent(last);
  } catch {
    return last;
  }
}

function rangeFromAddress(): number {
  const wanted = new URLSearchParams(location.search).get("range") ?? DEFAULT_RANGE;
  return (RANGES.find(([label]) => label === wanted) ?? RANGES[0])?.[1] ?? 300;
}

function known(word: string): string {
  return word === "" || word === "-" ? ABSENT : visibleLine(word);
}

function badge(id: string, kind: string, word: string): void {
  const node = byId(id);
  node.hidden = word === "" || word === "-";
  node.className = `badge ${kind}-${classWord(word)}`;
  setText(node, visibleLine(word));
}

function showState(state: string, health: string): void {
  byId("main").dataset["state"] = state;
  badge("state", "state", state);
  badge("health", "health", health);
}

function moment(rfc3339: string): string {
  return rfc3339 === "" ? ABSENT : formatDateTime(Date.parse(rfc3339));
}

function restartText(of: VmDetail): string {
  const count = of.restartCount ?? 0;
  return `${of.restartPolicy === "" ? "never" : visibleLine(of.restartPolicy)}, ${count} ${count === 1 ? "restart" : "restarts"}`;
}

/** A pair that most VMs do not have. */
function optional(term: string, value: string): Node[] {
  return value === "" ? [] : definition(term, visibleLine(value));
}

function stateText(of: VmDetail): string {
  return of.daemonRecovered ? `${visibleLine(of.state)}, found gone when the daemon came back` : visibleLine(of.state);
}

/** What the VM may use of the host; nothing where nothing is limited. */
function limitsText({ limits }: VmDetail): string {
  const parts = [
    limits.cpuShares > 0 ? `CPU weight ${limits.cpuShares}` : "",
    limits.memoryMax > 0 ? `memory ${formatBytes(limits.memoryMax)}` : "",
    limits.diskIops > 0 ? `disk ${limits.diskIops} operations/s` : "",
    limits.diskBps > 0 ? `disk ${formatBytes(limits.diskBps)}/s` : "",
  ];
  return parts.filter((part) => part !== "").join(", ");
}

function showDetail(of: VmDetail): void {
  detail = of;
  byId("missing").hidden = true;
  byId("body").hidden = false;
  const name = known(of.name) === ABSENT ? visibleLine(of.id) : visibleLine(of.name);
  document.title = `Uni — VM ${visibleLine(of.id)}`;
  setText(byId("name"), name);
  showState(of.state, of.health);
  byId("overview").replaceChildren(
    ...definition("Id", visibleLine(of.id)),
    ...definition("State", stateText(of)),
    ...definition("Health", known(of.health)),
    ...definition("Image", known(of.image)),
    ...definition("Memory", known(of.memory)),
    ...definition("CPUs", orAbsent(of.cpus, String)),
    ...definition("Machine", known([of.machine, of.accelerator].filter((word) => word !== "").join(", "))),
    ...optional("Arguments", of.args.join(" ")),
    ...optional("Limits", limitsText(of)),
    ...definition("IP", known(of.ipAddress)),
    ...definition("Gateway", known(of.gatewayIp)),
    ...definition("Restart", restartText(of)),
    ...definition("Created", moment(of.createdAt)),
    ...definition("Started", moment(of.startedAt)),
    ...definition("Stopped", moment(of.stoppedAt)),
    ...optional("End", of.exit),
  );
  showPorts(of);
  showEnv(of);
  showUptime();
}

function showPorts(of: VmDetail): void {
  byId("ports-card").hidden = of.ports.length === 0;
  byId("ports").replaceChildren(
    ...of.ports.map((port) =>
      element("li", { text: `${port.hostPort} → ${port.guestPort}/${visibleLine(port.protocol)}` }),
    ),
  );
}

/** Values are often secrets: they stay covered until asked for. */
function showEnv(of: VmDetail): void {
  byId("env-card").hidden = of.env.length === 0;
  setText(byId("env-toggle"), envShown ? "Hide values" : "Show values");
  byId("env").replaceChildren(
    ...of.env.flatMap((entry) => {
      const cut = entry.indexOf("=");
      const key = cut < 0 ? entry : entry.slice(0, cut);
      const value = cut < 0 ? "" : entry.slice(cut + 1);
      return definition(visibleLine(key), envShown ? visibleLine(value) : "••••••");
    }),
  );
}

function showUptime(): void {
  const running = detail?.state === "running" && detail.startedAt !== "";
  const upMs = stack.timeline.nowMs(Date.now()) - Date.parse(detail?.startedAt ?? "");
  setText(byId("stat-up"), running ? orAbsent(upMs, formatDuration) : ABSENT);
}

function showStats(stats: Stats): void {
  setText(byId("stat-cpu"), orAbsent(stats.cpuPercent, formatPercent));
  setText(byId("stat-mem"), orAbsent(stats.memoryBytes, formatBytes));
  setText(byId("stat-rx"), orAbsent(stats.receivedBytes, formatBytes));
  setText(byId("stat-tx"), orAbsent(stats.sentBytes, formatBytes));
  setText(byId("stat-source"), known(stats.source));
}

function showEvents(): void {
  const newest = stack.marks.slice(-EVENTS_SHOWN).reverse();
  setText(byId("events-empty"), newest.length === 0 ? "None in this range" : "");
  byId("events").replaceChildren(
    ...newest.map((mark) =>
      element("li", {}, [
        element("time", { text: formatClock(mark.timeMs), title: formatDateTime(mark.timeMs) }),
        element("b", { class: `mark-${markColor(mark.event)}`, text: visibleLine(mark.event) }),
        element("span", { text: visibleLine(mark.text) }),
      ]),
    ),
  );
}

function missing(): void {
  byId("missing").hidden = false;
  byId("body").hidden = true;
  setText(byId("name"), visibleLine(vm));
  setText(byId("missing-name"), visibleLine(vm));
}

async function renewDetail(): Promise<void> {
  try {
    showDetail(await fetchVm(vm));
  } catch (failure) {
    if (failure instanceof VmNotFound) missing();
  }
}

async function renewStats(): Promise<void> {
  if (document.hidden) return;
  try {
    showStats(await fetchStats(vm));
  } catch {
    // The next round tries again; the connection's sign tells about a lasting loss.
  }
}

/** Only the newest request may write: a slow answer for a range left long ago must not overwrite. */
let chartsAsked = 0;
async function renewCharts(): Promise<void> {
  chartsAsked += 1;
  const mine = chartsAsked;
  try {
    const charts = await fetchCharts(vm, stack.timeline.rangeMs / 1000);
    if (mine !== chartsAsked) return;
    stack.load(charts, Date.now());
    showEvents();
  } catch (failure) {
    if (!(failure instanceof VmNotFound)) setTimeout(() => void renewCharts(), STATS_EVERY_MS);
  }
}

async function renewLibraries(): Promise<void> {
  if (document.hidden) return;
  try {
    stack.loadLibraries(await fetchLibraries(vm, stack.timeline.rangeMs / 1000));
  } catch {
    // The next round tries again; the connection's sign tells about a lasting loss.
  }
}

function renewAll(): void {
  void renewDetail();
  void renewLibraries();
  void traces.renew();
  void control.renew();
  void renewCharts();
  void consoleView.refetch();
}

function buildRanges(): void {
  const box = byId("ranges");
  for (const [label, seconds] of RANGES) {
    const button = element("button", { text: label, attributes: { type: "button" } });
    button.setAttribute("aria-pressed", String(seconds * 1000 === stack.timeline.rangeMs));
    button.addEventListener("click", () => chooseRange(button, label, seconds));
    box.append(button);
  }
}

function chooseRange(button: HTMLButtonElement, label: string, seconds: number): void {
  for (const other of byId("ranges").children) other.setAttribute("aria-pressed", String(other === button));
  history.replaceState(null, "", `?range=${label}`);
  stack.timeline.rangeMs = seconds * 1000;
  stack.live();
  void renewCharts();
  void renewLibraries();
}

function showLinks(links: readonly string[]): void {
  const select = byId("link") as HTMLSelectElement;
  const chosen = select.value;
  select.replaceChildren(
    ...links.map((link) => element("option", { text: visibleLine(link), attributes: { value: link } })),
  );
  if (links.includes(chosen)) select.value = chosen;
}

function showMoment(timeMs: number | undefined): void {
  const { zoom } = stack.timeline;
  if (timeMs !== undefined) setText(byId("moment"), formatDateTime(timeMs));
  else setText(byId("moment"), zoom === undefined ? "live" : `${formatClock(zoom.fromMs)} to ${formatClock(zoom.toMs)}`);
}

function wire(): void {
  buildRanges();
  const network = stack.charts.find((chart) => chart.spec.id === "network");
  const link = byId("link") as HTMLSelectElement;
  network?.tools.append(link);
  link.hidden = false;
  link.addEventListener("change", () => stack.chooseLink(link.value));
  stack.onLinks = showLinks;
  stack.onMoment = showMoment;
  stack.onChosen = (timeMs) => traces.lookAt(timeMs);
  traces.onMoment = (timeMs) => stack.show(timeMs);
  stack.onSpan = () => {
    byId("live").hidden = stack.timeline.zoom === undefined;
    showMoment(undefined);
  };
  byId("live").addEventListener("click", () => stack.live());
  byId("env-toggle").addEventListener("click", () => {
    envShown = !envShown;
    if (detail !== undefined) showEnv(detail);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    stack.live();
    stack.clearCrosshair();
  });
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) stack.draw();
  });
}

document.title = `Uni — VM ${visibleLine(vm)}`;
setText(byId("name"), visibleLine(vm));
wire();
renewAll();
void renewStats();
setInterval(() => void renewStats(), STATS_EVERY_MS);
setInterval(() => void renewLibraries(), HEAP_EVERY_MS);
setInterval(() => void traces.renew(), HEAP_EVERY_MS);
setInterval(() => void renewDetail(), DETAIL_EVERY_MS);
setInterval(() => void control.renew(), DETAIL_EVERY_MS);
setInterval(() => {
  showUptime();
  stack.draw();
}, 1_000);

followVm(
  vm,
  {
    points: (data) => stack.add(decodePoints(data), Date.now()),
    mark: (data) => {
      const mark = decodeMark(data);
      if (mark === undefined) return;
      stack.addMark(mark);
      showEvents();
      void renewDetail();
      void control.renew();
    },
    state: (data) => {
      const { state, health } = decodeState(data);
      showState(state, health);
      if (detail !== undefined && detail.state !== state) void renewDetail();
    },
    console: (data) => consoleView.offer(decodeConsole(data)),
  },
  (status) => {
    if (status === "lost") connection.lost();
    else connection.live();
    if (status === "reopened") renewAll();
  },
);
