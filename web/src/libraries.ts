// Owns which curve and which colour a library has in a stacked chart, and keeps both while it is there.

import type { Libraries } from "./decode-heap.ts";
import { formatBytes, visibleLine } from "./format.ts";
import type { CurveSpec, PanelSpec } from "./panels.ts";
import { Ring } from "./ring.ts";

/** Colours of the style sheet: `--lib0` and on. */
const COLORS = 9;
const OTHERS = "(others)";

/** A chart without libraries yet. */
export function librariesPanel(about: string): PanelSpec {
  return {
    id: "libraries",
    title: "Heap by library",
    about,
    curves: [],
    stacked: true,
    format: formatBytes,
    floor: 1 << 16,
    ticks: "binary",
    hint: "a guest whose heap uni-guest samples reports within its interval (10 s by default)",
  };
}

/** The curves of the libraries that there are. */
export class LibraryCurves {
  curves: CurveSpec[] = [];
  rings = new Map<string, Ring>();

  /** Takes what there is now; true when the curves are others than before. */
  update(of: Libraries, stepMs: number): boolean {
    this.rings = new Map();
    for (const { name, bytes } of of.libraries) {
      const ring = new Ring(of.times.length + 1, stepMs, "last");
      of.times.forEach((time, index) => ring.push(time, bytes[index] as number));
      this.rings.set(keyOf(name), ring);
    }
    const known = this.curves.filter(({ key }) => this.rings.has(key) && key !== keyOf(OTHERS));
    const old = new Set(known.map(({ key }) => key));
    for (const { name } of of.libraries) {
      if (name !== OTHERS && !old.has(keyOf(name))) known.push({ key: keyOf(name), label: visibleLine(name), color: freeColor(known) });
    }
    if (this.rings.has(keyOf(OTHERS))) known.push({ key: keyOf(OTHERS), label: OTHERS, color: "dim" });
    const changed = known.map(({ key }) => key).join("\n") !== this.curves.map(({ key }) => key).join("\n");
    if (changed) this.curves = known;
    return changed;
  }
}

function keyOf(library: string): string {
  return `library:${library}`;
}

function freeColor(taken: readonly CurveSpec[]): string {
  for (let color = 0; color < COLORS; color += 1) {
    if (!taken.some((curve) => curve.color === `lib${color}`)) return `lib${color}`;
  }
  return "dim";
}
