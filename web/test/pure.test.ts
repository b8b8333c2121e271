// Rules of the modules without a document: figures, text, rings, joins, gaps, spans.
import assert from "node:assert/strict";
import { test } from "node:test";
import { joinCurves, lonePoints, stackColumns, valueAt, withGaps } from "../src/align.ts";
import { ConsoleText } from "../src/console-text.ts";
import { decodeCharts, decodeControl, decodeOverview, decodePoints, decodeVmDetail } from "../src/decode.ts";
import { decodeFlame, decodeLibraries, decodeTraces } from "../src/decode-heap.ts";
import {
  classWord,
  formatAxisTimes,
  formatBitRate,
  formatBytes,
  formatDuration,
  formatNumber,
  formatPercent,
  orAbsent,
  visibleLine,
  visibleText,
} from "../src/format.ts";
import { LibraryCurves } from "../src/libraries.ts";
import { Ring } from "../src/ring.ts";
import { displayStepMs, ringCapacity, Timeline } from "../src/timeline.ts";

test("numbers keep three significant digits and no exponent", () => {
  const shown = [0, 0.004, 0.25, 4.5, 9.999, 37.25, 99.97, 812, 1024, -3.5].map(formatNumber);
  assert.deepEqual(shown, ["0", "0", "0.25", "4.5", "10", "37.3", "100", "812", "1024", "-3.5"]);
});

test("bytes are binary, bit rates decimal, and a unit is never shown at its full size of the next", () => {
  assert.deepEqual([0, 512, 1536, 1024 ** 2 - 1, 256 * 1024 ** 2, 3 * 1024 ** 3].map(formatBytes), [
    "0 B", "512 B", "1.5 KiB", "1 MiB", "256 MiB", "3 GiB",
  ]);
  assert.deepEqual([0, 999, 1500, 999_900, 42_000_000].map(formatBitRate), ["0 bit/s", "999 bit/s", "1.5 kbit/s", "1 Mbit/s", "42 Mbit/s"]);
});

test("what was not measured is a dash", () => {
  assert.deepEqual([null, undefined, Number.NaN, Infinity, 12.5].map((value) => orAbsent(value, formatPercent)), ["–", "–", "–", "–", "12.5 %"]);
});

test("durations show their two largest units", () => {
  assert.deepEqual([-5, 42_000, 185_000, 7_800_000, 356_400_000].map(formatDuration), ["0 s", "42 s", "3 min 5 s", "2 h 10 min", "4 d 3 h"]);
});

test("axis labels show seconds only for ticks closer than a minute", () => {
  const noon = new Date(2026, 4, 15, 12, 0, 30).getTime();
  assert.deepEqual(formatAxisTimes([noon], 30_000), ["12:00:30"]);
  assert.deepEqual(formatAxisTimes([noon], 300_000), ["12:00"]);
  assert.deepEqual(formatAxisTimes([new Date(2026, 4, 15).getTime()], 300_000), ["05-15"]);
});

test("no control or reordering character of a foreign text survives", () => {
  assert.equal(visibleLine("a\u001b[31m\nb\u007f\u009b\u202e\u200b"), "a^[[31m^Jb^?⟨009B⟩⟨202E⟩⟨200B⟩");
  assert.equal(visibleText("a\tb\nc\u0007"), "a\tb\nc^G");
  let every = "";
  for (let code = 0; code < 0x3000; code += 1) every += String.fromCharCode(code);
  assert.doesNotMatch(visibleLine(every), /[\p{Cc}\p{Bidi_Control}\u2028\u2029]/u);
});

test("a word from outside becomes a class name of harmless letters", () => {
  assert.deepEqual(["running", "Odd State\"><b>", "", "x".repeat(99)].map(classWord), ["running", "oddstateb", "unknown", "x".repeat(20)]);
});

test("a ring holds no more than its capacity, drops the oldest, and stays in order", () => {
  const ring = new Ring(50, 1000, "last");
  for (let second = 0; second < 86_400; second += 1) ring.push(second * 1000, second);
  assert.equal(ring.length, 50);
  assert.equal(ring.times[0], 86_350_000);
  assert.equal(ring.values[49], 86_399);
});

test("points of one step become one: levels by their mean, counters by the newest", () => {
  const mean = new Ring(8, 1000, "mean");
  const last = new Ring(8, 1000, "last");
  for (const [time, value] of [[5000, 1], [5400, 2], [5999, 6]] as const) {
    mean.push(time, value);
    last.push(time, value);
  }
  assert.deepEqual([[...mean.times], [...mean.values]], [[5000], [3]]);
  assert.deepEqual([...last.values], [6]);
});

test("late points find their place; those older than a full ring are counted as dropped", () => {
  const ring = new Ring(4, 1000, "last");
  for (const time of [4000, 1000, 3000, 2000]) ring.push(time, time);
  assert.deepEqual([...ring.times], [1000, 2000, 3000, 4000]);
  ring.push(0, 0);
  assert.equal(ring.dropped, 1);
  ring.push(3500.7, 9);
  assert.deepEqual([...ring.values], [1000, 2000, 9, 4000]);
  ring.push(6000, 6);
  ring.push(5000, 5);
  assert.deepEqual([...ring.times], [3000, 4000, 5000, 6000]);
});

