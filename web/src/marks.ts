// Owns the lifecycle marks on a chart: an upright line at each moment, its name on the topmost chart.

import uPlot from "uplot";
import type { Mark } from "./decode.ts";
import { visibleLine } from "./format.ts";
import { color } from "./theme.ts";

const LABEL_ROOM_PX = 44;

/** A plugin that draws the marks `marks()` gives; names them too when `named`. */
export function marksPlugin(marks: () => readonly Mark[], named: boolean): uPlot.Plugin {
  return { hooks: { drawAxes: (chart: uPlot) => drawMarks(chart, marks(), named) } };
}

function drawMarks(chart: uPlot, marks: readonly Mark[], named: boolean): void {
  const { ctx, bbox } = chart;
  const ratio = uPlot.pxRatio;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.lineWidth = ratio;
  ctx.setLineDash([3 * ratio, 3 * ratio]);
  ctx.font = `${10 * ratio}px system-ui, sans-serif`;
  ctx.textBaseline = "top";
  ctx.textAlign = "left";
  let freeFrom = Number.NEGATIVE_INFINITY;
  for (const mark of marks) {
    const x = Math.round(chart.valToPos(mark.timeMs, "x", true)) + 0.5;
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    const tint = color(markColor(mark.event));
    ctx.strokeStyle = tint;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    if (!named || x < freeFrom) continue;
    ctx.fillStyle = tint;
    ctx.fillText(visibleLine(mark.event).slice(0, 16), x + 3 * ratio, bbox.top + 2 * ratio);
    freeFrom = x + LABEL_ROOM_PX * ratio;
  }
  ctx.restore();
}

/** Colour variable of an event. */
export function markColor(event: string): string {
  if (event === "start" || event === "create") return "ok";
  if (event === "kill" || event === "exit") return "bad";
  if (event === "stop") return "warn";
  return "dim";
}
