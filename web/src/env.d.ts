// Style sheets are imported for their effect; the bundler turns them into files.
declare module "*.css";
// The drawing of flame graphs is a plain script, for files as for this page.
declare module "*/flame.js";
declare const uniFlame: { draw(container: HTMLElement, graph: { title: string; nodes: readonly object[] }): void };
