// Owns the joining of several curves into one table on a common time column, and what counts as a gap.
// Never draws. In the table `null` breaks a line, `undefined` only means "this curve has no point here".

/** One curve to join: times ascending without repeats, one value each. */
export interface Curve {
  readonly times: ArrayLike<number>;
  readonly values: ArrayLike<number>;
}

/** A cell of the joined table. */
export type Cell = number | null | undefined;

/** The joined table: the time column, then one column per curve. */
export interface Table {
  times: number[];
  columns: Cell[][];
}

/** A line is broken where points are farther apart than this many of their usual distances. */
export const GAP_STEPS = 2.5;

const NEIGHBOURS = 5;

/**
 * The usual distance of the points just before index `at`, never below `stepMs`.
 *
 * A guest that reports every ten seconds beside a sampler that looks every second is whole, not full of gaps;
 * the median of a few neighbours tells the two apart and is not misled by the gap itself.
 */
export function usualDistance(times: ArrayLike<number>, at: number, stepMs: number): number {
  const before = medianDistance(times, Math.max(1, at - NEIGHBOURS), at);
  const after = medianDistance(times, at + 1, Math.min(times.length, at + 1 + NEIGHBOURS));
  return Math.max(stepMs, before, after);
}

/** Median distance of consecutive points with indices in `[from, to)`, 0 without any. */
function medianDistance(times: ArrayLike<number>, from: number, to: number): number {
  const distances: number[] = [];
  for (let i = from; i < to; i += 1) distances.push((times[i] as number) - (times[i - 1] as number));
  if (distances.length === 0) return 0;
  distances.sort((a, b) => a - b);
  return distances[(distances.length - 1) >> 1] as number;
}

/** True when nothing was measured between point `at - 1` and point `at`. */
export function isGap(times: ArrayLike<number>, at: number, stepMs: number): boolean {
  const distance = (times[at] as number) - (times[at - 1] as number);
  if (distance <= GAP_STEPS * stepMs) return false;
  return distance > GAP_STEPS * usualDistance(times, at, stepMs);
}

/** The curve with a `null` put into each gap, one step after the last point before it. */
export function withGaps(curve: Curve, stepMs: number): { times: number[]; values: (number | null)[] } {
  const times: number[] = [];
  const values: (number | null)[] = [];
  for (let i = 0; i < curve.times.length; i += 1) {
    if (i > 0 && isGap(curve.times, i, stepMs)) {
      times.push((curve.times[i - 1] as number) + stepMs);
      values.push(null);
    }
    times.push(curve.times[i] as number);
    values.push(curve.values[i] as number);
  }
  return { times, values };
}

/** Joins curves by time; each keeps its own gaps. */
export function joinCurves(curves: readonly Curve[], stepMs: number): Table {
  const broken = curves.map((curve) => withGaps(curve, stepMs));
  const cursors = broken.map(() => 0);
  const table: Table = { times: [], columns: broken.map(() => []) };
  for (;;) {
    const time = nextTime(broken, cursors);
    if (time === Infinity) return table;
    table.times.push(time);
    for (let c = 0; c < broken.length; c += 1) appendCell(broken[c], cursors, c, time, table.columns[c] as Cell[]);
  }
}

function nextTime(curves: readonly { times: number[] }[], cursors: readonly number[]): number {
  let next = Infinity;
  for (let c = 0; c < curves.length; c += 1) {
    const time = curves[c]?.times[cursors[c] as number];
    if (time !== undefined && time < next) next = time;
  }
  return next;
}

function appendCell(
  curve: { times: number[]; values: (number | null)[] } | undefined,
  cursors: number[],
  index: number,
  time: number,
  column: Cell[],
): void {
  const cursor = cursors[index] as number;
  if (curve === undefined || curve.times[cursor] !== time) {
    column.push(undefined);
    return;
  }
  column.push(curve.values[cursor]);
  cursors[index] = cursor + 1;
}

/** Value of the curve at a moment: the nearest point, if it is nearer than the curve's own gap; else nothing. */
export function valueAt(curve: Curve, timeMs: number, stepMs: number): number | undefined {
  const count = curve.times.length;
  if (count === 0) return undefined;
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((curve.times[middle] as number) < timeMs) low = middle + 1;
    else high = middle;
  }
  const right = Math.min(low, count - 1);
  const left = Math.max(0, low - 1);
  const nearer = timeMs - (curve.times[left] as number) <= (curve.times[right] as number) - timeMs ? left : right;
  const distance = Math.abs((curve.times[nearer] as number) - timeMs);
  const reach = (GAP_STEPS / 2) * usualDistance(curve.times, nearer, stepMs);
  return distance <= reach ? curve.values[nearer] : undefined;
}

/** Indices of points that stand alone between two gaps: no line leads through them, so they need a dot. */
export function lonePoints(column: readonly Cell[]): number[] {
  const alone: number[] = [];
  let run: number[] = [];
  for (let index = 0; index <= column.length; index += 1) {
    const cell = index < column.length ? column[index] : null;
    if (cell === undefined) continue;
    if (cell !== null) {
      run.push(index);
      continue;
    }
    if (run.length === 1) alone.push(run[0] as number);
    run = [];
  }
  return alone;
}

/** Curves laid on each other, the first on top: each becomes the sum of itself and those below it that are shown. */
export function stackColumns(columns: readonly Cell[][], shown: readonly boolean[]): Cell[][] {
  const stacked = columns.map((column) => [...column]);
  const rows = columns[0]?.length ?? 0;
  for (let row = 0; row < rows; row += 1) {
    let sum = 0;
    for (let index = columns.length - 1; index >= 0; index -= 1) {
      const cell = columns[index]?.[row];
      if (typeof cell !== "number" || shown[index] !== true) continue;
      sum += cell;
      (stacked[index] as Cell[])[row] = sum;
    }
  }
  return stacked;
}
