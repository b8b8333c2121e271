// Owns the charts of one VM on one time axis: their data, the common span and the common crosshair.

import { Chart } from "./chart.ts";
import type { Charts, Mark, Point } from "./decode.ts";
import { DEFAULT_LINK, isHostKey, linkOf, mergeOf, networkCurves, panels } from "./panels.ts";
import type { Libraries } from "./decode-heap.ts";
import { LibraryCurves } from "./libraries.ts";
import { Ring } from "./ring.ts";
import { onSchemeChange } from "./theme.ts";
import { displayStepMs, ringCapacity, Timeline } from "./timeline.ts";

/** More curves than this are not kept: the keys come from outside. */
const MOST_CURVES = 64;
const MOST_MARKS = 200;
/** Points that may have arrived while the past was being fetched. */
const MOST_RECENT = 600;
/** A guest whose clock is farther ahead than this would push everything else out. */
const MOST_AHEAD_MS = 300_000;
const KEY_MOVE_PX = 1 / 100;
/** Whoever moves the pointer further while it is pressed drags. */
const CLICK_PX = 4;

/** The charts and what they show. */
export class Stack {
  readonly timeline: Timeline;
  readonly charts: Chart[];
  marks: Mark[] = [];
  /** The moment under the crosshair changed. */
  onMoment: (timeMs: number | undefined) => void = () => {};
  /** A moment was chosen: a click, or Enter at the crosshair. */
  onChosen: (timeMs: number) => void = () => {};
  /** The span became fixed or live. */
  onSpan: () => void = () => {};
  /** The links of the network are known. */
  onLinks: (links: string[]) => void = () => {};
  #rings = new Map<string, Ring>();
  #recent: Point[] = [];
  readonly #libraries = new LibraryCurves();
  #stepMs = 1000;
  #momentMs: number | undefined;
  #links = "";
  #frameAsked = false;

