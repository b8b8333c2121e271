// Owns the chart of the list page: who holds the heaps of all VMs together.

import "uplot/dist/uPlot.min.css";
import { fetchLibraries } from "./api.ts";
import { Chart } from "./chart.ts";
import { byId } from "./dom.ts";
import { LibraryCurves, librariesPanel } from "./libraries.ts";
import { onSchemeChange } from "./theme.ts";

const EVERY_MS = 5_000;
const RANGE_SECONDS = 900;

/** Shows the chart as soon as any guest tells its libraries, and renews it. */
export function showFleet(): void {
  const libraries = new LibraryCurves();
  const spec = librariesPanel("Live bytes by library in the guests of all VMs together, as the guests estimate them");
  const events = { moved: (timeMs: number | undefined) => chart.showFigures(timeMs), zoomed: () => {}, back: () => {} };
  const chart: Chart = new Chart(spec, { first: true, last: true }, () => [], events);
  byId("fleet").append(chart.root);
  const renew = async (): Promise<void> => {
    if (document.hidden) return;
    try {
      const told = await fetchLibraries(undefined, RANGE_SECONDS);
      byId("fleet").hidden = told.libraries.length === 0;
      if (libraries.update(told, told.stepMs)) chart.setCurves(libraries.curves);
      chart.draw({ rings: libraries.rings, span: { fromMs: told.fromMs, toMs: told.toMs }, stepMs: told.stepMs });
      chart.showFigures(undefined);
    } catch {
      // The next round tries again; the connection's sign tells about a lasting loss.
    }
  };
  onSchemeChange(() => chart.redraw());
  void renew();
  setInterval(() => void renew(), EVERY_MS);
}
