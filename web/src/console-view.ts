// Owns the console box: fetches the tail, appends what arrives, follows the end unless the reader scrolled up.

import { fetchConsole } from "./api.ts";
import { ConsoleText } from "./console-text.ts";
import type { ConsoleChunk } from "./decode.ts";
import { byId, setText } from "./dom.ts";

const TAIL_BYTES = 16_384;
const LIMIT = 131_072;
/** A guest that prints faster than the stream can carry must not turn into a storm of fetches. */
const REFETCH_PAUSE_MS = 2_000;
const NEAR_END_PX = 24;

/** The console tail of one VM. */
export class ConsoleView {
  readonly #vm: string;
  readonly #box = byId("console");
  readonly #jump = byId("console-jump");
  readonly #text = new ConsoleText(LIMIT);
  /** Pieces dropped at the front whose nodes are gone too. */
  #gone = 0;
  #following = true;
  #frameAsked = false;
  #fetching = false;
  #again = false;

  constructor(vm: string) {
    this.#vm = vm;
    this.#box.addEventListener("scroll", () => this.#scrolled());
    this.#jump.addEventListener("click", () => this.#follow());
  }

  /** Fetches the tail; a call during a fetch leads to one more after it. */
  async refetch(): Promise<void> {
    if (this.#fetching) {
      this.#again = true;
      return;
    }
    this.#fetching = true;
    try {
      this.#text.replace(await fetchConsole(this.#vm, TAIL_BYTES));
      this.#box.replaceChildren();
      this.#gone = 0;
      this.#show();
    } catch {
      this.#again = false;
    }
    setTimeout(() => {
      this.#fetching = false;
      if (this.#again) {
        this.#again = false;
        void this.refetch();
      }
    }, REFETCH_PAUSE_MS);
  }

  /** Takes a piece from the stream. */
  offer(chunk: ConsoleChunk): void {
    const outcome = this.#text.offer(chunk);
    if (outcome === "refetch") void this.refetch();
    if (outcome === "added") this.#show();
  }

  /** Shows at the browser's next frame: a guest that prints a thousand lines a second costs one layout a frame. */
  #show(): void {
    this.#box.dataset["next"] = String(this.#text.next);
    if (this.#frameAsked) return;
    this.#frameAsked = true;
    requestAnimationFrame(() => {
      this.#frameAsked = false;
      this.#showNow();
    });
  }

  /** Adds nodes for new pieces at the end, takes away those of dropped pieces at the front: one node a piece. */
  #showNow(): void {
    const { pieces, dropped } = this.#text;
    for (; this.#gone < dropped && this.#box.firstChild !== null; this.#gone += 1) this.#box.firstChild.remove();
    this.#gone = dropped;
    const fresh = pieces.slice(this.#box.childNodes.length);
    this.#box.append(...fresh.map((piece) => document.createTextNode(piece)));
    this.#box.dataset["size"] = String(this.#text.size);
    setText(byId("console-empty"), this.#text.size === 0 ? "No console output captured" : "");
    if (this.#following) this.#box.scrollTop = this.#box.scrollHeight;
  }

  #scrolled(): void {
    this.#following = this.#box.scrollHeight - this.#box.scrollTop - this.#box.clientHeight < NEAR_END_PX;
    this.#jump.hidden = this.#following;
  }

  #follow(): void {
    this.#box.scrollTop = this.#box.scrollHeight;
    this.#scrolled();
  }
}
