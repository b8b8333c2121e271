// Owns the shapes that the daemon sends and their checking: what does not fit is left out, never trusted.
// Never fetches, never draws.

/** One row of the list page; `null` means not measured. */
export interface OverviewVm {
  id: string;
  name: string;
  state: string;
  health: string;
  image: string;
  cpuPercent: number | null;
  memoryBytes: number | null;
  guestHeapBytes: number | null;
  receivedBitsPerSecond: number | null;
  sentBitsPerSecond: number | null;
  /** RFC 3339, or empty. */
  startedAt: string;
}

/** All VMs with their newest figures. */
export interface Overview {
  version: string;
  vms: OverviewVm[];
  senders: Sender[];
}

/** A program that reports and is no VM. */
export interface Sender {
  name: string;
  state: string;
  newestMs: number | null;
  guestHeapBytes: number | null;
  answersPerSecond: number | null;
  logErrors: number | null;
}

/** One published port. */
export interface PortMap {
  hostPort: number;
  guestPort: number;
  protocol: string;
}

/** What a VM may use of the host; 0 is no limit. */
export interface Limits {
  cpuShares: number;
  memoryMax: number;
  diskIops: number;
  diskBps: number;
}

/** What is known about one VM apart from its curves. */
export interface VmDetail {
  id: string;
  name: string;
  state: string;
  health: string;
  image: string;
  memory: string;
  cpus: number | null;
  restartPolicy: string;
  restartCount: number | null;
  createdAt: string;
  startedAt: string;
  stoppedAt: string;
  ipAddress: string;
  gatewayIp: string;
  /** `KEY=VALUE` each; the daemon covers what looks like a secret. */
  env: string[];
  ports: PortMap[];
  machine: string;
  accelerator: string;
  args: string[];
  daemonRecovered: boolean;
  /** How the last run ended, or empty. */
  exit: string;
  limits: Limits;
}

/** The newest measured figures of one VM. */
export interface Stats {
  cpuPercent: number | null;
  memoryBytes: number | null;
  receivedBytes: number | null;
  sentBytes: number | null;
  source: string;
}

/** One point: key of its curve, milliseconds since the Unix epoch, value. */
export type Point = readonly [key: string, timeMs: number, value: number];

/** Something that happened to the VM. */
export interface Mark {
  timeMs: number;
  event: string;
  text: string;
}

/** The curves of one VM over a span of time; absent figures are already left out. */
export interface Charts {
  fromMs: number;
  toMs: number;
  stepMs: number;
  series: Map<string, { times: number[]; values: number[] }>;
  marks: Mark[];
}

/** A source of the guest's and what is in force for it. */
export type SourceState = readonly [source: string, state: string];

/** What the guest says is in force; `*` is the default. */
export interface Control {
  logs: SourceState[];
  metrics: SourceState[];
  /** Why both are empty, or empty. */
  error: string;
  /** The guest tells only who gives its own token. */
  needsToken: boolean;
  /** The daemon lets the page change it. */
  canChange: boolean;
}

/** A piece of console; `from` and `next` are positions in bytes since the VM was created. */
export interface ConsoleChunk {
  from: number;
  next: number;
  text: string;
}

/** An object of unknown shape. */
export type Fields = Record<string, unknown>;

/** An object's fields; none of what is no object. */
export function fields(value: unknown): Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Fields) : {};
}

