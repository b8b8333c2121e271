// Owns one small curve without axes: the newest two minutes of one figure.

import { GAP_STEPS } from "./align.ts";
import { Ring } from "./ring.ts";
import { color } from "./theme.ts";

const SPAN_MS = 120_000;
const STEP_MS = 1_000;
/** A pause longer than this breaks the line; the daemon's own interval may be ten seconds. */
const GAP_MS = 10_000 * GAP_STEPS;

/** A curve in a table cell. */
export class Sparkline {
  readonly canvas: HTMLCanvasElement;
  readonly #ring = new Ring(SPAN_MS / STEP_MS + 2, STEP_MS, "last");
  readonly #colorName: string;
  readonly #floor: number;
  #last = "";

  /** `floor` is the least height of the scale, so that a nearly constant zero looks like one. */
  constructor(label: string, colorName: string, floor: number) {
    this.canvas = document.createElement("canvas");
    this.canvas.className = "spark";
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", label);
    this.#colorName = colorName;
    this.#floor = floor;
  }

  /** Adds a point; nothing measured adds nothing. */
  push(timeMs: number, value: number | null): void {
    if (value === null) return;
    this.#ring.push(timeMs, value);
    this.#last = `${timeMs}:${value}`;
  }

  /** Draws the span that ends at `nowMs`. */
  draw(nowMs: number): void {
    this.#ring.dropBefore(nowMs - SPAN_MS);
    this.canvas.dataset["points"] = String(this.#ring.length);
    this.canvas.dataset["last"] = this.#last;
    const ratio = devicePixelRatio || 1;
    const width = Math.round(this.canvas.clientWidth * ratio);
    const height = Math.round(this.canvas.clientHeight * ratio);
    if (this.canvas.width !== width) this.canvas.width = width;
    if (this.canvas.height !== height) this.canvas.height = height;
    const context = this.canvas.getContext("2d");
    if (context === null || width === 0) return;
    context.clearRect(0, 0, width, height);
    this.#stroke(context, nowMs, width, height, ratio);
  }

  #stroke(context: CanvasRenderingContext2D, nowMs: number, width: number, height: number, ratio: number): void {
    const { times, values } = this.#ring;
    let top = this.#floor;
    for (const value of values) if (value > top) top = value;
    const x = (time: number): number => ((time - nowMs + SPAN_MS) / SPAN_MS) * width;
    const y = (value: number): number => height - ratio - (value / top) * (height - 2 * ratio);
    context.strokeStyle = color(this.#colorName);
    context.fillStyle = color(this.#colorName);
    context.lineWidth = 1.25 * ratio;
    for (const [from, to] of runs(times, GAP_MS)) {
      const line = new Path2D();
      for (let i = from; i < to; i += 1) line.lineTo(x(times[i] as number), y(values[i] as number));
      const area = new Path2D(line);
      area.lineTo(x(times[to - 1] as number), height);
      area.lineTo(x(times[from] as number), height);
      context.globalAlpha = 0.14;
      context.fill(area);
      context.globalAlpha = 1;
      context.stroke(line);
    }
  }
}

/** Index ranges `[from, to)` of points with no pause longer than `gapMs` inside. */
function runs(times: ArrayLike<number>, gapMs: number): [number, number][] {
  const found: [number, number][] = [];
  let from = 0;
  for (let i = 1; i <= times.length; i += 1) {
    if (i < times.length && (times[i] as number) - (times[i - 1] as number) <= gapMs) continue;
    found.push([from, i]);
    from = i;
  }
  return found;
}
