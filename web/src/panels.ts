// Owns what is charted: the curves of each chart, their names, colours, units, and the hint while there is nothing.

import { formatBitRate, formatBytes, formatCount, formatPercent, formatPerSecond } from "./format.ts";
import { librariesPanel } from "./libraries.ts";
import type { Merge } from "./ring.ts";

/** One curve of a chart. */
export interface CurveSpec {
  /** Key under which the daemon sends it. */
  key: string;
  label: string;
  /** Variable of the style sheet. */
  color: string;
}

/** One chart. */
export interface PanelSpec {
  id: string;
  title: string;
  /** What the figures mean, for the pointer and for screen readers. */
  about: string;
  curves: CurveSpec[];
  format: (value: number) => string;
  /** The scale reaches at least this far, so that noise near zero does not look like a mountain. */
  floor: number;
  /** Ticks at powers of two, or only at whole numbers. */
  ticks?: "binary" | "whole";
  /** The curves lie on each other: the first is on top, and what it reaches is what all have together. */
  stacked?: boolean;
  /** Why there may be nothing to see yet. */
  hint: string;
}

const GUEST_HINT = "a guest that links uni-guest reports within its interval (10 s by default)";

/** The links a VM may have, the one that carries its service first. */
export const DEFAULT_LINK = "service";

/** Curves of the network chart for one link. */
export function networkCurves(link: string): CurveSpec[] {
  return [
    { key: `net_rx_bps:${link}`, label: "in", color: "receive" },
    { key: `net_tx_bps:${link}`, label: "out", color: "send" },
  ];
}

/** The charts, from top to bottom. */
export function panels(): PanelSpec[] {
  return [
    {
      id: "cpu",
      title: "CPU",
      about: "CPU time of the VM's process; 100 % is one core of the host",
      curves: [{ key: "cpu_pct", label: "host", color: "cpu" }],
      format: formatPercent,
      floor: 2,
      hint: "the first sample comes within 2 s of a start",
    },
    {
      id: "memory",
      title: "Memory",
      about: "Resident memory of the VM's process outside, beside the heap as the guest counts it inside",
      curves: [
        { key: "host_memory_bytes", label: "host resident", color: "memory" },
        { key: "guest_heap_bytes", label: "guest heap", color: "heap" },
        { key: "guest_live_bytes", label: "guest live", color: "livewords" },
      ],
      format: formatBytes,
      floor: 1 << 20,
      ticks: "binary",
      hint: `the host's side comes within 2 s of a start; ${GUEST_HINT}`,
    },
    librariesPanel("Live bytes by library in the guest, stacked, as the guest estimates them from samples"),
    {
      id: "network",
      title: "Network",
      about: "Bits per second on the chosen link, counted at the link; in is what the VM receives",
      curves: networkCurves(DEFAULT_LINK),
      format: formatBitRate,
      floor: 1000,
      hint: "the link is counted from its second sample on",
    },
    {
      id: "http",
      title: "HTTP responses",
      about: "Responses per second by status class, as the guest counts them",
      curves: [
        { key: "http_2xx", label: "2xx", color: "ok" },
        { key: "http_3xx", label: "3xx", color: "moved" },
        { key: "http_4xx", label: "4xx", color: "warn" },
        { key: "http_5xx", label: "5xx", color: "bad" },
      ],
      format: formatPerSecond,
      floor: 1,
      hint: "a guest that counts http_response shows here",
    },
    {
      id: "logs",
      title: "Log lines",
      about: "Errors and warnings since the guest booted, as the guest counts them",
      curves: [
        { key: "log_errors", label: "errors", color: "bad" },
        { key: "log_warnings", label: "warnings", color: "warn" },
      ],
      format: formatCount,
      floor: 4,
      ticks: "whole",
      hint: GUEST_HINT,
    },
  ];
}

/** How points of a curve that fall into one step are joined. */
export function mergeOf(key: string): Merge {
  return key.startsWith("log_") ? "last" : "mean";
}

/** True for curves that the daemon itself measures: their times are the daemon's clock. */
export function isHostKey(key: string): boolean {
  return key === "cpu_pct" || key === "host_memory_bytes";
}

/** The link a key belongs to, if it is one of the network's. */
export function linkOf(key: string): string | undefined {
  return key.startsWith("net_rx_bps:") ? key.slice("net_rx_bps:".length) : undefined;
}
