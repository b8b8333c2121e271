//! What the pages show to browsers without JavaScript: the same facts, as of the moment of asking.
//!
//! Owns the markup and its escaping; it stands inside `<noscript>`. Never asks a VM anything.

use std::fmt::Write as _;

use uni_api::page::{Detail, ListedVm};
use uni_api::vm::Stats;

/// Where the built pages take it.
const PLACE: &str = "<!--plain-->";
/// VMs listed at most: with JavaScript, all this is loaded for nothing.
const MAX_LISTED: usize = 200;

/// The page with its title and what it shows without JavaScript.
pub(super) fn fill(html: &str, title: &str, now: &str) -> String {
    let filled = html.replacen(PLACE, now, 1);
    match (filled.find("<title>"), filled.find("</title>")) {
        (Some(from), Some(to)) if from < to => {
            format!("{}<title>{}{}", &filled[..from], escaped(title), &filled[to..])
        }
        _ => filled,
    }
}

/// The table of all VMs.
pub(super) fn list(vms: &[ListedVm]) -> String {
    if vms.is_empty() {
        return "<p>No VMs registered</p>".to_owned();
    }
    let heads = ["ID", "Name", "State", "Health", "Image"].map(|head| format!("<th>{head}</th>")).concat();
    let rows: String = vms.iter().take(MAX_LISTED).map(row).collect();
    let table = format!("<table class=\"vms\"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>");
    match vms.len().checked_sub(MAX_LISTED) {
        Some(more @ 1..) => format!("{table}<p>and {more} more: <code>uni ps</code> lists them</p>"),
        _ => table,
    }
}

fn row(vm: &ListedVm) -> String {
    let id = escaped(&vm.id);
    let cells = [&vm.name, &vm.state, &vm.health, &vm.image]
        .map(|text| format!("<td>{}</td>", escaped(or_dash(text))));
    format!("<tr><td><a href=\"/ui/vm/{id}\">{id}</a></td>{}</tr>", cells.concat())
}

/// One VM.
pub(super) fn detail(vm: &Detail, stats: &Stats, console: &str) -> String {
    let restarts = format!(
        "{}, {} times",
        if vm.restart_policy.is_empty() { "never" } else { &vm.restart_policy },
        vm.restart_count
    );
    let overview = pairs(&[
        ("Name", &vm.name),
        ("State", &vm.state),
        ("Health", &vm.health),
        ("Image", &vm.image),
        ("Memory", &vm.memory),
        ("CPUs", &vm.cpus.to_string()),
        ("IP", &vm.ip_address),
        ("Gateway", &vm.gateway_ip),
        ("Restart", &restarts),
        ("Created", &vm.created_at),
        ("Started", &vm.started_at),
        ("Stopped", &vm.stopped_at),
    ]);
    let measured = pairs(&[
        ("CPU", &format!("{:.1} %", stats.cpu_pct)),
        ("Memory, bytes", &stats.mem_bytes.to_string()),
        ("Received, bytes", &stats.net_rx_bytes.to_string()),
        ("Sent, bytes", &stats.net_tx_bytes.to_string()),
        ("Source", &stats.source),
    ]);
    let ports =
        vm.ports.iter().map(|port| format!("{} → {}/{}", port.host_port, port.guest_port, port.protocol));
    let console = match console {
        "" => "<p>No console output captured</p>".to_owned(),
        text => format!("<pre class=\"console\">{}</pre>", escaped(text)),
    };
    format!(
        "<h2>Overview</h2>{overview}{}{}<h2>Stats</h2>{measured}<h2>Serial Console Output</h2>{console}",
        items("Port Mappings", ports),
        items("Environment Variables", vm.env.iter().cloned())
    )
}

fn pairs(pairs: &[(&str, &str)]) -> String {
    let mut out = "<dl class=\"pairs\">".to_owned();
    for (term, value) in pairs {
        let _a_string_takes_all = write!(out, "<dt>{term}</dt><dd>{}</dd>", escaped(or_dash(value)));
    }
    out + "</dl>"
}

fn items(heading: &str, items: impl Iterator<Item = String>) -> String {
    let items: String = items.map(|item| format!("<li>{}</li>", escaped(&item))).collect();
    if items.is_empty() { items } else { format!("<h2>{heading}</h2><ul class=\"plain\">{items}</ul>") }
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// Text as HTML shows it as it is. Control characters, and those that turn the direction of writing, become U+FFFD.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            '\r' => {}
            _ if c.is_control() => out.push('\u{fffd}'),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                out.push('\u{fffd}');
            }
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(id: &str, image: &str) -> ListedVm {
        let [id, name, state, image, health] = [id, "web", "running", image, ""].map(str::to_owned);
        ListedVm { id, name, state, image, health }
    }

    #[test]
    fn hostile_text_stays_text() {
        let list = list(&[vm("9f2c41d07ab3", "</noscript><script>alert('1')</script>\u{202e}\x1b&")]);
        assert!(
            list.contains(
                "&lt;/noscript&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;\u{fffd}\u{fffd}&amp;"
            ),
            "{list}"
        );
        assert!(!list.contains("<script"), "{list}");
    }

    #[test]
    fn a_list_is_cut_and_says_so() {
        let vms = vec![vm("9f2c41d07ab3", "/i"); MAX_LISTED + 7];
        let many = list(&vms);
        assert_eq!(many.matches("<a href=\"/ui/vm/9f2c41d07ab3\">").count(), MAX_LISTED);
        assert!(many.contains("and 7 more"));
        assert!(!list(&vms[..MAX_LISTED]).contains("more"));
        assert_eq!(list(&[]), "<p>No VMs registered</p>");
    }

    #[test]
    fn a_page_gets_its_title_and_its_facts() {
        let html = "<head><title>Uni</title></head><noscript><!--plain--></noscript>";
        assert_eq!(
            fill(html, "Uni — VM <1>", "<p>now</p>"),
            "<head><title>Uni — VM &lt;1&gt;</title></head><noscript><p>now</p></noscript>"
        );
    }
}
