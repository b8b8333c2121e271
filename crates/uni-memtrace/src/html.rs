//! A flame graph as one file of HTML that needs nothing else.
//!
//! Owns the page around the drawing. Names go in as JSON in which nothing can end the element that it is in.

use std::fmt::Write as _;

use crate::flame::FlameGraph;
use crate::svg::escaped;
use crate::{FLAME_SCRIPT, FLAME_STYLE};

/// The page.
///
/// # Errors
/// Never in practice: a tree of texts and numbers has a JSON form.
pub fn html(graph: &FlameGraph) -> serde_json::Result<String> {
    let data = inline_json(graph)?;
    let mut page = String::new();
    let title = escaped(&graph.title);
    let _a_string_takes_all = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta http-equiv=\"content-security-policy\" content=\"default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'\">\n\
         <title>Memory of {title}</title>\n<style>\n{FLAME_STYLE}\
         body {{ margin: 1rem; background: light-dark(#fff, #17171b); }}\n:root {{ color-scheme: light dark; }}\n</style>\n\
         </head>\n<body class=\"flame\">\n<h1>Memory of {title}</h1>\n<main id=\"flame\"><noscript>The drawing needs scripts; an .svg does not.</noscript></main>\n\
         <script>\n{FLAME_SCRIPT}uniFlame.draw(document.getElementById(\"flame\"), {data});\n</script>\n</body>\n</html>\n"
    );
    Ok(page)
}

/// JSON that can stand inside a script: without `<`, `>` and `&`, and the line ends that are none in JSON.
pub(crate) fn inline_json(graph: &FlameGraph) -> serde_json::Result<String> {
    let mut out = String::new();
    for c in serde_json::to_string(graph)?.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _a_string_takes_all = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}
