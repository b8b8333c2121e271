// Owns the requests to the daemon: addresses, deadlines, the event streams and their return after a loss.
// Never draws; what arrives is checked in decode.ts.

import {
  type Charts,
  type ConsoleChunk,
  type Control,
  decodeCharts,
  decodeConsole,
  decodeControl,
  decodeOverview,
  decodeRefusal,
  decodeStats,
  decodeVmDetail,
  fields,
  type Overview,
  type Stats,
  text,
  type VmDetail,
} from "./decode.ts";
import { decodeFlame, decodeLibraries, decodeTraces, type Flame, type Libraries, type Traces } from "./decode-heap.ts";

const API = "/ui/api";
const DEADLINE_MS = 10_000;
const RETRY_MS = 2_000;
const MOST_RETRY_MS = 16_000;
/** A browser has six connections to one origin: tabs that nobody looks at give theirs back. */
const HIDDEN_MS = 30_000;

/** As long as the daemon gives a guest to answer, and a little more. */
const CHANGE_DEADLINE_MS = 30_000;

/** The daemon's token is wanted, or another one. */
export class TokenWanted extends Error {}

/** A change of what a guest logs or measures; without `spec` only shown. */
export interface ControlChange {
  kind: "logs" | "metrics";
  spec?: string;
  for_seconds?: number;
  token?: string;
}

/** The daemon has no VM of this name. */
export class VmNotFound extends Error {}

async function fetchJson(path: string): Promise<unknown> {
  const answer = await fetch(`${API}${path}`, { signal: AbortSignal.timeout(DEADLINE_MS), cache: "no-store" });
  if (answer.status === 404) throw new VmNotFound("vm not found");
  if (!answer.ok) throw new Error(`the daemon answered ${answer.status} to ${path}`);
  return answer.json();
}

function vmPath(vm: string): string {
  return `/vm/${encodeURIComponent(vm)}`;
}

/** All VMs, once. */
export async function fetchOverview(): Promise<Overview> {
  return decodeOverview(await fetchJson("/overview"));
}

/** One VM without its curves. */
export async function fetchVm(vm: string): Promise<VmDetail> {
  return decodeVmDetail(await fetchJson(vmPath(vm)));
}

/** One VM's newest figures. */
export async function fetchStats(vm: string): Promise<Stats> {
  return decodeStats(await fetchJson(`${vmPath(vm)}/stats`));
}

/** What one VM's guest logs and measures, asked of the guest itself. */
export async function fetchControl(vm: string): Promise<Control> {
  return decodeControl(await fetchJson(`${vmPath(vm)}/control`));
}

/**
 * Changes what one VM's guest logs or measures. The daemon's token goes in a header that no other site's page can set,
 * and what the browser knows by itself stays out of it; a refusal is the daemon's own words.
 */
export async function postControl(vm: string, change: ControlChange, daemonToken: string): Promise<Control> {
  return decodeControl(await post(`${vmPath(vm)}/control`, change, daemonToken));
}

async function post(path: string, body: object, daemonToken: string): Promise<unknown> {
  const answer = await fetch(`${API}${path}`, {
    method: "POST",
    headers: { authorization: `Bearer ${daemonToken}`, "content-type": "application/json" },
    body: JSON.stringify(body),
    credentials: "omit",
    cache: "no-store",
    signal: AbortSignal.timeout(CHANGE_DEADLINE_MS),
  });
  if (answer.status === 401) throw new TokenWanted("the daemon does not take this token");
  if (answer.ok) return answer.json();
  throw new Error(await whyNot(answer));
}

/** The daemon's own words for a refusal. */
async function whyNot(answer: Response): Promise<string> {
  const why = decodeRefusal(await answer.json().catch(() => null));
  return why === "" ? `the daemon answered ${answer.status}` : why;
}

/** Live bytes by library over the last `seconds`: of one VM, or of all together. */
export async function fetchLibraries(vm: string | undefined, seconds: number): Promise<Libraries> {
  return decodeLibraries(await fetchJson(`${vm === undefined ? "" : vmPath(vm)}/libraries?seconds=${seconds}`));
}

