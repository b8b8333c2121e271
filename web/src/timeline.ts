// Owns which span of time all charts show: the newest so-and-so many minutes, or a zoomed span.
// Pure: the clock comes in from outside.

/** A span of time, milliseconds since the Unix epoch. */
export interface Span {
  fromMs: number;
  toMs: number;
}

/** The ranges one can choose, seconds by their label. */
export const RANGES: readonly (readonly [label: string, seconds: number])[] = [
  ["5m", 300],
  ["15m", 900],
  ["1h", 3600],
  ["6h", 21_600],
];

const LEAST_ZOOM_MS = 2_000;
/** Points of one curve beyond which more would only be more pixels than a screen has. */
const MOST_POINTS = 1_500;

/** What is shown: `zoom` is set while the reader looks at a fixed span. */
export class Timeline {
  rangeMs: number;
  zoom: Span | undefined;
  /** The daemon's clock minus the browser's. */
  #skewMs = 0;
  #newestMs = 0;

  constructor(rangeMs: number) {
    this.rangeMs = rangeMs;
  }

  /** Learns the daemon's clock from an answer that was just made. */
  learnClock(daemonMs: number, browserMs: number): void {
    this.#skewMs = daemonMs - browserMs;
    this.#newestMs = daemonMs;
  }

  /** A point was just measured by the daemon: its clock is at least this far. */
  sawPoint(timeMs: number): void {
    if (timeMs > this.#newestMs) this.#newestMs = timeMs;
  }

  /** The daemon's now. */
  nowMs(browserMs: number): number {
    return Math.max(browserMs + this.#skewMs, this.#newestMs);
  }

  /** The span to draw. */
  span(browserMs: number): Span {
    if (this.zoom !== undefined) return this.zoom;
    const toMs = this.nowMs(browserMs);
    return { fromMs: toMs - this.rangeMs, toMs };
  }

  /** Looks at a fixed span, never shorter than two seconds nor wider than the chosen range. */
  zoomTo(fromMs: number, toMs: number): void {
    const middle = (fromMs + toMs) / 2;
    const half = Math.min(this.rangeMs, Math.max(LEAST_ZOOM_MS, Math.abs(toMs - fromMs))) / 2;
    this.zoom = { fromMs: middle - half, toMs: middle + half };
  }

  /** Zooms around a moment by a factor; all the way out means live again. */
  zoomBy(factor: number, aroundMs: number, browserMs: number): void {
    const { fromMs, toMs } = this.span(browserMs);
    if ((toMs - fromMs) * factor >= this.rangeMs) {
      this.zoom = undefined;
      return;
    }
    this.zoomTo(aroundMs - (aroundMs - fromMs) * factor, aroundMs + (toMs - aroundMs) * factor);
  }
}

/** Distance of the points to keep for a range: the daemon's, or coarser if a screen cannot show them. */
export function displayStepMs(rangeMs: number, daemonStepMs: number): number {
  const factor = Math.max(1, Math.ceil(rangeMs / (daemonStepMs * MOST_POINTS)));
  return daemonStepMs * factor;
}

/** Room for the range and a tenth more. */
export function ringCapacity(rangeMs: number, stepMs: number): number {
  return Math.ceil((rangeMs * 1.1) / stepMs) + 2;
}
