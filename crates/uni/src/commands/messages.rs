//! `uni logs --source syslog`.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use uni_api::messages::{Message, Messages, MessagesParams};
use uni_api::rpc::method;

use crate::args::{Format, Level, LogsArgs};
use crate::client::{ANSWER_WAIT, Client};
use crate::{output, text};

/// How long the daemon may hold a request of `--follow` that has nothing to tell.
const FOLLOW_WAIT_MILLIS: u64 = 10_000;

/// Prints messages, and with `--follow` what comes, until the VM ends.
pub(super) fn logs(client: &mut Client, args: LogsArgs, format: Format) -> anyhow::Result<()> {
    let tail = args.tail.map(u32::try_from).transpose().context("--tail is too large")?;
    let mut params = MessagesParams {
        id: args.vm.vm,
        since_ms: args.since.map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
        level: args.level.map_or("", Level::name).to_owned(),
        grep: args.grep.unwrap_or_default(),
        tail,
        ..MessagesParams::default()
    };
    // one document, unless it never ends
    let mut all = (format == Format::Json && !args.follow).then(Vec::new);
    loop {
        let wait = ANSWER_WAIT + Duration::from_millis(params.wait_ms);
        let page: Messages = client.call_patiently(method::VM_MESSAGES, &params, wait)?;
        match &mut all {
            Some(all) => all.extend(page.messages),
            None => print(&page.messages, format)?,
        }
        if !page.more && (page.ended || !args.follow) {
            break;
        }
        if !page.more {
            params.wait_ms = FOLLOW_WAIT_MILLIS;
        }
        (params.id, params.after) = (page.id, page.next);
        // they were about the beginning
        (params.tail, params.since_ms) = (None, None);
    }
    all.map_or(Ok(()), |all| output::json(&all))
}

fn print(messages: &[Message], format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => messages.iter().try_for_each(output::json_line),
        Format::Table => output::text(&messages.iter().map(line).collect::<String>()),
    }
}

/// One message, one line: control characters are shown and not obeyed, whoever reads it.
fn line(message: &Message) -> String {
    let mut line = format!("{} {:<7} ", message.time, message.severity);
    // writing to a String cannot fail
    let _ = match (message.appname.as_str(), message.procid.as_str()) {
        ("", _) => Ok(()),
        (app, "") => write!(line, "{}: ", text::one_line(app)),
        (app, process) => write!(line, "{}[{}]: ", text::one_line(app), text::one_line(process)),
    };
    if !message.structured_data.is_empty() {
        line.push_str(&text::one_line(&message.structured_data));
        line.push(' ');
    }
    line.push_str(&text::one_line(&message.message));
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_harmless_line() {
        let message = Message {
            time: "2026-06-08T09:05:07.000Z".to_owned(),
            severity: "err".to_owned(),
            appname: "dns".to_owned(),
            procid: "7".to_owned(),
            structured_data: "[a b=\"\x07\"]".to_owned(),
            message: "x\x1b[2J\ny".to_owned(),
            ..Message::default()
        };
        assert_eq!(line(&message), "2026-06-08T09:05:07.000Z err     dns[7]: [a b=\"^G\"] x^[[2J^Jy\n");
        let bare = Message { appname: String::new(), structured_data: String::new(), ..message };
        assert_eq!(line(&bare), "2026-06-08T09:05:07.000Z err     x^[[2J^Jy\n");
    }
}
