//! Changes that end after a time, for guests that cannot do that themselves.
//!
//! Owns the commands that bring back what was before.

use std::collections::{BTreeMap, BTreeSet};

use uni_api::guest::ControlKind;

/// Names and states, as a guest lists them.
pub(super) type States = Vec<(String, String)>;

/// The command that makes `now` what it was `before`; nothing when it is so already.
pub(super) fn command(kind: ControlKind, before: &States, now: &States) -> Option<String> {
    if before == now {
        return None;
    }
    let items = match kind {
        // whole: a MirageOS guest resets all sources with every `L`
        ControlKind::Logs => before.iter().filter(|(name, _)| is_plain(name)).map(item).collect(),
        ControlKind::Metrics => metrics(before, now),
    };
    Some(format!("{}{}", letter(kind), items.join(",")))
}

/// The letter that begins a change.
pub(super) const fn letter(kind: ControlKind) -> char {
    match kind {
        ControlKind::Logs => 'L',
        ControlKind::Metrics => 'M',
    }
}

/// Only what differs, so that no sample is lost; all sources after what sets all of them, or those of a tag.
fn metrics(before: &States, now: &States) -> Vec<String> {
    let is_tag = |name: &str| name.starts_with("tag:");
    let was: BTreeMap<&str, &str> = first_mentions(before);
    let is: BTreeMap<&str, &str> = first_mentions(now);
    let differs = |name: &str| was.get(name) != is.get(name);
    let tags: BTreeSet<&str> = was.keys().chain(is.keys()).copied().filter(|name| is_tag(name)).collect();
    let mut items = Vec::new();
    if differs("*") {
        items.extend(was.get("*").map(|state| format!("*:{}", verb(state))));
    }
    let reset = !items.is_empty();
    for tag in tags.into_iter().filter(|tag| is_plain(&tag[4..]) && (reset || differs(tag))) {
        items.push(format!("{tag}:{}", if was.contains_key(tag) { "enable" } else { "disable" }));
    }
    let all = !items.is_empty();
    // a choice is not made for what is as all are anyway
    let by_default = |state: &str| reset && was.get("*") == Some(&"enabled") && state == "enabled";
    let sources = was.iter().filter(|(name, _)| **name != "*" && is_plain(name));
    items.extend(
        sources
            .filter(|(name, state)| (all || differs(name)) && !by_default(state))
            .map(|(name, state)| format!("{name}:{}", verb(state))),
    );
    items
}

/// Of several sources with one name, the one that a command means.
fn first_mentions(states: &States) -> BTreeMap<&str, &str> {
    states.iter().rev().map(|(name, state)| (name.as_str(), state.as_str())).collect()
}

fn item((name, state): &(String, String)) -> String {
    format!("{name}:{state}")
}

/// Whether a command can name it.
fn is_plain(name: &str) -> bool {
    !name.contains([',', ':'])
}

fn verb(state: &str) -> &'static str {
    if state == "enabled" { "enable" } else { "disable" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states(text: &str) -> States {
        let split =
            |item: &str| item.rsplit_once(':').map(|(name, state)| (name.to_owned(), state.to_owned()));
        text.split(',').filter_map(split).collect()
    }

    #[test]
    fn levels_come_back_whole() {
        let (before, now) = (states("*:info,dns:debug,tcp:info"), states("*:error,dns:error,tcp:error"));
        let command = |before, now| command(ControlKind::Logs, before, now);
        assert_eq!(command(&before, &now), Some("L*:info,dns:debug,tcp:info".to_owned()));
        assert_eq!(command(&before, &before), None);
    }

    #[test]
    fn of_metrics_only_what_differs_comes_back_unless_all_were_set() {
        let command = |before, now| command(ControlKind::Metrics, &states(before), &states(now));
        let before = "*:enabled,gc:enabled,net:disabled";
        assert_eq!(command(before, "*:enabled,gc:disabled,net:disabled"), Some("Mgc:enable".to_owned()));
        assert_eq!(
            command(before, "*:disabled,gc:disabled,net:disabled"),
            Some("M*:enable,net:disable".to_owned())
        );
        assert_eq!(
            command("*:disabled,gc:enabled", "*:disabled,tag:http:enabled,gc:enabled"),
            Some("Mtag:http:disable,gc:enable".to_owned())
        );
    }
}
