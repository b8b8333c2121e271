// Owns the list page: one row per VM, its newest figures and two small curves, renewed every second.

import "./style.css";
import { fetchCharts, followOverview } from "./api.ts";
import { Connection } from "./connection.ts";
import type { Overview, OverviewVm } from "./decode.ts";
import { byId, element, setText } from "./dom.ts";
import {
  ABSENT,
  classWord,
  formatBitRate,
  formatBytes,
  formatDuration,
  formatPercent,
  orAbsent,
  visibleLine,
} from "./format.ts";
import { showFleet } from "./fleet.ts";
import { showSenders } from "./senders.ts";
import { Sparkline } from "./sparkline.ts";
import { onSchemeChange } from "./theme.ts";

/** Curves are filled from the store at once for this many VMs only; the others fill as time goes. */
const PREFILLED_VMS = 12;
const PREFILL_SECONDS = 120;

const rows = new Map<string, Row>();
const connection = new Connection();
const body = byId("vms");
const filter = byId("filter") as HTMLInputElement;

/** A table cell that knows its column's name, for narrow screens and for tests. */
function cell(column: string, label: string, children: readonly Node[] = []): HTMLTableCellElement {
  return element("td", { class: `c-${column}`, attributes: { "data-cell": column, "data-label": label } }, children);
}

class Row {
  readonly tr: HTMLTableRowElement;
  vm: OverviewVm;
  readonly #link = element("a");
  readonly #id = element("span", { class: "id" });
  readonly #state = element("span");
  readonly #health = element("span");
  readonly #image = cell("image", "Image");
  readonly #cpu = element("span", { class: "figure" });
  readonly #memory = element("span", { class: "figure" });
  readonly #guest = cell("guest", "Guest heap");
  readonly #received = element("span", { class: "figure" });
  readonly #sent = element("span", { class: "figure" });
  readonly #up = cell("up", "Up");
  readonly #cpuCurve: Sparkline;
  readonly #memoryCurve: Sparkline;

