// Owns how figures, times and foreign text are written for people.
// Never touches the document, never reads a clock, never fetches.

/** What stands where there is no figure. */
export const ABSENT = "–";

const BINARY_UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"] as const;
const BIT_RATE_UNITS = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"] as const;

/** Three significant digits, never an exponent, no trailing noise: 0, 0.25, 4.5, 37.2, 812, 1024. */
export function formatNumber(value: number): string {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 99.95) return value.toFixed(0);
  if (size >= 9.995) return trimZeros(value.toFixed(1));
  return trimZeros(value.toFixed(2));
}

function trimZeros(digits: string): string {
  const short = digits.replace(/\.?0+$/, "");
  return short === "-0" ? "0" : short;
}

function scaled(value: number, base: number, units: readonly string[]): string {
  let rest = value;
  let unit = 0;
  while (Math.abs(rest) >= base * 0.9995 && unit < units.length - 1) {
    rest /= base;
    unit += 1;
  }
  const digits = unit === 0 ? rest.toFixed(0) : formatNumber(rest);
  return `${digits} ${units[unit] ?? ""}`;
}

/** Bytes in binary units: `512 B`, `1.5 KiB`, `256 MiB`. */
export function formatBytes(bytes: number): string {
  return scaled(bytes, 1024, BINARY_UNITS);
}

/** Bits per second in decimal units, as network people count: `1.5 kbit/s`. */
export function formatBitRate(bitsPerSecond: number): string {
  return scaled(bitsPerSecond, 1000, BIT_RATE_UNITS);
}

/** Percent of one core: `12.5 %`. */
export function formatPercent(percent: number): string {
  return `${formatNumber(percent)} %`;
}

/** Things per second: `4.2 /s`. */
export function formatPerSecond(rate: number): string {
  return `${formatNumber(rate)} /s`;
}

/** A count of whole things; a mean over several seconds may have a fraction. */
export function formatCount(count: number): string {
  return formatNumber(count);
}

/** `format(value)`, or the dash when there is none. */
export function orAbsent(value: number | null | undefined, format: (value: number) => string): string {
  return value === null || value === undefined || !Number.isFinite(value) ? ABSENT : format(value);
}

function two(value: number): string {
  return value.toString().padStart(2, "0");
}

/** Time of day in the browser's zone, `14:03:09`; milliseconds since the Unix epoch in. */
export function formatClock(timeMs: number): string {
  const at = new Date(timeMs);
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** Day and time of day in the browser's zone, `2026-05-15 14:03:09`. */
export function formatDateTime(timeMs: number): string {
  const at = new Date(timeMs);
  if (Number.isNaN(at.getTime())) return ABSENT;
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${formatClock(timeMs)}`;
}

/** Labels of a time axis: seconds only when the ticks are closer than a minute, the day at midnight. */
export function formatAxisTimes(splitsMs: readonly number[], stepMs: number): string[] {
  return splitsMs.map((timeMs) => {
    const at = new Date(timeMs);
    const midnight = at.getHours() === 0 && at.getMinutes() === 0 && at.getSeconds() === 0;
    if (midnight) return `${two(at.getMonth() + 1)}-${two(at.getDate())}`;
    const clock = formatClock(timeMs);
    return stepMs < 60_000 ? clock : clock.slice(0, 5);
  });
}

/** How long, in its two largest units: `42 s`, `3 min 5 s`, `2 h 10 min`, `4 d 3 h`. */
export function formatDuration(spanMs: number): string {
  const seconds = Math.max(0, Math.floor(spanMs / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return pair(Math.floor(seconds / 60), "min", seconds % 60, "s");
  if (seconds < 86_400) return pair(Math.floor(seconds / 3600), "h", Math.floor((seconds % 3600) / 60), "min");
  return pair(Math.floor(seconds / 86_400), "d", Math.floor((seconds % 86_400) / 3600), "h");
}

function pair(large: number, largeUnit: string, small: number, smallUnit: string): string {
  return small === 0 ? `${large} ${largeUnit}` : `${large} ${largeUnit} ${small} ${smallUnit}`;
}

// C0 and C1 controls, DEL, and the characters that reorder or hide text around them.
const TREACHEROUS =
  /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]/g;

/** Caret notation, which every font has: escape is `^[`; the others by their code point: `⟨202E⟩`. */
function pictureOf(character: string): string {
  const code = character.charCodeAt(0);
  if (code < 0x20 || code === 0x7f) return `^${String.fromCharCode(code ^ 0x40)}`;
  return `\u27e8${code.toString(16).toUpperCase().padStart(4, "0")}\u27e9`;
}

/** One line of foreign text (a name, an image, a message): every control character becomes a visible sign. */
export function visibleLine(text: string): string {
  return text.replace(TREACHEROUS, pictureOf);
}

/** Console text: as `visibleLine`, but line feed and tab keep their meaning. */
export function visibleText(text: string): string {
  return text.replace(TREACHEROUS, (character) =>
    character === "\n" || character === "\t" ? character : pictureOf(character),
  );
}

/** A state or health word as a part of a class name: letters, digits and dashes only, at most 20. */
export function classWord(word: string): string {
  return word.toLowerCase().replace(/[^a-z0-9-]/g, "").slice(0, 20) || "unknown";
}