  constructor(root: HTMLElement, rangeMs: number) {
    this.timeline = new Timeline(rangeMs);
    const specs = panels();
    this.charts = specs.map((spec, index) => {
      const place = { first: index === 0, last: index === specs.length - 1 };
      return new Chart(spec, place, () => this.marks, {
        moved: (timeMs) => this.#moved(timeMs),
        zoomed: (fromMs, toMs) => this.zoomTo(fromMs, toMs),
        back: () => this.live(),
      });
    });
    root.append(...this.charts.map((chart) => chart.root));
    root.addEventListener("keydown", (event) => this.#key(event));
    let pressedX = 0;
    root.addEventListener("pointerdown", (event) => (pressedX = event.clientX), { capture: true });
    root.addEventListener("click", (event) => {
      const isDrag = Math.abs(event.clientX - pressedX) > CLICK_PX;
      if (!isDrag && event.target instanceof Element && event.target.closest(".plot") !== null) this.#choose();
    });
    onSchemeChange(() => {
      for (const chart of this.charts) chart.redraw();
    });
  }

  /** Replaces everything by what the daemon has for the range; newer points that arrived meanwhile stay. */
  load(charts: Charts, browserMs: number): void {
    this.timeline.learnClock(charts.toMs, browserMs);
    this.#stepMs = displayStepMs(this.timeline.rangeMs, charts.stepMs);
    this.#rings = new Map();
    for (const [key, curve] of charts.series) {
      const ring = this.#ring(key);
      curve.times.forEach((time, index) => ring?.push(time, curve.values[index] as number));
    }
    const since = charts.toMs - this.#stepMs;
    for (const [key, time, value] of this.#recent) if (time > since) this.#ring(key)?.push(time, value);
    this.marks = charts.marks.slice(-MOST_MARKS);
    this.#announceLinks();
    this.draw();
  }

  /** Replaces what the libraries hold. */
  loadLibraries(libraries: Libraries): void {
    const changed = this.#libraries.update(libraries, this.#stepMs);
    if (changed) this.charts.find((chart) => chart.spec.id === "libraries")?.setCurves(this.#libraries.curves);
    this.draw();
  }

  /** Takes points as they are measured. */
  add(points: readonly Point[], browserMs: number): void {
    const latest = this.timeline.nowMs(browserMs) + MOST_AHEAD_MS;
    for (const point of points) {
      const [key, time, value] = point;
      if (time > latest) continue;
      if (isHostKey(key)) this.timeline.sawPoint(time);
      this.#ring(key)?.push(time, value);
      this.#recent.push(point);
    }
    if (this.#recent.length > MOST_RECENT) this.#recent = this.#recent.slice(-MOST_RECENT / 2);
    this.#announceLinks();
    this.draw();
  }

  /** Takes a lifecycle mark; the same one again (after a reconnection) changes nothing. */
  addMark(mark: Mark): void {
    const known = this.marks.some((other) => other.timeMs === mark.timeMs && other.event === mark.event);
    if (known) return;
    this.marks.push(mark);
    this.marks.sort((a, b) => a.timeMs - b.timeMs);
    this.marks = this.marks.slice(-MOST_MARKS);
    this.draw();
  }

  /** Looks at a fixed span. */
  zoomTo(fromMs: number, toMs: number): void {
    this.timeline.zoomTo(fromMs, toMs);
    this.#spanChanged();
  }

  /** Back to the newest points. */
  live(): void {
    this.timeline.zoom = undefined;
    this.#spanChanged();
  }

  /** Shows another link in the network chart. */
  chooseLink(link: string): void {
    this.charts.find((chart) => chart.spec.id === "network")?.setCurves(networkCurves(link));
    this.draw();
  }

  /** Draws all charts at the browser's next frame; many calls become one drawing, a hidden tab draws nothing. */
  draw(): void {
    if (this.#frameAsked) return;
    this.#frameAsked = true;
    requestAnimationFrame(() => {
      this.#frameAsked = false;
      this.#drawNow();
    });
  }

  #drawNow(): void {
    const span = this.timeline.span(Date.now());
    const keepFrom = Math.min(span.fromMs, this.timeline.nowMs(Date.now()) - this.timeline.rangeMs) - this.#stepMs * 3;
    for (const ring of this.#rings.values()) ring.dropBefore(keepFrom);
    for (const chart of this.charts) {
      const rings = chart.spec.id === "libraries" ? this.#libraries.rings : this.#rings;
      chart.draw({ rings, span, stepMs: this.#stepMs });
      chart.showFigures(this.#momentMs);
    }
  }

  #ring(key: string): Ring | undefined {
    const known = this.#rings.get(key);
    if (known !== undefined || this.#rings.size >= MOST_CURVES) return known;
    const made = new Ring(ringCapacity(this.timeline.rangeMs, this.#stepMs), this.#stepMs, mergeOf(key));
    this.#rings.set(key, made);
    return made;
  }

  #announceLinks(): void {
    const links = [...this.#rings.keys()].map(linkOf).filter((link) => link !== undefined);
    if (!links.includes(DEFAULT_LINK)) links.push(DEFAULT_LINK);
    links.sort((a, b) => Number(b === DEFAULT_LINK) - Number(a === DEFAULT_LINK) || a.localeCompare(b));
    const together = links.join("\n");
    if (together === this.#links) return;
    this.#links = together;
    this.onLinks(links);
  }

  #spanChanged(): void {
    this.onSpan();
    this.draw();
  }

  #moved(timeMs: number | undefined): void {
    if (timeMs === this.#momentMs) return;
    this.#momentMs = timeMs;
    for (const chart of this.charts) chart.showFigures(timeMs);
    this.onMoment(timeMs);
  }

  #key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.target instanceof HTMLElement)) return;
    if (!event.target.classList.contains("plot")) return;
    const { fromMs, toMs } = this.timeline.span(Date.now());
    const step = (toMs - fromMs) * KEY_MOVE_PX * (event.shiftKey ? 10 : 1);
    const atMs = Math.min(toMs, Math.max(fromMs, this.#momentMs ?? toMs));
    if (event.key === "ArrowLeft") this.#crosshair(Math.max(fromMs, atMs - step));
    else if (event.key === "ArrowRight") this.#crosshair(Math.min(toMs, atMs + step));
    else if (event.key === "Home") this.#crosshair(fromMs);
    else if (event.key === "End") this.#crosshair(toMs);
    else if (event.key === "+" || event.key === "=") this.#zoomBy(1 / 2, atMs);
    else if (event.key === "-") this.#zoomBy(2, atMs);
    else if (event.key === "Enter") this.#choose();
    else return;
    event.preventDefault();
  }

  #zoomBy(factor: number, aroundMs: number): void {
    this.timeline.zoomBy(factor, aroundMs, Date.now());
    this.#spanChanged();
  }

  #choose(): void {
    if (this.#momentMs !== undefined) this.onChosen(this.#momentMs);
  }

  /** Puts the crosshair of every chart at a moment that is seen. */
  show(timeMs: number): void {
    const { fromMs, toMs } = this.timeline.span(Date.now());
    this.#crosshair(timeMs >= fromMs && timeMs <= toMs ? timeMs : undefined);
  }

  /** Puts the crosshair of every chart at a moment; none takes it away. */
  #crosshair(timeMs: number | undefined): void {
    for (const chart of this.charts) chart.placeCrosshair(timeMs);
    this.#moved(timeMs);
  }

  /** Takes the crosshair away. */
  clearCrosshair(): void {
    this.#crosshair(undefined);
  }
}
