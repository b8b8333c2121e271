//! Recorded messages against Uni's writer of MirageOS's form.
//!
//! Owns the meaning of a case (what was logged, and the `datagram` it became), and a model of the original in which
//! each deliberate difference is a switch, as for the control port.

use anyhow::{Context as _, bail};
use serde_json::Value as Json;
use uni_wire::Timestamp;
use uni_wire::civil::Civil;
use uni_wire::syslog::{Facility, Format, Message, Severity};

use super::recorded::stands_for;
use super::{Explanation, Rule, Verdict, boxes, list, text, weigh};

/// The first, for line ends that the formatter makes are no characters of the message.
const LINE_BREAKS: usize = 0;
const NO_LIMIT: usize = 1;
const CONTROL: usize = 2;
const WHOLE: usize = 3;

/// The deliberate differences, by the numbers above.
pub(super) static RULES: [Rule; 4] = [
    Rule {
        name: "line breaks",
        reason: "long sets of log tags stay on one line; there a formatter breaks them",
    },
    Rule { name: "no limit", reason: "a truncation of 0 is none; there it makes every message empty" },
    Rule {
        name: "control characters",
        reason: "control characters are written as `#` and octal digits; there they go out as they are",
    },
    Rule {
        name: "whole characters",
        reason: "messages and tags are cut between two characters; there anywhere",
    },
];

/// Most bytes of a tag.
const MAX_TAG_BYTES: usize = 32;

struct Logged<'a> {
    facility: Facility,
    severity: Severity,
    date: Civil,
    host: Option<&'a str>,
    source: &'a str,
    header: Option<&'a str>,
    tags: Vec<(&'a str, &'a str)>,
    message: &'a str,
    truncate: Option<usize>,
}

pub(super) fn judge(case: &Json) -> anyhow::Result<Verdict> {
    let logged = Logged::read(case)?;
    let recorded = text(case, "datagram")?;
    let (ours, models) = (logged.replay()?, logged.explain());
    let same = stands_for(recorded, &ours);
    let explained = stands_for(recorded, &models.original);
    Ok(weigh(&ours, same, explained, models))
}

impl<'a> Logged<'a> {
    fn read(case: &'a Json) -> anyhow::Result<Self> {
        let optional = |key: &str| -> anyhow::Result<Option<&Json>> {
            Ok(Some(case.get(key).with_context(|| format!("{key:?} is missing"))?)
                .filter(|value| !value.is_null()))
        };
        let facility = optional("facility")?.map_or(Some(3), Json::as_u64);
        let facility = facility.and_then(|code| Facility::from_code(u8::try_from(code).ok()?));
        let severity = match text(case, "level")? {
            "app" | "info" => Severity::Informational,
            "error" => Severity::Error,
            "warning" => Severity::Warning,
            "debug" => Severity::Debug,
            other => bail!("no such level: {other}"),
        };
        let numbers: Vec<i64> = list(case, "time_utc")?.iter().filter_map(Json::as_i64).collect();
        let [year, month, day, hour, minute, second] = numbers[..] else {
            bail!("\"time_utc\" is not six numbers")
        };
        let [month, day, hour, minute, second] = [month, day, hour, minute, second].map(u8::try_from);
        // A leap second is the first of the next minute there.
        let (second, leap) = match second? {
            60 => (59, 1),
            second => (second, 0),
        };
        let date = Civil { year, month: month?, day: day?, hour: hour?, minute: minute?, second };
        let unix_seconds = date.unix_seconds().with_context(|| format!("no such date: {date}"))?;
        let date = Civil::from_unix_seconds(unix_seconds + leap);
        let tags = list(case, "tags")?.iter().map(|pair| match pair.as_array().map(Vec::as_slice) {
            Some([Json::String(name), Json::String(value)]) => Ok((name.as_str(), value.as_str())),
            _ => bail!("{pair} is not a log tag"),
        });
        let local = case.get("local").and_then(Json::as_bool).context("\"local\" is not a boolean")?;
        let truncate = optional("truncate")?;
        Ok(Self {
            facility: facility.context("no such facility")?,
            severity,
            date,
            host: (!local).then(|| text(case, "hostname")).transpose()?,
            source: text(case, "source")?,
            header: optional("header")?
                .map(|h| h.as_str().context("\"header\" is not a string"))
                .transpose()?,
            tags: tags.collect::<Result<_, _>>()?,
            message: text(case, "message")?,
            truncate: truncate
                .map(|n| {
                    n.as_u64().and_then(|n| usize::try_from(n).ok()).context("\"truncate\" is not a length")
                })
                .transpose()?,
        })
    }