/** An array's entries; none of what is no array. */
export function list(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

/** A text; empty for what is none. */
export function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

/** A finite number, or nothing. */
export function number(value: unknown): number | null {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

function overviewVm(value: unknown): OverviewVm {
  const from = fields(value);
  return {
    id: text(from["id"]),
    name: text(from["name"]),
    state: text(from["state"]),
    health: text(from["health"]),
    image: text(from["image"]),
    cpuPercent: number(from["cpu_pct"]),
    memoryBytes: number(from["mem_bytes"]),
    guestHeapBytes: number(from["guest_heap_bytes"]),
    receivedBitsPerSecond: number(from["net_rx_bps"]),
    sentBitsPerSecond: number(from["net_tx_bps"]),
    startedAt: text(from["started_at"]),
  };
}

function sender(value: unknown): Sender {
  const from = fields(value);
  return {
    name: text(from["name"]),
    state: text(from["state"]),
    newestMs: number(from["newest_ms"]),
    guestHeapBytes: number(from["guest_heap_bytes"]),
    answersPerSecond: number(from["http_2xx_per_second"]),
    logErrors: number(from["log_errors"]),
  };
}

/** The overview; a VM without an id is left out, and so is a sender without a name. */
export function decodeOverview(value: unknown): Overview {
  const from = fields(value);
  const vms = list(from["vms"]).map(overviewVm);
  const senders = list(from["senders"]).map(sender);
  return {
    version: text(from["version"]),
    vms: vms.filter((vm) => vm.id !== ""),
    senders: senders.filter(({ name }) => name !== ""),
  };
}

function portMap(value: unknown): PortMap {
  const from = fields(value);
  return {
    hostPort: number(from["host_port"]) ?? 0,
    guestPort: number(from["guest_port"]) ?? 0,
    protocol: text(from["protocol"]) || "tcp",
  };
}

function limits(value: unknown): Limits {
  const from = fields(value);
  return {
    cpuShares: number(from["cpu_shares"]) ?? 0,
    memoryMax: number(from["memory_max"]) ?? 0,
    diskIops: number(from["disk_iops"]) ?? 0,
    diskBps: number(from["disk_bps"]) ?? 0,
  };
}

/** A VM's detail. */
export function decodeVmDetail(value: unknown): VmDetail {
  const from = fields(value);
  return {
    id: text(from["id"]),
    name: text(from["name"]),
    state: text(from["state"]),
    health: text(from["health"]),
    image: text(from["image"]),
    memory: text(from["memory"]),
    cpus: number(from["cpus"]),
    restartPolicy: text(from["restart_policy"]),
    restartCount: number(from["restart_count"]),
    createdAt: text(from["created_at"]),
    startedAt: text(from["started_at"]),
    stoppedAt: text(from["stopped_at"]),
    ipAddress: text(from["ip_address"]),
    gatewayIp: text(from["gateway_ip"]),
    env: list(from["env"]).map(text),
    ports: list(from["ports"]).map(portMap),
    machine: text(from["machine"]),
    accelerator: text(from["accelerator"]),
    args: list(from["args"]).map(text),
    daemonRecovered: from["daemon_recovered"] === true,
    exit: text(from["exit"]),
    limits: limits(from["limits"]),
  };
}

/** A VM's newest figures. */
export function decodeStats(value: unknown): Stats {
  const from = fields(value);
  return {
    cpuPercent: number(from["cpu_pct"]),
    memoryBytes: number(from["mem_bytes"]),
    receivedBytes: number(from["net_rx_bytes"]),
    sentBytes: number(from["net_tx_bytes"]),
    source: text(from["source"]),
  };
}

/** A lifecycle mark, or nothing when it has no time. */
export function decodeMark(value: unknown): Mark | undefined {
  const from = fields(value);
  const timeMs = number(from["time"]);
  return timeMs === null ? undefined : { timeMs, event: text(from["event"]), text: text(from["text"]) };
}

function curve(value: unknown): { times: number[]; values: number[] } {
  const from = fields(value);
  const values = list(from["values"]);
  const kept: { times: number[]; values: number[] } = { times: [], values: [] };
  list(from["times"]).forEach((time, index) => {
    const timeMs = number(time);
    const figure = number(values[index]);
    if (timeMs === null || figure === null) return;
    kept.times.push(timeMs);
    kept.values.push(figure);
  });
  return kept;
}

/** The curves; nulls are dropped here, gaps are found again from the distances. */
export function decodeCharts(value: unknown): Charts {
  const from = fields(value);
  const series = new Map<string, { times: number[]; values: number[] }>();
  for (const [key, points] of Object.entries(fields(from["series"]))) series.set(key, curve(points));
  const marks = list(from["marks"]).map(decodeMark);
  return {
    fromMs: number(from["from"]) ?? 0,
    toMs: number(from["to"]) ?? 0,
    stepMs: Math.max(1, number(from["step"]) ?? 1000),
    series,
    marks: marks.filter((mark) => mark !== undefined),
  };
}

/** New points; a malformed one is left out, its neighbours stay. */
export function decodePoints(value: unknown): Point[] {
  const points: Point[] = [];
  for (const entry of list(fields(value)["points"])) {
    const [key, time, figure] = list(entry);
    const timeMs = number(time);
    const size = number(figure);
    if (typeof key === "string" && timeMs !== null && size !== null) points.push([key, timeMs, size]);
  }
  return points;
}

/** What the guest says is in force; a source without a name or a state is left out. */
export function decodeControl(value: unknown): Control {
  const from = fields(value);
  const states = (entries: unknown, key: string): SourceState[] =>
    list(entries)
      .map((entry): SourceState => [text(fields(entry)["source"]), text(fields(entry)[key])])
      .filter(([source, state]) => source !== "" && state !== "");
  return {
    logs: states(from["logs"], "level"),
    metrics: states(from["metrics"], "state"),
    error: text(from["error"]),
    needsToken: from["needs_token"] === true,
    canChange: from["can_change"] === true,
  };
}

/** Why the daemon refused a request, or empty. */
export function decodeRefusal(value: unknown): string {
  return text(fields(value)["error"]);
}

/** A change of state. */
export function decodeState(value: unknown): { state: string; health: string } {
  const from = fields(value);
  return { state: text(from["state"]), health: text(from["health"]) };
}

/** A piece of console. */
export function decodeConsole(value: unknown): ConsoleChunk {
  const from = fields(value);
  return { from: number(from["from"]) ?? 0, next: number(from["next"]) ?? 0, text: text(from["text"]) };
}
