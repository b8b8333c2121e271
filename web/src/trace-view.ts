// Owns the card of heap traces: which are kept, the flame graph of the chosen one at the chosen moment, and the button
// that takes one.

import { fetchFlame, fetchTraces, type FlameView, postTrace, TokenWanted } from "./api.ts";
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
  readonly #at = byId("trace-at") as HTMLInputElement;
  readonly #lifetime = byId("trace-lifetime") as HTMLSelectElement;
  /** A moment of the trace is looked at. */
  onMoment: (timeMs: number) => void = () => {};
  #traces: Trace[] = [];
  #shown = "";
  /** Only the newest drawing may appear. */
  #asked = 0;

  constructor(vm: string) {
    this.#vm = vm;
    this.#select.addEventListener("change", () => void this.#drawWhole());
    byId("trace-again").addEventListener("click", () => void this.#drawWhole());
    this.#lifetime.addEventListener("change", () => void this.#draw());
    this.#at.addEventListener("input", () => {
      this.#showMoment();
      this.onMoment((this.#startedMs() ?? 0) + Number(this.#at.value) * 1000);
    });
    this.#at.addEventListener("change", () => void this.#draw());
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

  /** Draws the memory at a moment of the charts, if the trace on the page was taken then. */
  lookAt(timeMs: number): void {
    const startedMs = this.#startedMs();
    if (startedMs === undefined || byId("trace-view").hidden) return;
    const at = (timeMs - startedMs) / 1000;
    if (at < 0 || at > Number(this.#at.max)) return;
    this.#at.value = String(at);
    this.#showMoment();
    void this.#draw();
  }

  #startedMs(): number | undefined {
    return this.#traces.find(({ name }) => name === this.#select.value)?.startedMs;
  }

  #show({ traces, canTake }: Traces): void {
    this.#traces = traces;
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

  /** Draws the chosen trace up to its end, wherever the slider was. */
  #drawWhole(): Promise<void> {
    this.#at.max = "";
    byId("trace-view").hidden = true;
    return this.#draw();
  }

  async #draw(): Promise<void> {
    const name = this.#select.value;
    this.#asked += 1;
    const mine = this.#asked;
    if (name === "") return byId("flame").replaceChildren();
    this.#tell("Reading the trace …", "");
    try {
      const view = this.#view();
      // the drawing is fetched with the first graph
      const [flame, { drawFlame }] = await Promise.all([fetchFlame(this.#vm, name, view), import("./flame-view.ts")]);
      if (mine !== this.#asked) return;
      drawFlame(byId("flame"), flame);
      if (this.#at.max === "") this.#spanOf(flame.durationSeconds);
      const running = flame.running ? ", and it goes on" : "";
      this.#tell(`The first ${(view.at ?? flame.durationSeconds).toFixed(1)} s of the trace${running}`, "");
    } catch (failure) {
      if (mine === this.#asked) this.#tell(`Not drawn: ${fault(failure)}`, "failed");
    }
    void this.renew();
  }

  /** What is asked for; nothing is said of the end. */
  #view(): FlameView {
    const view: FlameView = {};
    if (this.#at.max !== "" && Number(this.#at.value) < Number(this.#at.max)) view.at = Number(this.#at.value);
    if (this.#lifetime.value !== "") view.minLifetime = Number(this.#lifetime.value);
    return view;
  }

  /** The trace has so many seconds: its end is shown. */
  #spanOf(seconds: number): void {
    const steps = Math.max(1, Math.ceil(seconds * 10));
    this.#at.max = String(steps / 10);
    this.#at.value = this.#at.max;
    byId("trace-view").hidden = false;
    this.#showMoment();
  }

  #showMoment(): void {
    const { at } = this.#view();
    const moment = at === undefined ? "its end" : `${at.toFixed(1)} s`;
    setText(byId("trace-moment"), moment);
    this.#at.setAttribute("aria-valuetext", moment);
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