test("a ring agrees with a sorted map under any order of pushes", () => {
  let state = 7;
  const random = (below: number): number => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
    return state % below;
  };
  for (let round = 0; round < 50; round += 1) {
    const ring = new Ring(20, 10, "last");
    const model = new Map<number, number>();
    for (let i = 0; i < 300; i += 1) {
      const time = i * 4 + random(60);
      const bucket = Math.floor(time / 10) * 10;
      const oldest = Math.min(...model.keys());
      ring.push(time, i);
      if (model.size === 20 && bucket < oldest) continue;
      model.set(bucket, i);
      if (model.size > 20) model.delete(Math.min(...model.keys()));
    }
    const wanted = [...model].sort(([a], [b]) => a - b);
    assert.deepEqual([...ring.times].map((time, i) => [time, ring.values[i]]), wanted);
  }
});

test("what is not a number is no point", () => {
  const ring = new Ring(4, 1000, "mean");
  ring.push(Number.NaN, 1);
  ring.push(1000, Infinity);
  assert.equal(ring.length, 0);
});

test("a line breaks after more than two and a half steps without data, not before", () => {
  const curve = (times: number[]) => ({ times, values: times.map(() => 1) });
  assert.deepEqual(withGaps(curve([0, 1000, 2000, 4500, 5500, 6500]), 1000).values, [1, 1, 1, 1, 1, 1]);
  assert.deepEqual(withGaps(curve([0, 1000, 2000, 5000, 6000, 7000]), 1000), {
    times: [0, 1000, 2000, 3000, 5000, 6000, 7000],
    values: [1, 1, 1, null, 1, 1, 1],
  });
});

test("a guest that reports every ten seconds has no gaps beside a sampler that looks every second", () => {
  const times = Array.from({ length: 20 }, (_, i) => i * 10_000);
  assert.ok(!withGaps({ times, values: times }, 1000).values.includes(null));
  times.splice(8, 4);
  assert.equal(withGaps({ times, values: times }, 1000).values.filter((value) => value === null).length, 1);
});

test("joined curves keep their own gaps and are silent where only another has a point", () => {
  const table = joinCurves(
    [
      { times: [0, 1000, 2000, 9000, 10_000], values: [1, 2, 3, 4, 5] },
      { times: [1000, 2000], values: [7, 8] },
      { times: [], values: [] },
    ],
    1000,
  );
  assert.deepEqual(table.times, [0, 1000, 2000, 3000, 9000, 10_000]);
  assert.deepEqual(table.columns[0], [1, 2, 3, null, 4, 5]);
  assert.deepEqual(table.columns[1], [undefined, 7, 8, undefined, undefined, undefined]);
  assert.deepEqual(table.columns[2], new Array(6).fill(undefined));
});

test("only points without neighbours are drawn as dots", () => {
  assert.deepEqual(lonePoints([1, null, 2, undefined, 3, null, undefined, 4]), [0, 7]);
  assert.deepEqual(lonePoints([undefined, null]), []);
});

test("the crosshair reads the nearest point, and nothing inside a gap", () => {
  const curve = { times: [0, 1000, 2000, 3000, 20_000, 21_000], values: [1, 2, 3, 4, 5, 6] };
  assert.equal(valueAt(curve, 1400, 1000), 2);
  assert.equal(valueAt(curve, 1600, 1000), 3);
  assert.equal(valueAt(curve, 10_000, 1000), undefined);
  assert.equal(valueAt(curve, 21_500, 1000), 6);
  assert.equal(valueAt({ times: [], values: [] }, 0, 1000), undefined);
});

test("the console keeps order, refetches at a hole, ignores what it knows, and is bounded", () => {
  const console = new ConsoleText(10);
  assert.equal(console.offer({ from: 0, next: 3, text: "abc" }), "refetch");
  console.replace({ from: 0, next: 3, text: "abc" });
  assert.equal(console.offer({ from: 3, next: 6, text: "def" }), "added");
  assert.equal(console.offer({ from: 0, next: 6, text: "abcdef" }), "known");
  assert.equal(console.offer({ from: 8, next: 9, text: "x" }), "refetch");
  assert.equal(console.offer({ from: 6, next: 12, text: "ghijkl" }), "added");
  assert.equal(console.pieces.join(""), "defghijkl");
  assert.equal(console.dropped, 1);
  console.replace({ from: 0, next: 100, text: "z".repeat(100) });
  assert.equal(console.size, 10);
});

test("a carriage return split from its line feed is still a line's end; alone it is shown", () => {
  const console = new ConsoleText(100);
  console.replace({ from: 0, next: 2, text: "a\r" });
  console.offer({ from: 2, next: 4, text: "\nb" });
  console.offer({ from: 4, next: 7, text: "\rc\n" });
  assert.equal(console.pieces.join(""), "a\nb^Mc\n");
});

