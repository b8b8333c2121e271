// Owns the card of what a guest logs and measures: shown, and where the daemon allows it changed. The daemon's token is
// kept for this tab alone, the guest's own only while the page is open.

import { type ControlChange, fetchControl, postControl, TokenWanted } from "./api.ts";
import type { Control, SourceState } from "./decode.ts";
import { byId, definition, element, setText } from "./dom.ts";
import { visibleLine } from "./format.ts";
import { forgetToken, keepToken, keptToken } from "./token.ts";

const SOURCES_SHOWN = 200;
const LEVELS = ["quiet", "app", "error", "warning", "info", "debug"];

/** Whose token is asked for. */
type Owner = "daemon" | "guest";
type Kind = ControlChange["kind"];

const ASKED: Record<Owner, readonly [text: string, label: string]> = {
  daemon: ["Changes need the daemon's token, the first line of the file named by --token-file.", "The daemon's token"],
  guest: ["This guest needs the guest's token (its --monitor-token) to tell and to change anything.", "The guest's token"],
};

/** What a command can name; a comma or a colon would be read as another item. */
function isNameable(source: string): boolean {
  return !/[,:\\]/.test(source) && !source.startsWith("tag:");
}

/** The default is called by what it is; the names of sources are the guest's own. */
function title(source: string): string {
  return source === "*" ? "Default" : visibleLine(source);
}

function fault(failure: unknown): string {
  return failure instanceof Error ? failure.message : String(failure);
}

/** The card of one VM. */
export class ControlView {
  readonly #vm: string;
  readonly #input = byId("control-token") as HTMLInputElement;
  readonly #duration = byId("control-for") as HTMLSelectElement;
  #guestToken = "";
  /** What is to be done once the token that is asked for is there. */
  #waiting: { owner: Owner; go: () => void } | undefined;
  /** While a change is under way, or a menu is open, what is shown stays. */
  #busy = false;
  #shown = "";
  /** Changes are made one after the other: what is shown at the end is in force. */
  #last: Promise<void> = Promise.resolve();

  constructor(vm: string) {
    this.#vm = vm;
    byId("control-ask-ok").addEventListener("click", () => this.#answered());
    byId("control-ask-cancel").addEventListener("click", () => this.#cancelled());
    this.#input.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.#answered();
    });
  }

