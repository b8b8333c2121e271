// Owns the bounded text of the console tail: order of the pieces, the limit, what is harmless to show.
// Never touches the document.

import type { ConsoleChunk } from "./decode.ts";
import { visibleText } from "./format.ts";

/** What became of an offered piece. */
export type Offer = "added" | "known" | "refetch";

/** The newest console text, at most `limit` UTF-16 units of it. */
export class ConsoleText {
  readonly limit: number;
  /** Position of the next byte expected, or -1 before the first piece. */
  next = -1;
  /** How many pieces were dropped at the front since the last `replace`. */
  dropped = 0;
  #pieces: string[] = [];
  #size = 0;
  #heldReturn = false;

  constructor(limit: number) {
    this.limit = limit;
  }

  /** The pieces now held, oldest first. */
  get pieces(): readonly string[] {
    return this.#pieces;
  }

  /** Number of UTF-16 units held. */
  get size(): number {
    return this.#size;
  }

  /** Starts over with a tail as it was fetched. */
  replace(chunk: ConsoleChunk): void {
    this.#pieces = [];
    this.#size = 0;
    this.dropped = 0;
    this.#heldReturn = false;
    this.next = chunk.next;
    this.#append(chunk.text);
  }

  /** Takes a piece that follows what is held; anything else must be fetched anew, or is known already. */
  offer(chunk: ConsoleChunk): Offer {
    if (this.next < 0) return "refetch";
    if (chunk.from === this.next) {
      this.next = chunk.next;
      this.#append(chunk.text);
      return "added";
    }
    return chunk.next <= this.next ? "known" : "refetch";
  }

  /** A carriage return at the end waits for the next piece: with a line feed it is only a line's end. */
  #append(raw: string): void {
    let text = this.#heldReturn ? `\r${raw}` : raw;
    this.#heldReturn = text.endsWith("\r");
    if (this.#heldReturn) text = text.slice(0, -1);
    const shown = visibleText(text.replaceAll("\r\n", "\n")).slice(-this.limit);
    if (shown === "") return;
    this.#pieces.push(shown);
    this.#size += shown.length;
    this.#trim();
  }

  #trim(): void {
    while (this.#size > this.limit && this.#pieces.length > 1) {
      this.#size -= (this.#pieces.shift() as string).length;
      this.dropped += 1;
    }
  }
}