  constructor(vm: OverviewVm) {
    this.vm = vm;
    const name = visibleLine(vm.name || vm.id);
    this.#cpuCurve = new Sparkline(`CPU of ${name}, two minutes`, "cpu", 2);
    this.#memoryCurve = new Sparkline(`Host memory of ${name}, two minutes`, "memory", 1024);
    this.tr = element("tr", { attributes: { "data-vm": vm.id } }, [
      element("th", { attributes: { scope: "row", "data-cell": "name" } }, [this.#link, this.#id]),
      cell("state", "State", [this.#state]),
      cell("health", "Health", [this.#health]),
      this.#image,
      cell("cpu", "CPU", [this.#cpuCurve.canvas, this.#cpu]),
      cell("memory", "Host memory", [this.#memoryCurve.canvas, this.#memory]),
      this.#guest,
      cell("net", "Network", [
        element("div", {}, [element("i", { text: "in" }), this.#received]),
        element("div", {}, [element("i", { text: "out" }), this.#sent]),
      ]),
      this.#up,
    ]);
  }

  update(vm: OverviewVm, nowMs: number): void {
    this.vm = vm;
    this.tr.dataset["name"] = vm.name;
    this.tr.dataset["state"] = vm.state;
    this.#writeIdentity(vm);
    this.#writeFigures(vm, nowMs);
    this.#cpuCurve.push(nowMs, vm.cpuPercent);
    this.#memoryCurve.push(nowMs, vm.memoryBytes);
  }

  /** Points from before the page was opened. */
  prefill(cpu: readonly [number, number][], memory: readonly [number, number][]): void {
    for (const [time, value] of cpu) this.#cpuCurve.push(time, value);
    for (const [time, value] of memory) this.#memoryCurve.push(time, value);
  }

  draw(nowMs: number): void {
    this.#cpuCurve.draw(nowMs);
    this.#memoryCurve.draw(nowMs);
  }

  #writeIdentity(vm: OverviewVm): void {
    setText(this.#link, visibleLine(vm.name === "" || vm.name === "-" ? vm.id : vm.name));
    this.#link.href = `/ui/vm/${encodeURIComponent(vm.name === "" || vm.name === "-" ? vm.id : vm.name)}`;
    setText(this.#id, visibleLine(vm.id));
    badge(this.#state, "state", vm.state);
    badge(this.#health, "health", vm.health);
    const image = visibleLine(vm.image);
    setText(this.#image, image.split("/").at(-1) || ABSENT);
    this.#image.title = image;
  }

  #writeFigures(vm: OverviewVm, nowMs: number): void {
    setText(this.#cpu, orAbsent(vm.cpuPercent, formatPercent));
    setText(this.#memory, orAbsent(vm.memoryBytes, formatBytes));
    setText(this.#guest, orAbsent(vm.guestHeapBytes, formatBytes));
    setText(this.#received, orAbsent(vm.receivedBitsPerSecond, formatBitRate));
    setText(this.#sent, orAbsent(vm.sentBitsPerSecond, formatBitRate));
    const startedMs = vm.state === "running" ? Date.parse(vm.startedAt) : Number.NaN;
    setText(this.#up, orAbsent(nowMs - startedMs, formatDuration));
  }
}

/** A coloured word; no word shows as a dash. */
function badge(node: HTMLElement, kind: string, word: string): void {
  const none = word === "" || word === "-";
  node.className = none ? "none" : `badge ${kind}-${classWord(word)}`;
  setText(node, none ? ABSENT : visibleLine(word));
}

/** Running ones first, then by name. */
function order(a: OverviewVm, b: OverviewVm): number {
  const rank = Number(b.state === "running") - Number(a.state === "running");
  return rank !== 0 ? rank : a.name.localeCompare(b.name) || a.id.localeCompare(b.id);
}

function show(overview: Overview): void {
  const nowMs = Date.now();
  setText(byId("version"), overview.version === "" ? "" : `v${visibleLine(overview.version)}`);
  byId("empty").hidden = overview.vms.length > 0;
  byId("table").hidden = overview.vms.length === 0;
  const wanted = [...overview.vms].sort(order);
  forgetAllBut(new Set(wanted.map((vm) => vm.id)));
  wanted.forEach((vm, index) => place(rowOf(vm), index, vm, nowMs));
  applyFilter();
  showTotals(overview.vms);
  showSenders(overview.senders, nowMs);
  if (!document.hidden) for (const row of rows.values()) row.draw(nowMs);
}

function forgetAllBut(ids: ReadonlySet<string>): void {
  for (const [id, row] of rows) {
    if (ids.has(id)) continue;
    row.tr.remove();
    rows.delete(id);
  }
}

function rowOf(vm: OverviewVm): Row {
  const known = rows.get(vm.id);
  if (known !== undefined) return known;
  const made = new Row(vm);
  rows.set(vm.id, made);
  if (rows.size <= PREFILLED_VMS) void prefill(made, vm);
  return made;
}

function place(row: Row, index: number, vm: OverviewVm, nowMs: number): void {
  if (body.children[index] !== row.tr) body.insertBefore(row.tr, body.children[index] ?? null);
  row.update(vm, nowMs);
}

/** The past two minutes of a new row; without them its curves simply begin now. */
async function prefill(row: Row, vm: OverviewVm): Promise<void> {
  try {
    const charts = await fetchCharts(vm.id, PREFILL_SECONDS);
    const pairs = (key: string): [number, number][] => {
      const curve = charts.series.get(key);
      return (curve?.times ?? []).map((time, i) => [time, curve?.values[i] ?? 0]);
    };
    row.prefill(pairs("cpu_pct"), pairs("host_memory_bytes"));
  } catch {
    // The VM went away meanwhile, or the daemon is busy: the stream tells.
  }
}

function sum(vms: readonly OverviewVm[], pick: (vm: OverviewVm) => number | null): number | null {
  const known = vms.map(pick).filter((value) => value !== null);
  return known.length === 0 ? null : known.reduce((total, value) => total + value, 0);
}

function showTotals(vms: readonly OverviewVm[]): void {
  const running = vms.filter((vm) => vm.state === "running");
  setText(byId("total-running"), `${running.length} of ${vms.length}`);
  setText(byId("total-cpu"), orAbsent(sum(running, (vm) => vm.cpuPercent), formatPercent));
  setText(byId("total-memory"), orAbsent(sum(running, (vm) => vm.memoryBytes), formatBytes));
  const received = orAbsent(sum(running, (vm) => vm.receivedBitsPerSecond), formatBitRate);
  const sent = orAbsent(sum(running, (vm) => vm.sentBitsPerSecond), formatBitRate);
  setText(byId("total-network"), `${received} in, ${sent} out`);
}

function applyFilter(): void {
  const wanted = filter.value.trim().toLowerCase();
  for (const { tr, vm } of rows.values()) {
    tr.hidden = wanted !== "" && !`${vm.name} ${vm.id} ${vm.image} ${vm.state}`.toLowerCase().includes(wanted);
  }
}

filter.addEventListener("input", applyFilter);
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== filter) {
    event.preventDefault();
    filter.focus();
  } else if (event.key === "Escape" && document.activeElement === filter) {
    filter.value = "";
    applyFilter();
  }
});
onSchemeChange(() => {
  for (const row of rows.values()) row.draw(Date.now());
});

showFleet();
followOverview(
  (overview) => {
    connection.heard();
    show(overview);
  },
  (status) => {
    if (status === "lost") connection.lost();
  },
);