  /** Asks the guest what is in force. */
  async renew(): Promise<void> {
    if (document.hidden || this.#busy) return;
    try {
      const control = await this.#fetch();
      if (!this.#busy) this.#show(control);
    } catch {
      // The next round tries again; the connection's sign tells about a lasting loss.
    }
  }

  /** A guest with a token of its own tells only who gives it, and that takes a request with a body. */
  #fetch(): Promise<Control> {
    const daemonToken = keptToken();
    if (this.#guestToken === "" || daemonToken === "") return fetchControl(this.#vm);
    return postControl(this.#vm, { kind: "logs", token: this.#guestToken }, daemonToken);
  }

  /** A guest without monitoring tells nothing: then there is nothing to show. */
  #show(control: Control): void {
    const isEmpty = control.logs.length === 0 && control.metrics.length === 0;
    byId("control-card").hidden = isEmpty && !control.needsToken;
    byId("control-states").hidden = isEmpty;
    byId("control-tools").hidden = isEmpty || !control.canChange;
    if (control.needsToken) this.#wantGuestToken(control.canChange);
    // an unchanged list keeps its focus
    const now = JSON.stringify(control);
    if (now === this.#shown) return;
    this.#shown = now;
    const focused = document.activeElement?.getAttribute("aria-label");
    byId("log-levels").replaceChildren(...this.#pairs("logs", control.logs, control.canChange));
    byId("metrics").replaceChildren(...this.#pairs("metrics", control.metrics, control.canChange));
    if (focused === null || focused === undefined) return;
    const again = [...document.querySelectorAll<HTMLElement>("#control-states [data-source]")];
    again.find((node) => node.getAttribute("aria-label") === focused)?.focus();
  }

  #wantGuestToken(canChange: boolean): void {
    if (!canChange) return this.#tell("This guest needs the guest's token to tell what is in force.", "");
    if (this.#guestToken !== "") this.#tell("The guest does not take this token.", "failed");
    this.#guestToken = "";
    if (this.#waiting === undefined) this.#ask("guest", () => this.#next({ kind: "logs" }));
  }

  #pairs(kind: Kind, states: readonly SourceState[], canChange: boolean): Node[] {
    return states.slice(0, SOURCES_SHOWN).flatMap(([source, state]) => {
      if (!canChange || !(source === "*" || isNameable(source))) return definition(title(source), visibleLine(state));
      const control = kind === "logs" ? this.#levels(source, state) : this.#toggle(source, state);
      return [element("dt", { text: title(source) }), element("dd", {}, [control])];
    });
  }

  #levels(source: string, state: string): HTMLElement {
    const options = LEVELS.map((level) => element("option", { text: level, attributes: { value: level } }));
    const attributes = { "aria-label": `Level of ${title(source)}`, "data-source": source };
    const select = element("select", { attributes }, options);
    select.value = state;
    select.addEventListener("change", () => this.#next({ kind: "logs", spec: `${source}:${select.value}` }));
    return select;
  }

  #toggle(source: string, state: string): HTMLElement {
    const attributes = { type: "checkbox", "aria-label": `Metrics of ${title(source)}`, "data-source": source };
    const box = element("input", { attributes });
    box.checked = state === "enabled";
    box.addEventListener("change", () => {
      this.#next({ kind: "metrics", spec: `${source}:${box.checked ? "on" : "off"}` });
    });
    return element("label", {}, [box, element("span", { text: visibleLine(state) })]);
  }

  #next(change: ControlChange): void {
    this.#busy = true;
    this.#last = this.#last.then(() => this.#change(change));
  }

  /** Makes a change and shows what is in force then, or asks for the token that it takes first. */
  async #change(change: ControlChange): Promise<void> {
    const daemonToken = keptToken();
    this.#busy = true;
    if (daemonToken === "") return this.#ask("daemon", () => this.#next(change));
    try {
      const seconds = Number(this.#duration.value);
      const whole: ControlChange = { ...change };
      if (change.spec !== undefined && seconds > 0) whole.for_seconds = seconds;
      if (this.#guestToken !== "") whole.token = this.#guestToken;
      this.#tell(change.spec === undefined ? "" : `Changing ${visibleLine(change.spec)} …`, "");
      const control = await postControl(this.#vm, whole, daemonToken);
      if (change.spec !== undefined) this.#tell(this.#done(change.spec), "done");
      this.#busy = false;
      this.#show(control);
    } catch (failure) {
      if (failure instanceof TokenWanted) {
        forgetToken();
        this.#tell("The daemon does not take this token.", "failed");
        return this.#ask("daemon", () => this.#next(change));
      }
      this.#tell(`Not changed: ${visibleLine(fault(failure))}`, "failed");
      this.#giveBack();
    }
  }

  #done(spec: string): string {
    const lasting = this.#duration.value === "" ? "" : `, for ${this.#duration.selectedOptions[0]?.text ?? ""}`;
    return `Changed ${visibleLine(spec)}${lasting}`;
  }

  /** What was chosen and is not in force is shown as it is in force. */
  #giveBack(): void {
    this.#busy = false;
    this.#shown = "";
    void this.renew();
  }

  #tell(text: string, outcome: "" | "done" | "failed"): void {
    const result = byId("control-result");
    result.dataset["outcome"] = outcome;
    setText(result, text);
  }

  #ask(owner: Owner, go: () => void): void {
    const earlier = this.#waiting?.owner === owner ? this.#waiting.go : undefined;
    this.#waiting = { owner, go: () => [earlier, go].forEach((then) => then?.()) };
    const [text, label] = ASKED[owner];
    setText(byId("control-ask-text"), text);
    setText(byId("control-ask-label"), label);
    this.#input.value = "";
    // without its token a guest shows nothing to go back to
    byId("control-ask-cancel").hidden = owner === "guest";
    byId("control-ask").hidden = false;
    if (owner === "daemon") this.#input.focus();
  }

  #answered(): void {
    const token = this.#input.value.trim();
    const waiting = this.#waiting;
    if (token === "" || waiting === undefined) return;
    if (waiting.owner === "daemon") keepToken(token);
    else this.#guestToken = token;
    this.#close();
    waiting.go();
  }

  #cancelled(): void {
    this.#close();
    this.#giveBack();
  }

  #close(): void {
    this.#waiting = undefined;
    this.#input.value = "";
    byId("control-ask").hidden = true;
  }
}