    fn replay(&self) -> anyhow::Result<Vec<u8>> {
        let message = Message {
            facility: self.facility,
            severity: self.severity,
            time: Timestamp::from_seconds(self.date.unix_seconds().context("no such date")?),
            host: self.host,
            tag: self.source,
            header: self.header,
            tags: &self.tags,
            text: self.message,
        };
        let mut out = String::new();
        message.write(Format::Mirage, self.truncate.unwrap_or(0), &mut out)?;
        Ok(out.into_bytes())
    }

    /// Switches the rules on one by one.
    fn explain(&self) -> Explanation<Vec<u8>> {
        let mut on = [false; RULES.len()];
        let original = self.model(on);
        let (mut documented, mut covering) = (original.clone(), Vec::new());
        for (n, rule) in RULES.iter().enumerate() {
            on[n] = true;
            let datagram = self.model(on);
            if datagram != documented {
                covering.push(rule);
                documented = datagram;
            }
        }
        if original == documented {
            covering.clear();
        }
        Explanation { original, documented, covering }
    }

    fn tag_set(&self) -> String {
        let pairs = self.tags.iter().map(|(name, value)| format!("(tag:{name} {value})"));
        format!("{{{}}}", pairs.collect::<String>())
    }

    fn model(&self, on: [bool; RULES.len()]) -> Vec<u8> {
        let Civil { day, hour, minute, second, .. } = self.date;
        let priority = self.facility as u32 * 8 + self.severity as u32;
        let month = self.date.month_name();
        let mut units: Vec<Vec<u8>> = Vec::new();
        let mut add = |text: &str| units.extend(text.chars().map(|c| unit(c, on[CONTROL])));
        add(&format!("<{priority}>{month} {day:02} {hour:02}:{minute:02}:{second:02} "));
        if let Some(host) = self.host {
            add(host);
            add(" ");
        }
        let mut tag_end = self.source.len().min(MAX_TAG_BYTES);
        if on[WHOLE] {
            tag_end = self.source.floor_char_boundary(tag_end);
        }
        let (whole, cut) =
            self.source.as_bytes()[..tag_end].split_at(self.source.floor_char_boundary(tag_end));
        add(std::str::from_utf8(whole).unwrap_or_default());
        units.push(cut.to_vec());
        let mut add = |text: &str| units.extend(text.chars().map(|c| unit(c, on[CONTROL])));
        let broken = || boxes::tag_set(&self.tags);
        let tag_set =
            (!self.tags.is_empty()).then(|| if on[LINE_BREAKS] { self.tag_set() } else { broken() });
        for part in [tag_set.as_deref(), self.header].into_iter().flatten() {
            add(" ");
            add(part);
        }
        add(" ");
        add(self.message);
        cut_to(units, self.truncate.filter(|n| *n > 0 || !on[NO_LIMIT]), on[WHOLE])
    }
}

/// A character as it is sent.
fn unit(c: char, escaped: bool) -> Vec<u8> {
    if escaped && c.is_control() {
        format!("#{:03o}", u32::from(c)).into_bytes()
    } else {
        c.to_string().into_bytes()
    }
}

