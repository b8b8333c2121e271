// Owns the card of heap traces: which are kept, the flame graph of the chosen one, and the button that takes one.

import { fetchFlame, fetchTraces, postTrace, TokenWanted } from "./api.ts";
import type { Trace, Traces } from "./decode-heap.ts";
import { byId, element, setText } from "./dom.ts";
import { formatBytes, formatDateTime, visibleLine } from "./format.ts";
import { forgetToken, keepToken, keptToken } from "./token.ts";

const TAKE_SECONDS = 30;

/** The card of one VM. */
export class TraceView {
  readonly #vm: string;
  readonly #select = byId("trace") as HTMLSelectElement;
  readonly #token = byId("trace-token") as HTMLInputElement;
  readonly #take = byId("trace-take") as HTMLButtonElement;
  #shown = "";
  /** Only the newest drawing may appear. */
  #asked = 0;

  constructor(vm: string) {
    this.#vm = vm;
    this.#select.addEventListener("change", () => void this.#draw());
    byId("trace-again").addEventListener("click", () => void this.#draw());
    this.#take.addEventListener("click", () => void this.#begin());
    byId("trace-ask-ok").addEventListener("click", () => this.#answered());
    this.#token.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.#answered();
    });
  }

  /** Asks which traces there are. */
  async renew(): Promise<void> {
    if (document.hidden) return;
    try {
      this.#show(await fetchTraces(this.#vm));
    } catch {
      // The next round tries again; the connection's sign tells about a lasting loss.
    }
  }

  #show({ traces, canTake }: Traces): void {
    byId("trace-card").hidden = traces.length === 0 && !canTake;
    this.#take.hidden = !canTake;
    this.#take.disabled = traces.some(({ running }) => running);
    this.#select.hidden = traces.length === 0;
    byId("trace-again").hidden = !traces.some(({ name, running }) => running && name === this.#select.value);
    const now = JSON.stringify(traces.map(title));
    if (now === this.#shown) return;
    this.#shown = now;
    const chosen = this.#select.value;
    const options = traces.map((trace) => element("option", { text: title(trace), attributes: { value: trace.name } }));
    const none = element("option", { text: "Show a flame graph of …", attributes: { value: "" } });
    this.#select.replaceChildren(none, ...options);
    this.#select.value = traces.some(({ name }) => name === chosen) ? chosen : "";
  }

  async #draw(): Promise<void> {
    const name = this.#select.value;
    this.#asked += 1;
    const mine = this.#asked;
    if (name === "") return byId("flame").replaceChildren();
    this.#tell("Reading the trace …", "");
    try {
      // the drawing is fetched with the first graph
      const [flame, { drawFlame }] = await Promise.all([fetchFlame(this.#vm, name), import("./flame-view.ts")]);
      if (mine !== this.#asked) return;
      drawFlame(byId("flame"), flame);
      const running = flame.running ? ", and it goes on" : "";
      this.#tell(`The first ${flame.durationSeconds.toFixed(1)} s of the trace${running}`, "");
    } catch (failure) {
      if (mine === this.#asked) this.#tell(`Not drawn: ${fault(failure)}`, "failed");
    }
    void this.renew();
  }

  /** Takes a trace, or asks for the token that it takes first. */
  async #begin(): Promise<void> {
    const token = keptToken();
    if (token === "") return this.#ask();
    this.#take.disabled = true;
    try {
      this.#tell("Asking the guest …", "");
      const begun = await postTrace(this.#vm, TAKE_SECONDS, token);
      this.#tell(`Taking a trace for ${TAKE_SECONDS} s`, "done");
      await this.renew();
      this.#select.value = begun;
      void this.renew();
    } catch (failure) {
      this.#take.disabled = false;
      if (failure instanceof TokenWanted) {
        forgetToken();
        this.#tell("The daemon does not take this token.", "failed");
        return this.#ask();
      }
      this.#tell(`Not taken: ${fault(failure)}`, "failed");
    }
  }

  #ask(): void {
    this.#token.value = "";
    byId("trace-ask").hidden = false;
    this.#token.focus();
  }

  #answered(): void {
    const token = this.#token.value.trim();
    if (token === "") return;
    keepToken(token);
    this.#token.value = "";
    byId("trace-ask").hidden = true;
    void this.#begin();
  }

  #tell(text: string, outcome: "" | "done" | "failed"): void {
    const result = byId("trace-result");
    result.dataset["outcome"] = outcome;
    setText(result, text);
  }
}

function fault(failure: unknown): string {
  return visibleLine(failure instanceof Error ? failure.message : String(failure));
}

function title({ startedMs, bytes, running, end }: Trace): string {
  const how = running ? "running" : end;
  return [formatDateTime(startedMs), formatBytes(bytes), visibleLine(how)].filter((part) => part !== "").join(", ");
}
