// Owns the shapes of what the daemon tells of heaps: libraries over time, kept traces, flame graphs; and their checking.

import { fields, list, number, text } from "./decode.ts";
import { visibleLine } from "./format.ts";

/** More libraries than this are not drawn. */
const MOST_LIBRARIES = 16;
/** More boxes than this are not drawn. */
const MOST_BOXES = 30_000;

/** Live bytes by library, at common moments; the largest library first. */
export interface Libraries {
  fromMs: number;
  toMs: number;
  stepMs: number;
  times: number[];
  libraries: { name: string; bytes: number[] }[];
}

/** A heap trace that the daemon keeps. */
export interface Trace {
  name: string;
  startedMs: number;
  bytes: number;
  running: boolean;
  /** How it ended, or empty. */
  end: string;
}

/** The traces of one VM, the newest first. */
export interface Traces {
  traces: Trace[];
  canTake: boolean;
}

/** A function under its callers. */
export interface FlameBox {
  name: string;
  file: string;
  library: string;
  allocated: number;
  live: number;
  children: number[];
}

/** A flame graph as its script takes it. */
export interface Flame {
  title: string;
  running: boolean;
  durationSeconds: number;
  nodes: FlameBox[];
}

/** Libraries over time; one whose values do not fit the moments is left out. */
export function decodeLibraries(value: unknown): Libraries {
  const from = fields(value);
  const times = list(from["times"]).map(number);
  const whole = times.every((time) => time !== null) ? (times as number[]) : [];
  const libraries = list(from["libraries"]).map((entry) => {
    const bytes = list(fields(entry)["bytes"]).map((figure) => number(figure) ?? 0);
    return { name: text(fields(entry)["library"]), bytes };
  });
  return {
    fromMs: number(from["from"]) ?? 0,
    toMs: number(from["to"]) ?? 0,
    stepMs: Math.max(1, number(from["step"]) ?? 1000),
    times: whole,
    libraries: libraries.filter(({ bytes }) => bytes.length === whole.length).slice(0, MOST_LIBRARIES),
  };
}

/** The traces of one VM; one without a name is left out. */
export function decodeTraces(value: unknown): Traces {
  const from = fields(value);
  const traces = list(from["traces"]).map((entry): Trace => {
    const trace = fields(entry);
    return {
      name: text(trace["name"]),
      startedMs: number(trace["started_ms"]) ?? 0,
      bytes: number(trace["bytes"]) ?? 0,
      running: trace["running"] === true,
      end: text(fields(trace["end"])["why"]),
    };
  });
  return { traces: traces.filter(({ name }) => name !== ""), canTake: from["can_take"] === true };
}

/** A flame graph; nothing if it is no tree: a child must come after its parent, and have one. */
export function decodeFlame(value: unknown): Flame | undefined {
  const from = fields(value);
  const entries = list(from["nodes"]);
  if (entries.length === 0 || entries.length > MOST_BOXES) return undefined;
  const taken = new Set<number>();
  const isChild = (child: number | null, at: number): child is number => {
    if (child === null || !Number.isInteger(child) || child <= at || child >= entries.length || taken.has(child)) return false;
    taken.add(child);
    return true;
  };
  const nodes = entries.map((entry, at): FlameBox => {
    const box = fields(entry);
    return {
      name: visibleLine(text(box["name"])),
      file: visibleLine(text(box["file"])),
      library: visibleLine(text(box["library"])),
      allocated: number(box["allocated"]) ?? 0,
      live: number(box["live"]) ?? 0,
      children: list(box["children"]).map(number).filter((child) => isChild(child, at)),
    };
  });
  return {
    title: visibleLine(text(from["title"])),
    running: from["running"] === true,
    durationSeconds: number(from["duration_seconds"]) ?? 0,
    nodes,
  };
}
