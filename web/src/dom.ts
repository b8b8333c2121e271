// Owns the making of elements. Text always goes in as text, never as markup.

interface Shape {
  class?: string;
  text?: string;
  title?: string;
  attributes?: Record<string, string>;
}

/** A new element with its class, text, attributes and children. */
export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  shape: Shape = {},
  children: readonly Node[] = [],
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  if (shape.class !== undefined) made.className = shape.class;
  if (shape.text !== undefined) made.textContent = shape.text;
  if (shape.title !== undefined) made.title = shape.title;
  for (const [name, value] of Object.entries(shape.attributes ?? {})) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** The element of the page with this id; the html files and the modules must agree, so absence is a defect. */
export function byId(id: string): HTMLElement {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page lacks its element #${id}`);
  return found;
}

/** Writes text only when it differs: an unchanged cell costs no layout and keeps a selection. */
export function setText(node: Node, text: string): void {
  if (node.textContent !== text) node.textContent = text;
}

/** A term and its value for a definition list. */
export function definition(term: string, value: string): Node[] {
  return [element("dt", { text: term }), element("dd", { text: value })];
}
