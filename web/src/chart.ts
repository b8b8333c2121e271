// Owns one chart: its head with the names and figures of the curves, and the drawing by uPlot.
// Knows nothing of the daemon; the stack hands in rings, the span and the crosshair's moment.

import uPlot from "uplot";
import { type Cell, joinCurves, lonePoints, stackColumns, valueAt } from "./align.ts";
import type { Mark } from "./decode.ts";
import { element, setText } from "./dom.ts";
import { ABSENT, formatAxisTimes } from "./format.ts";
import { marksPlugin } from "./marks.ts";
import type { CurveSpec, PanelSpec } from "./panels.ts";
import type { Ring } from "./ring.ts";
import { color } from "./theme.ts";
import type { Span } from "./timeline.ts";

const PLOT_HEIGHT_PX = 116;
const TIME_AXIS_PX = 22;
/** The same for every chart, or the moments would not lie under each other. */
const VALUE_AXIS_PX = 74;
const TOP_ROOM_PX = 8;
/** Half a time label, so that the newest one is whole. */
const RIGHT_ROOM_PX = 24;
const SYNC_KEY = "uni";
const BINARY_TICKS = Array.from({ length: 50 }, (_, power) => 2 ** power);
const WHOLE_TICKS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 5e4, 1e5, 5e5, 1e6, 1e7, 1e8, 1e9];
const CROSSHAIR_EVENTS = new Set(["mousemove", "mouseenter", "mouseleave"]);

/** What a chart tells its stack. */
export interface ChartEvents {
  /** The crosshair was moved to a moment, or left. */
  moved: (timeMs: number | undefined) => void;
  /** A span was dragged out. */
  zoomed: (fromMs: number, toMs: number) => void;
  /** A double click: back to live. */
  back: () => void;
}

/** What is drawn at one moment. */
export interface Frame {
  rings: ReadonlyMap<string, Ring>;
  span: Span;
  stepMs: number;
}

interface LegendEntry {
  curve: CurveSpec;
  button: HTMLButtonElement;
  figure: HTMLElement;
}

/** One chart of the stack. */
export class Chart {
  readonly root: HTMLElement;
  readonly spec: PanelSpec;
  /** Where the stack may put a control of this chart. */
  readonly tools = element("span", { class: "tools" });
  readonly plot = element("div", { class: "plot" });
  readonly #empty: HTMLElement;
  readonly #legendBox = element("div", { class: "legend" });
  readonly #events: ChartEvents;
  readonly #marks: () => readonly Mark[];
  readonly #hidden = new Set<string>();
  readonly #place: { first: boolean; last: boolean };
  #legend: LegendEntry[] = [];
  #uplot: uPlot;
  #frame: Frame = { rings: new Map(), span: { fromMs: 0, toMs: 1 }, stepMs: 1000 };

