// Draws a flame graph of memory and lets people walk in it. One plain script, for files and for pages:
//
//   uniFlame.draw(container, graph)
//
// `graph` is { title, nodes: [{ name, file, library, allocated, live, children: [index, ...] }, ...] }, the first node
// the root, sizes in bytes. Text only ever becomes text nodes. Looks come from flame.css.
(() => {
  "use strict";
  const HTML = "http://www.w3.org/1999/xhtml";
  const SVG = "http://www.w3.org/2000/svg";
  const ROW = 20;
  // Narrower boxes are not drawn, in pixels.
  const NARROWEST = 0.5;
  // Boxes with room for less text have none, in pixels; and how wide a character is.
  const NARROWEST_TEXT = 30;
  const CHARACTER = 6.6;

  function make(space, tag, attributes, ...children) {
    const node = document.createElementNS(space, tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }

  function bytes(count) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let unit = 0;
    let value = count;
    while (value >= 1023.95 && unit + 1 < units.length) {
      value /= 1024;
      unit += 1;
    }
    return unit === 0 ? `${value} B` : `${value.toFixed(1)} ${units[unit]}`;
  }

  function hue(text) {
    let hash = 7;
    for (const c of text) hash = (hash * 31 + c.codePointAt(0)) % 360;
    return hash;
  }

  function parentsOf(nodes) {
    const parents = new Array(nodes.length).fill(-1);
    nodes.forEach((node, at) => node.children.forEach((child) => (parents[child] = at)));
    return parents;
  }

  function draw(container, graph) {
    const nodes = graph.nodes;
    const parents = parentsOf(nodes);
    const state = { kind: nodes[0].live > 0 ? "live" : "allocated", zoom: 0, focus: 0, wanted: "" };
    let shown = new Map();

    const size = (at) => nodes[at][state.kind];
    const matches = (at) => {
      if (state.wanted === "") return false;
      const node = nodes[at];
      return `${node.name}\n${node.file}\n${node.library}`.toLowerCase().includes(state.wanted);
    };
    const share = (part) => (size(0) > 0 ? ((100 * part) / size(0)).toFixed(1) : "0.0");
    const describe = (at) => {
      const node = nodes[at];
      const place = node.file === "" ? "" : ` (${node.file})`;
      const library = node.library === "" ? "" : `, library ${node.library}`;
      const [live, allocated] = [bytes(node.live), bytes(node.allocated)];
      return `${node.name}${place}${library}: ${share(size(at))}%, ${live} live, ${allocated} allocated`;
    };

    const kind = make(HTML, "select", { "aria-label": "What the widths mean" });
    for (const [value, text] of [["live", "Live bytes"], ["allocated", "Allocated bytes"]]) {
      kind.append(make(HTML, "option", { value }, text));
    }
    kind.value = state.kind;
    const search = make(HTML, "input", { type: "search", placeholder: "Search ( / )", "aria-label": "Search functions, files and libraries" });
    const reset = make(HTML, "button", { type: "button" }, "Whole graph (Esc)");
    const status = make(HTML, "p", { class: "flame-status", role: "status", "aria-live": "polite" });
    const help = make(HTML, "p", { class: "flame-help" }, "Arrow keys walk, Enter or a click zooms, Esc shows all, / searches.");
    const picture = make(SVG, "svg", { class: "flame-picture", role: "tree", "aria-label": `Flame graph of ${graph.title}` });
    container.replaceChildren(
      make(HTML, "div", { class: "flame-tools" }, kind, search, reset),
      status,
      picture,
      help,
    );

    function box(at, x, y, width, context) {
      const g = make(SVG, "g", {
        class: `flame-box${context ? " flame-context" : ""}${matches(at) ? " flame-match" : ""}`,
        role: "treeitem",
        tabindex: at === state.focus ? "0" : "-1",
        "aria-label": describe(at),
        "data-node": at,
      });
      const rect = make(SVG, "rect", { x, y, width: Math.max(width - 0.5, 0.5), height: ROW - 1 });
      rect.style.setProperty("--hue", hue(nodes[at].library || nodes[at].name));
      g.append(make(SVG, "title", {}, describe(at)), rect);
      if (width > NARROWEST_TEXT) {
        const room = Math.floor((width - 6) / CHARACTER);
        const name = nodes[at].name;
        const text = name.length > room ? `${name.slice(0, Math.max(room - 1, 1))}…` : name;
        g.append(make(SVG, "text", { x: x + 3, y: y + 14 }, text));
      }
      shown.set(at, g);
      picture.append(g);
    }

    function render() {
      const width = container.clientWidth || 1200;
      picture.replaceChildren();
      shown = new Map();
      const callers = [];
      for (let at = parents[state.zoom]; at >= 0; at = parents[at]) callers.unshift(at);
      callers.forEach((at, row) => box(at, 0, row * ROW, width, true));
      let deepest = callers.length;
      const scale = size(state.zoom) > 0 ? width / size(state.zoom) : 0;
      const open = [[state.zoom, 0, callers.length]];
      while (open.length > 0) {
        const [at, x, row] = open.pop();
        const wide = at === state.zoom ? width : size(at) * scale;
        if (wide < NARROWEST) continue;
        box(at, x, row * ROW, wide, false);
        deepest = Math.max(deepest, row);
        let left = x;
        for (const child of nodes[at].children) {
          open.push([child, left, row + 1]);
          left += size(child) * scale;
        }
      }
      picture.setAttribute("width", width);
      picture.setAttribute("height", (deepest + 1) * ROW);
      tell();
    }

    function tell() {
      if (state.wanted === "") {
        status.textContent = describe(state.focus);
        return;
      }
      // what is below another match is in it already
      let sum = 0;
      let count = 0;
      const open = [0];
      while (open.length > 0) {
        const at = open.pop();
        if (matches(at)) {
          sum += size(at);
          count += 1;
        } else {
          open.push(...nodes[at].children);
        }
      }
      status.textContent = `${count} found, ${bytes(sum)}, ${share(sum)}%`;
    }

    function focus(at) {
      const before = shown.get(state.focus);
      if (before) before.setAttribute("tabindex", "-1");
      state.focus = at;
      const now = shown.get(at);
      if (now) {
        now.setAttribute("tabindex", "0");
        now.focus();
      }
      if (state.wanted === "") tell();
    }

    function zoom(at) {
      state.zoom = at;
      state.focus = at;
      render();
      focus(at);
    }

    function sibling(at, step) {
      const parent = parents[at];
      if (parent < 0) return at;
      const all = nodes[parent].children.filter((child) => shown.has(child));
      return all[all.indexOf(at) + step] ?? at;
    }

    const steps = {
      ArrowUp: (at) => (parents[at] >= 0 ? parents[at] : at),
      ArrowDown: (at) => nodes[at].children.find((child) => shown.has(child)) ?? at,
      ArrowLeft: (at) => sibling(at, -1),
      ArrowRight: (at) => sibling(at, 1),
      Home: () => state.zoom,
    };

    picture.addEventListener("click", (event) => {
      const g = event.target.closest("[data-node]");
      if (g) zoom(Number(g.getAttribute("data-node")));
    });
    picture.addEventListener("keydown", (event) => {
      if (event.key in steps) focus(steps[event.key](state.focus));
      else if (event.key === "Enter" || event.key === " ") zoom(state.focus);
      else return;
      event.preventDefault();
    });
    container.addEventListener("keydown", (event) => {
      if (event.key === "Escape") zoom(0);
      else if (event.key === "/" && event.target !== search) search.focus();
      else return;
      event.preventDefault();
    });
    search.addEventListener("input", () => {
      state.wanted = search.value.trim().toLowerCase();
      for (const [at, g] of shown) g.classList.toggle("flame-match", matches(at));
      tell();
    });
    kind.addEventListener("change", () => {
      state.kind = kind.value;
      render();
    });
    reset.addEventListener("click", () => zoom(0));
    if (typeof ResizeObserver !== "undefined") {
      let last = container.clientWidth;
      new ResizeObserver(() => {
        if (container.clientWidth !== last) {
          last = container.clientWidth;
          render();
        }
      }).observe(container);
    }
    render();
  }

  globalThis.uniFlame = { draw };
})();
