// Owns the sign that says whether the page still hears from the daemon.

import { byId, setText } from "./dom.ts";

const SILENCE_MS = 5_000;

/** The sign in the page's head; `main` is marked stale while nothing arrives, so old figures look old. */
export class Connection {
  readonly #sign = byId("connection");
  readonly #main = byId("main");
  #silence: ReturnType<typeof setTimeout> | undefined;

  /** The stream answered. */
  live(): void {
    this.#show("live", "Live");
  }

  /** The stream broke; the browser tries again by itself. */
  lost(): void {
    clearTimeout(this.#silence);
    this.#show("lost", "Connection lost, trying again …");
  }

  /** Something arrived on a stream that should speak every second. */
  heard(): void {
    this.live();
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#show("lost", "No data for 5 s"), SILENCE_MS);
  }

  #show(state: "live" | "lost", text: string): void {
    this.#sign.dataset["state"] = state;
    setText(this.#sign, text);
    this.#main.classList.toggle("stale", state === "lost");
  }
}
