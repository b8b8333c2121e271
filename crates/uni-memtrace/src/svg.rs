//! A flame graph as SVG.
//!
//! Owns the drawing for programs that run no scripts. Opened in a browser, the same script as on the page takes over
//! and makes it a thing to walk in.

use std::fmt::Write as _;

use crate::flame::{FlameGraph, FlameNode};
use crate::html::inline_json;
use crate::{FLAME_SCRIPT, FLAME_STYLE};

const WIDTH: f64 = 1200.0;
const ROW: f64 = 20.0;
/// Narrower boxes are not drawn.
const NARROWEST: f64 = 0.5;
/// Room for title, tools and help.
const MARGIN: f64 = 130.0;
const CHARACTER: f64 = 6.6;
/// No box has room for more.
const MAX_CHARACTERS: usize = 180;

/// The picture. Widths are live bytes if there are any, else allocated ones.
///
/// # Errors
/// Never in practice: a tree of texts and numbers has a JSON form.
pub fn svg(graph: &FlameGraph) -> serde_json::Result<String> {
    let live = graph.nodes.first().is_some_and(|root| root.live > 0);
    let mut boxes = String::new();
    let depth = draw(graph, live, &mut boxes);
    let height = MARGIN + ROW * f64::from(depth + 1);
    let (title, data) = (escaped(&graph.title), inline_json(graph)?);
    let what = if live { "live" } else { "allocated" };
    Ok(format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n\
         <svg xmlns=\"http://www.w3.org/2000/svg\" class=\"flame\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\">\n\
         <title>Memory of {title}</title>\n<style><![CDATA[\n{FLAME_STYLE}.ground {{ fill: var(--flame-ground); }}\n.head {{ fill: var(--flame-text); }}\n]]></style>\n\
         <rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"head\" x=\"8\" y=\"24\">Memory of {title}, {what} bytes</text>\n\
         <g id=\"still\" transform=\"translate(0 40)\">\n{boxes}</g>\n\
         <foreignObject x=\"8\" y=\"36\" width=\"{}\" height=\"{}\">\n<div xmlns=\"http://www.w3.org/1999/xhtml\" id=\"flame\"></div>\n</foreignObject>\n\
         <script><![CDATA[\n{FLAME_SCRIPT}document.getElementById(\"still\").remove();\n\
         uniFlame.draw(document.getElementById(\"flame\"), {data});\n]]></script>\n</svg>\n",
        WIDTH - 16.0,
        height - 36.0,
    ))
}

/// Draws all boxes and returns the deepest row.
fn draw(graph: &FlameGraph, live: bool, out: &mut String) -> u32 {
    let size = |node: &FlameNode| if live { node.live } else { node.allocated } as f64;
    let whole = graph.nodes.first().map_or(0.0, size);
    let scale = if whole > 0.0 { WIDTH / whole } else { 0.0 };
    let mut deepest = 0;
    let mut open = vec![(0_usize, 0.0_f64, 0_u32)];
    while let Some((at, x, row)) = open.pop() {
        let Some(node) = graph.nodes.get(at) else { continue };
        let width = size(node) * scale;
        if width < NARROWEST {
            continue;
        }
        deepest = deepest.max(row);
        draw_box(node, (x, f64::from(row) * ROW, width), 100.0 * size(node) / whole, out);
        let mut left = x;
        for child in &node.children {
            open.push((*child, left, row + 1));
            left += graph.nodes.get(*child).map_or(0.0, size) * scale;
        }
    }
    deepest
}

fn draw_box(node: &FlameNode, (x, y, width): (f64, f64, f64), percent: f64, out: &mut String) {
    let [name, library, file] = [&node.name, &node.library, &node.file].map(|text| escaped(text));
    let hue = hue(if node.library.is_empty() { &node.name } else { &node.library });
    let (live, allocated) = (node.live, node.allocated);
    let _a_string_takes_all = write!(
        out,
        "<g class=\"flame-box\"><title>{name} {file} {library}: {percent:.1}%, {live} bytes live, {allocated} allocated</title>\
         <rect style=\"--hue:{hue}\" x=\"{x:.2}\" y=\"{y}\" width=\"{:.2}\" height=\"{}\"/>",
        (width - 0.5).max(0.5),
        ROW - 1.0,
    );
    let fits = |count: &usize| (*count as f64) * CHARACTER + 6.0 <= width;
    let room = node.name.chars().count().min(MAX_CHARACTERS);
    let room = (0..=room).rev().find(fits).unwrap_or(0);
    if room > 3 || room == node.name.chars().count() {
        let short: String = node.name.chars().take(room).collect();
        let _a_string_takes_all =
            write!(out, "<text x=\"{:.2}\" y=\"{}\">{}</text>", x + 3.0, y + 14.0, escaped(&short));
    }
    out.push_str("</g>\n");
}

/// As the script has it, so that a library keeps its colour.
fn hue(text: &str) -> u32 {
    text.chars().fold(7, |hash, c| (hash * 31 + u32::from(c)) % 360)
}

/// Text for HTML and XML: what has a meaning there is written as a reference, what is forbidden there as U+FFFD.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' | '\r' => out.push(' '),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                out.push(char::REPLACEMENT_CHARACTER);
            }
            c => out.push(c),
        }
    }
    out
}