/** The heap traces of one VM that are kept. */
export async function fetchTraces(vm: string): Promise<Traces> {
  return decodeTraces(await fetchJson(`${vmPath(vm)}/traces`));
}

/** What is drawn of a trace: all of it up to a moment, without what lived shorter; in seconds. */
export interface FlameView {
  at?: number;
  minLifetime?: number;
}

/** The flame graph of a trace. */
export async function fetchFlame(vm: string, trace: string, { at, minLifetime }: FlameView): Promise<Flame> {
  const query = new URLSearchParams();
  if (at !== undefined) query.set("at", String(at));
  if (minLifetime !== undefined) query.set("min_lifetime", String(minLifetime));
  const path = `${vmPath(vm)}/traces/${encodeURIComponent(trace)}/flame?${query}`;
  const answer = await fetch(`${API}${path}`, { signal: AbortSignal.timeout(CHANGE_DEADLINE_MS), cache: "no-store" });
  if (!answer.ok) throw new Error(await whyNot(answer));
  const flame = decodeFlame(await answer.json());
  if (flame === undefined) throw new Error("the daemon's answer is no tree");
  return flame;
}

/** Takes a heap trace of one VM for some seconds; answers its name. The token goes as in {@link postControl}. */
export async function postTrace(vm: string, seconds: number, daemonToken: string): Promise<string> {
  return text(fields(await post(`${vmPath(vm)}/traces`, { for_seconds: seconds }, daemonToken))["name"]);
}

/** One VM's curves over the last `seconds`. */
export async function fetchCharts(vm: string, seconds: number): Promise<Charts> {
  return decodeCharts(await fetchJson(`${vmPath(vm)}/charts?seconds=${seconds}`));
}

/** The newest `bytes` of one VM's console. */
export async function fetchConsole(vm: string, bytes: number): Promise<ConsoleChunk> {
  return decodeConsole(await fetchJson(`${vmPath(vm)}/console?tail=${bytes}`));
}

/** What a stream tells about itself: first answer, loss, return. */
export type StreamStatus = "open" | "lost" | "reopened";

/** What to do with each kind of event; the argument is the parsed JSON, unchecked. */
export type StreamHandlers = Record<string, (data: unknown) => void>;

/**
 * Follows an event stream for the life of the page. The browser reconnects by itself unless it was refused;
 * then it is tried again here, ever more slowly. A hidden page lets go and returns when it is seen again.
 */
function follow(path: string, handlers: StreamHandlers, onStatus: (status: StreamStatus) => void): void {
  let source: EventSource | undefined;
  let opened = false;
  let retryMs = RETRY_MS;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const connect = (): void => {
    source?.close();
    source = new EventSource(`${API}${path}`);
    source.onopen = () => {
      retryMs = RETRY_MS;
      onStatus(opened ? "reopened" : "open");
      opened = true;
    };
    source.onerror = () => {
      onStatus("lost");
      if (source?.readyState !== EventSource.CLOSED) return;
      clearTimeout(timer);
      timer = setTimeout(connect, retryMs);
      retryMs = Math.min(retryMs * 2, MOST_RETRY_MS);
    };
    for (const [event, handle] of Object.entries(handlers)) {
      source.addEventListener(event, (message) => handle(parse(message)));
    }
  };
  const letGo = (): void => {
    source?.close();
    source = undefined;
  };
  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    if (document.hidden) timer = setTimeout(letGo, HIDDEN_MS);
    else if (source === undefined || source.readyState === EventSource.CLOSED) connect();
  });
  connect();
}

function parse(message: MessageEvent<unknown>): unknown {
  try {
    return JSON.parse(String(message.data));
  } catch {
    return null;
  }
}

/** Follows the overview of all VMs. */
export function followOverview(onOverview: (overview: Overview) => void, onStatus: (status: StreamStatus) => void): void {
  follow("/overview/stream", { overview: (data) => onOverview(decodeOverview(data)) }, onStatus);
}

/** Follows one VM: points, marks, state, console. */
export function followVm(vm: string, handlers: StreamHandlers, onStatus: (status: StreamStatus) => void): void {
  follow(`${vmPath(vm)}/stream`, handlers, onStatus);
}