  constructor(spec: PanelSpec, place: { first: boolean; last: boolean }, marks: () => readonly Mark[], events: ChartEvents) {
    this.spec = spec;
    this.#events = events;
    this.#marks = marks;
    this.#place = place;
    this.#empty = element("p", { class: "nodata", text: `no data yet: ${spec.hint}` });
    this.plot.tabIndex = 0;
    this.plot.setAttribute("role", "group");
    this.plot.setAttribute("aria-label", `${spec.title}. ${spec.about}. Arrow keys move the crosshair, plus and minus zoom, Escape returns to live.`);
    this.root = element("section", { class: "chart", attributes: { "data-chart": spec.id } }, [
      element("div", { class: "chart-head" }, [
        element("h2", { text: spec.title, title: spec.about }),
        this.#legendBox,
        this.tools,
      ]),
      this.plot,
    ]);
    this.plot.append(this.#empty);
    this.#uplot = this.#build();
    new ResizeObserver(() => this.#resize()).observe(this.plot);
  }

  /** Shows other curves in the same chart. */
  setCurves(curves: CurveSpec[]): void {
    this.spec.curves = curves;
    this.#uplot.destroy();
    this.#uplot = this.#build();
    this.#resize();
    this.draw(this.#frame);
  }

  /** Draws the rings over the span. */
  draw(frame: Frame): void {
    this.#frame = frame;
    const curves = this.spec.curves.map((curve) => frame.rings.get(curve.key) ?? { times: [], values: [] });
    const table = joinCurves(curves, frame.stepMs);
    const nothing = table.times.length === 0;
    this.#empty.hidden = !nothing;
    const { fromMs, toMs } = frame.span;
    const times = nothing ? [fromMs, toMs] : table.times;
    const columns = nothing ? curves.map((): Cell[] => [null, null]) : this.#laid(table.columns);
    this.#uplot.batch(() => {
      this.#uplot.setData([times, ...columns] as uPlot.AlignedData, false);
      this.#uplot.setScale("x", { min: fromMs, max: toMs });
    });
    this.#publish();
  }

  /** The columns as they are drawn. */
  #laid(columns: Cell[][]): Cell[][] {
    if (this.spec.stacked !== true) return columns;
    return stackColumns(columns, this.spec.curves.map((curve) => !this.#hidden.has(curve.label)));
  }

  /** Draws again without new data: the colour scheme changed. */
  redraw(): void {
    this.#uplot.redraw(false, true);
  }

  /** Writes the figures at a moment into the head; without a moment the newest ones. */
  showFigures(timeMs: number | undefined): void {
    for (const { curve, figure } of this.#legend) {
      const ring = this.#frame.rings.get(curve.key);
      const at = timeMs ?? this.#frame.span.toMs;
      const value = ring === undefined ? undefined : (valueAt(ring, at, this.#frame.stepMs) ?? lately(ring, timeMs, at));
      setText(figure, value === undefined ? ABSENT : this.spec.format(value));
    }
  }

  /** Puts the crosshair at a moment, as the pointer would. */
  placeCrosshair(timeMs: number | undefined): void {
    const left = timeMs === undefined ? -10 : this.#uplot.valToPos(timeMs, "x");
    this.#uplot.setCursor({ left, top: timeMs === undefined ? -10 : 0 }, false);
  }

  /** For tests and for whoever looks on: how many points each curve has, and when the newest was made. */
  #publish(): void {
    let points = 0;
    let newestMs = 0;
    for (const { curve, button } of this.#legend) {
      const ring = this.#frame.rings.get(curve.key);
      const count = ring?.length ?? 0;
      const lastMs = ring?.times[count - 1] ?? 0;
      button.dataset["key"] = curve.key;
      button.dataset["points"] = String(count);
      button.dataset["last"] = count === 0 ? "" : `${lastMs}:${ring?.values[count - 1]}`;
      points += count;
      newestMs = Math.max(newestMs, lastMs);
    }
    this.root.dataset["points"] = String(points);
    this.root.dataset["last"] = points === 0 ? "" : String(newestMs);
  }

  #resize(): void {
    const width = this.plot.clientWidth;
    if (width > 0) this.#uplot.setSize({ width, height: this.#height() });
  }

  #height(): number {
    return PLOT_HEIGHT_PX + (this.#place.last ? TIME_AXIS_PX : 0);
  }

  #build(): uPlot {
    this.#buildLegend();
    return new uPlot(
      {
        width: Math.max(200, this.plot.clientWidth),
        height: this.#height(),
        ms: 1,
        legend: { show: false },
        padding: [TOP_ROOM_PX, RIGHT_ROOM_PX, this.#place.last ? 0 : TOP_ROOM_PX, 0],
        cursor: this.#cursor(),
        scales: { x: { time: true, auto: false }, y: { range: (_, __, max) => this.#valueRange(max) } },
        axes: [this.#timeAxis(), this.#valueAxis()],
        series: [{}, ...this.spec.curves.map((curve) => this.#series(curve))],
        hooks: { setCursor: [() => this.#cursorMoved()], setSelect: [() => this.#selected()] },
        plugins: [marksPlugin(this.#marks, this.#place.first)],
      },
      [[0, 1], ...this.spec.curves.map(() => [null, null])] as uPlot.AlignedData,
      this.plot,
    );
  }

  #buildLegend(): void {
    this.#legend = this.spec.curves.map((curve) => {
      const figure = element("span", { class: "figure", text: ABSENT });
      const swatch = element("i", { class: `swatch swatch-${curve.color}` });
      const button = element(
        "button",
        { attributes: { type: "button", "aria-pressed": String(!this.#hidden.has(curve.label)) }, title: "Show or hide this curve" },
        [swatch, element("span", { text: curve.label }), figure],
      );
      button.addEventListener("click", () => this.#toggle(curve));
      return { curve, button, figure };
    });
    this.#legendBox.replaceChildren(...this.#legend.map(({ button }) => button));
  }

  #toggle(curve: CurveSpec): void {
    const show = this.#hidden.delete(curve.label);
    if (!show) this.#hidden.add(curve.label);
    const index = this.spec.curves.indexOf(curve);
    this.#legend[index]?.button.setAttribute("aria-pressed", String(show));
    this.#uplot.setSeries(index + 1, { show });
    if (this.spec.stacked === true) this.draw(this.#frame);
  }

  #series(curve: CurveSpec): uPlot.Series {
    const series: uPlot.Series = {
      label: curve.label,
      stroke: () => color(curve.color),
      width: 1.5,
      show: !this.#hidden.has(curve.label),
      spanGaps: false,
      points: { show: true, size: 4, filter: (chart, index) => lonePoints(chart.data[index] as Cell[]) },
    };
    if (this.spec.stacked === true) series.fill = () => color(curve.color);
    else if (this.spec.curves.length === 1) series.fill = () => `${color(curve.color)}22`;
    return series;
  }

  #timeAxis(): uPlot.Axis {
    return {
      show: true,
      size: this.#place.last ? TIME_AXIS_PX : 0,
      stroke: () => color("dim"),
      font: "11px system-ui, sans-serif",
      space: 56,
      gap: 4,
      grid: { stroke: () => color("grid"), width: 1 },
      ticks: { show: false },
      values: this.#place.last ? (_, splits, __, ___, step) => formatAxisTimes(splits, step) : () => [],
    };
  }

  #valueAxis(): uPlot.Axis {
    const axis: uPlot.Axis = {
      size: VALUE_AXIS_PX,
      stroke: () => color("dim"),
      font: "11px system-ui, sans-serif",
      space: 26,
      gap: 6,
      grid: { stroke: () => color("grid"), width: 1 },
      ticks: { show: false },
      values: (_, splits) => splits.map((value) => this.spec.format(value)),
    };
    if (this.spec.ticks === "binary") axis.incrs = BINARY_TICKS;
    if (this.spec.ticks === "whole") axis.incrs = WHOLE_TICKS;
    return axis;
  }

  #cursor(): uPlot.Cursor {
    return {
      y: false,
      points: { size: 6 },
      drag: { x: true, y: false, setScale: false, dist: 5 },
      sync: {
        key: SYNC_KEY,
        scales: ["x", null],
        setSeries: false,
        filters: { pub: (type) => CROSSHAIR_EVENTS.has(type), sub: (type) => CROSSHAIR_EVENTS.has(type) },
      },
      bind: {
        dblclick: () => () => {
          this.#events.back();
          return null;
        },
      },
    };
  }

  #valueRange(max: number | null): uPlot.Range.MinMax {
    return [0, Math.max(this.spec.floor, (max ?? 0) * 1.08)];
  }

  #cursorMoved(): void {
    const left = this.#uplot?.cursor.left ?? -10;
    this.#events.moved(left < 0 ? undefined : this.#uplot.posToVal(left, "x"));
  }

  #selected(): void {
    const { left, width } = this.#uplot.select;
    if (width <= 0) return;
    const fromMs = this.#uplot.posToVal(left, "x");
    const toMs = this.#uplot.posToVal(left + width, "x");
    this.#uplot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.#events.zoomed(fromMs, toMs);
  }
}

/** Without a crosshair the head shows the newest figure, as long as the curve still reaches near the right edge. */
function lately(ring: Ring, crosshairMs: number | undefined, toMs: number): number | undefined {
  if (crosshairMs !== undefined || ring.length === 0) return undefined;
  const newestMs = ring.times[ring.length - 1] as number;
  return toMs - newestMs <= Math.max(30_000, ring.stepMs * 3) ? ring.values[ring.length - 1] : undefined;
}
