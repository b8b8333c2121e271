// Owns the table of programs that report and are no VM: it can be read only.

import type { Sender } from "./decode.ts";
import { byId, element } from "./dom.ts";
import { ABSENT, classWord, formatBytes, formatDuration, orAbsent, visibleLine } from "./format.ts";

/** Shows them; the table is away while there are none. */
export function showSenders(senders: readonly Sender[], nowMs: number): void {
  byId("others").hidden = senders.length === 0;
  byId("senders").replaceChildren(...senders.map((sender) => row(sender, nowMs)));
}

function row(sender: Sender, nowMs: number): HTMLTableRowElement {
  const state = element("span", { class: `badge state-${classWord(sender.state)}`, text: visibleLine(sender.state) });
  const cell = (column: string, label: string, text: string): HTMLTableCellElement =>
    element("td", { text, attributes: { "data-cell": column, "data-label": label } });
  return element("tr", { attributes: { "data-sender": sender.name, "data-state": sender.state } }, [
    element("th", { text: visibleLine(sender.name), attributes: { scope: "row", "data-cell": "name" } }),
    element("td", { attributes: { "data-cell": "state", "data-label": "State" } }, [state]),
    cell("newest", "Newest point", sender.newestMs === null ? ABSENT : `${formatDuration(nowMs - sender.newestMs)} ago`),
    cell("guest", "Heap", orAbsent(sender.guestHeapBytes, formatBytes)),
    cell("answers", "Answers", orAbsent(sender.answersPerSecond, (rate) => `${rate.toFixed(1)}/s`)),
    cell("errors", "Errors logged", orAbsent(sender.logErrors, String)),
  ]);
}
