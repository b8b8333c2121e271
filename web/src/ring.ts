// Owns the bounded memory of one curve: points in time order, one per step of the display.
// Never grows past its capacity, never draws, never reads a clock.

/** How points that fall into one step become one: a level is averaged, a counter keeps its newest value. */
export type Merge = "mean" | "last";

/**
 * Points of one curve, oldest dropped first.
 *
 * Times are rounded down to `stepMs`, so curves sampled at slightly different moments share their columns.
 * Both arrays are twice the capacity: the live part moves to the front only once per `capacity` pushes.
 */
export class Ring {
  readonly stepMs: number;
  readonly capacity: number;
  /** Points that came too late to be shown. */
  dropped = 0;
  readonly #merge: Merge;
  readonly #times: Float64Array;
  readonly #values: Float64Array;
  readonly #weights: Float64Array;
  #start = 0;
  #end = 0;

  constructor(capacity: number, stepMs: number, merge: Merge) {
    this.capacity = Math.max(1, Math.floor(capacity));
    this.stepMs = Math.max(1, Math.floor(stepMs));
    this.#merge = merge;
    this.#times = new Float64Array(this.capacity * 2);
    this.#values = new Float64Array(this.capacity * 2);
    this.#weights = new Float64Array(this.capacity * 2);
  }

  get length(): number {
    return this.#end - this.#start;
  }

  /** Times of the points held, ascending; valid until the next push. */
  get times(): Float64Array {
    return this.#times.subarray(this.#start, this.#end);
  }

  /** Values of the points held, beside `times`. */
  get values(): Float64Array {
    return this.#values.subarray(this.#start, this.#end);
  }

  /** Adds one point, in whatever order it comes; what is not a number is no point. */
  push(timeMs: number, value: number): void {
    if (!Number.isFinite(timeMs) || !Number.isFinite(value)) return;
    const time = Math.floor(timeMs / this.stepMs) * this.stepMs;
    const at = this.#placeOf(time);
    if (at < this.#end && this.#times[at] === time) this.#mergeAt(at, value);
    else this.#insertAt(at, time, value);
  }

  /** Forgets points before `timeMs`. */
  dropBefore(timeMs: number): void {
    while (this.#start < this.#end && (this.#times[this.#start] as number) < timeMs) this.#start += 1;
  }

  /** First index whose time is not before `time`; the newest point is looked at first. */
  #placeOf(time: number): number {
    let low = this.#start;
    let high = this.#end;
    if (high > low && (this.#times[high - 1] as number) < time) return high;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#times[middle] as number) < time) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #mergeAt(at: number, value: number): void {
    if (this.#merge === "last") {
      this.#values[at] = value;
      return;
    }
    const weight = this.#weights[at] as number;
    this.#values[at] = ((this.#values[at] as number) * weight + value) / (weight + 1);
    this.#weights[at] = weight + 1;
  }

  #insertAt(place: number, time: number, value: number): void {
    let at = place;
    if (this.length === this.capacity) {
      if (at === this.#start) {
        this.dropped += 1;
        return;
      }
      this.#start += 1;
    }
    if (this.#end === this.#times.length) at -= this.#compact();
    for (const column of [this.#times, this.#values, this.#weights]) column.copyWithin(at + 1, at, this.#end);
    this.#times[at] = time;
    this.#values[at] = value;
    this.#weights[at] = 1;
    this.#end += 1;
  }

  /** Moves the live part to the front; answers by how far. */
  #compact(): number {
    const shift = this.#start;
    for (const column of [this.#times, this.#values, this.#weights]) column.copyWithin(0, shift, this.#end);
    this.#start = 0;
    this.#end -= shift;
    return shift;
  }
}