fn cut_to(units: Vec<Vec<u8>>, limit: Option<usize>, whole: bool) -> Vec<u8> {
    let limit = limit.unwrap_or(usize::MAX);
    let mut out = Vec::new();
    for unit in units {
        let room = limit - out.len();
        if unit.len() > room {
            let kept = if whole { 0 } else { room };
            out.extend_from_slice(&unit[..kept]);
            break;
        }
        out.extend(unit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn logged<'a>(source: &'a str, message: &'a str, truncate: Option<usize>) -> Logged<'a> {
        Logged {
            facility: Facility::Daemon,
            severity: Severity::Error,
            date: Civil { year: 2026, month: 6, day: 8, hour: 9, minute: 5, second: 7 },
            host: Some("h"),
            source,
            header: None,
            tags: Vec::new(),
            message,
            truncate,
        }
    }

    /// Uni's datagram, which must be the one documented, the original's, and the rules that cover it.
    fn covered(logged: &Logged<'_>) -> (String, Vec<u8>, Vec<&'static str>) {
        let Explanation { original, documented, covering } = logged.explain();
        let ours = logged.replay().expect("a good case");
        assert_eq!(ours, documented);
        let ours = String::from_utf8(ours).expect("text");
        (ours, original, covering.iter().map(|rule| rule.name).collect())
    }

    #[test]
    fn characters_stay_whole() {
        let (ours, theirs, rules) = covered(&logged("dns", "aé", Some(28)));
        assert_eq!((ours.as_str(), rules), ("<27>Jun 08 09:05:07 h dns a", vec!["whole characters"]));
        assert_eq!(theirs, b"<27>Jun 08 09:05:07 h dns a\xc3");
        let tag = "x".to_owned() + &"é".repeat(20);
        let (ours, _, rules) = covered(&logged(&tag, "t", None));
        assert_eq!((ours.len(), rules), (22 + 31 + 2, vec!["whole characters"]));
    }

    #[test]
    fn long_tag_sets_stay_on_one_line() {
        let value = "v".repeat(80);
        let rich = Logged { tags: vec![("k", &value)], ..logged("dns", "t", None) };
        let (ours, _, rules) = covered(&rich);
        assert_eq!(rules, ["line breaks"]);
        assert!(!ours.contains('\n'));
        for (truncate, covering) in [(20, vec![]), (33, vec![]), (34, vec!["line breaks"])] {
            let cut = Logged { tags: vec![("k", &value)], ..logged("dns", "t", Some(truncate)) };
            assert_eq!(covered(&cut).2, covering, "{truncate}");
        }
        for (length, covering) in [(68, vec![]), (69, vec!["line breaks"])] {
            let edge = Logged { tags: vec![("k", &value[..length.min(80)])], ..logged("dns", "t", None) };
            assert_eq!(covered(&edge).2, covering, "{length}");
        }
        let case = serde_json::json!({
            "level": "error", "hostname": "h", "source": "dns", "facility": null, "header": null,
            "tags": [["k", value]], "time_utc": [2026, 6, 8, 9, 5, 7], "truncate": null, "local": false,
            "message": "t", "datagram": format!("<27>Jun 08 09:05:07 h dns {{(tag:k\n  {value})}} t"),
        });
        assert!(matches!(judge(&case), Ok(Verdict::Apart(_))), "{:?}", judge(&case));
    }

    proptest! {
        #[test]
        fn documentation_and_code_agree(
            source in "(?s).{0,40}", message in "(?s).{0,40}", host in "(?s).{0,8}",
            tags in proptest::collection::vec(("[a-z]{0,90}|[a-z]{0,6}", "(?s).{0,8}|[ -~]{60,80}|\\PC{0,120}"), 0..4),
            header in proptest::option::of("(?s).{0,4}"), truncate in proptest::option::of(0_usize..300),
            local in any::<bool>(),
        ) {
            let logged = Logged {
                host: (!local).then_some(&host),
                header: header.as_deref(),
                tags: tags.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
                ..logged(&source, &message, truncate)
            };
            let (ours, theirs, rules) = covered(&logged);
            prop_assert_eq!(ours.as_bytes() == theirs, rules.is_empty());
        }
    }
}
