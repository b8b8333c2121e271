// Owns the colours that canvases use: read from the style sheet, so light and dark are written down once.

const cache = new Map<string, string>();
const listeners: (() => void)[] = [];

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  cache.clear();
  for (const listener of listeners) listener();
});

/** The value of the style sheet's variable `--name` under the current scheme. */
export function color(name: string): string {
  const known = cache.get(name);
  if (known !== undefined) return known;
  const value = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  cache.set(name, value);
  return value;
}

/** Calls `listener` whenever the scheme changes, to draw anew. */
export function onSchemeChange(listener: () => void): void {
  listeners.push(listener);
}
