// Owns the flame graph on the page: drawn by the same script that the command line puts into its files.

import "../../crates/uni-memtrace/src/flame.css";
import "../../crates/uni-memtrace/src/flame.js";
import type { Flame } from "./decode-heap.ts";
import { element } from "./dom.ts";

/** Draws it into `root` in the place of what was there. */
export function drawFlame(root: HTMLElement, flame: Flame): void {
  // the script's listeners go with their element
  const place = element("div", { class: "flame" });
  root.replaceChildren(place);
  uniFlame.draw(place, flame);
}