test("the live span ends at the daemon's now, also when the browser's clock is wrong", () => {
  const timeline = new Timeline(300_000);
  timeline.learnClock(1_000_000, 400_000);
  assert.deepEqual(timeline.span(401_000), { fromMs: 701_000, toMs: 1_001_000 });
  timeline.sawPoint(1_005_000);
  assert.equal(timeline.span(401_000).toMs, 1_005_000);
});

test("zooming is never shorter than two seconds, and all the way out is live again", () => {
  const timeline = new Timeline(300_000);
  timeline.learnClock(1_000_000, 1_000_000);
  timeline.zoomTo(900_000, 900_001);
  assert.deepEqual(timeline.zoom, { fromMs: 899_000.5, toMs: 901_000.5 });
  timeline.zoomBy(1000, 900_000, 1_000_000);
  assert.equal(timeline.zoom, undefined);
});

test("six hours at one second are thinned to what a screen can show", () => {
  const step = displayStepMs(21_600_000, 1000);
  assert.equal(step, 15_000);
  assert.equal(displayStepMs(300_000, 1000), 1000);
  assert.ok(ringCapacity(21_600_000, step) < 1700);
});

test("answers of another shape leave things out instead of failing", () => {
  for (const junk of [null, 1, "x", [], {}, { vms: 3, series: [], points: {} }]) {
    assert.deepEqual(decodeOverview(junk).vms, []);
    assert.equal(decodeCharts(junk).series.size, 0);
    assert.deepEqual(decodePoints(junk), []);
    assert.deepEqual(decodeVmDetail(junk).ports, []);
    assert.deepEqual(decodeControl(junk), { logs: [], metrics: [], error: "", needsToken: false, canChange: false });
  }
  assert.deepEqual(decodePoints({ points: [["a", 1, 2], ["b", "x", 2], [3, 1, 2], ["c", 1, null]] }), [["a", 1, 2]]);
  const charts = decodeCharts({ from: 0, to: 9, step: 0, series: { a: { times: [1, 2, "x"], values: [5, null, 7] } }, marks: [{}, { time: 3, event: "start" }] });
  assert.deepEqual(charts.series.get("a"), { times: [1], values: [5] });
  assert.deepEqual([charts.stepMs, charts.marks], [1, [{ timeMs: 3, event: "start", text: "" }]]);
});

test("a source without a name or a state is left out", () => {
  const sources = [{ source: "*", level: "info" }, { source: "dns" }, { level: "debug" }, null, { source: 7, level: "info" }];
  assert.deepEqual(decodeControl({ logs: sources, metrics: [{ source: "gc", state: "disabled" }] }), {
    logs: [["*", "info"]],
    metrics: [["gc", "disabled"]],
    error: "",
    needsToken: false,
    canChange: false,
  });
  const locked = decodeControl({ error: "it wants a token", needs_token: true, can_change: 1 });
  assert.deepEqual([locked.error, locked.needsToken, locked.canChange], ["it wants a token", true, false]);
});

test("curves lie on each other from the last up; holes and hidden ones add nothing", () => {
  const columns = [[1, null, 3], [10, 20, undefined], [100, null, 300]];
  assert.deepEqual(stackColumns(columns, [true, true, true]), [[111, null, 303], [110, 20, undefined], [100, null, 300]]);
  assert.deepEqual(stackColumns(columns, [true, false, true])[0], [101, null, 303]);
  assert.deepEqual(stackColumns([], []), []);
});

test("a library keeps its place and colour while it is there", () => {
  const curves = new LibraryCurves();
  const told = (...names: string[]) =>
    decodeLibraries({ from: 0, to: 2000, step: 1000, times: [1000], libraries: names.map((library) => ({ library, bytes: [1] })) });
  assert.equal(curves.update(told("a", "b", "(others)"), 1000), true);
  assert.equal(curves.update(told("b", "a", "(others)"), 1000), false);
  assert.equal(curves.update(told("b", "c", "(others)"), 1000), true);
  assert.deepEqual(curves.curves.map(({ label, color }) => [label, color]), [["b", "lib1"], ["c", "lib0"], ["(others)", "dim"]]);
});

test("what is no tree, no trace or no table of libraries is not drawn", () => {
  const node = (children: unknown) => ({ name: "f", live: 1, allocated: 1, children });
  assert.equal(decodeFlame({ nodes: [] }), undefined);
  assert.equal(decodeFlame(null), undefined);
  const odd = decodeFlame({ nodes: [node([1, 1, 0, -1, 7, "2", 1.5]), node([1, 0, 2]), node([2])] });
  assert.deepEqual(odd?.nodes.map(({ children }) => children), [[1], [2], []]);
  assert.deepEqual(decodeTraces({ traces: [{ bytes: 1 }, { name: "x", running: 1 }], can_take: "yes" }), {
    traces: [{ name: "x", startedMs: 0, bytes: 0, running: false, end: "" }],
    canTake: false,
  });
  assert.deepEqual(decodeLibraries({ times: [1, 2], libraries: [{ library: "a", bytes: [1] }] }).libraries, []);
});
