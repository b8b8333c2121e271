//! `uni logs --source syslog`.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use uni_api::messages::{Message, Messages, MessagesParams};
use uni_api::rpc::method;

use super::console;
use crate::args::{Format, Level, LogsArgs};
use crate::client::{ANSWER_WAIT, CallError, Client};
use crate::{output, text};

/// How long the daemon may hold a request of `--follow` that has nothing to tell.
const FOLLOW_WAIT_MILLIS: u64 = 10_000;

/// Prints messages, and with `--follow` what comes, until the VM ends.
pub(super) fn logs(client: &mut Client, args: LogsArgs, format: Format) -> anyhow::Result<()> {
    let tail = args.tail.map(u32::try_from).transpose().context("--tail is too large")?;
    let all_vms = args.vm.is_none();
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut params = MessagesParams {
        id: args.vm.unwrap_or_default(),
        since_ms: args.since.map(millis),
        until_ms: args.until.map(millis),
        words: args.word,
        level: args.level.map_or("", Level::name).to_owned(),
        grep: args.grep.unwrap_or_default(),
        tail,
        ..MessagesParams::default()
    };
    if !args.follow && format == Format::Json {
        let mut all = Vec::new();
        told(client, &mut params, |page| {
            all.append(page);
            Ok(())
        })?;
        return output::json(&all);
    }
    let mut newest = Vec::new();
    let end = told(client, &mut params, |page| {
        newest.clone_from(page);
        print(page, format, all_vms)
    })?;
    if args.follow && !end.ended { follow(client, params, &end, &newest, format) } else { Ok(()) }
}

/// Gives `each` the pages of what the store has; the last answer says where to go on.
fn told(
    client: &mut Client,
    params: &mut MessagesParams,
    mut each: impl FnMut(&mut Vec<Message>) -> anyhow::Result<()>,
) -> anyhow::Result<Messages> {
    loop {
        let mut page: Messages = client.call_patiently(method::VM_MESSAGES, params, ANSWER_WAIT)?;
        each(&mut page.messages)?;
        params.id.clone_from(&page.id);
        params.after = page.next;
        // they were about the beginning
        (params.tail, params.since_ms) = (None, None);
        if !page.more {
            return Ok(page);
        }
    }
}

/// Prints messages as they arrive. What arrived while the last page was read may be on it: `shown`.
fn follow(
    client: &mut Client,
    mut params: MessagesParams,
    end: &Messages,
    shown: &[Message],
    format: Format,
) -> anyhow::Result<()> {
    let wait = ANSWER_WAIT + Duration::from_millis(FOLLOW_WAIT_MILLIS);
    (params.arrived, params.wait_ms) = (Some(end.arrived), FOLLOW_WAIT_MILLIS);
    let mut shown = shown;
    let all_vms = params.id.is_empty();
    loop {
        let mut page: Messages = match client.call_patiently(method::VM_MESSAGES, &params, wait) {
            Ok(page) => page,
            Err(CallError::Refused(_)) if console::is_removed(client, &params.id)? => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if page.missed > 0 {
            eprintln!(
                "uni: up to {} messages came faster than they were read and were left out",
                page.missed
            );
        }
        page.messages.retain(|message| !shown.contains(message));
        print(&page.messages, format, all_vms)?;
        if !page.messages.is_empty() {
            shown = &[];
        }
        if page.ended {
            return Ok(());
        }
        params.arrived = Some(page.arrived);
    }
}

fn print(messages: &[Message], format: Format, all_vms: bool) -> anyhow::Result<()> {
    match format {
        Format::Json => messages.iter().try_for_each(output::json_line),
        Format::Table => {
            output::text(&messages.iter().map(|message| line(message, all_vms)).collect::<String>())
        }
    }
}

/// One message, one line, with the name of its VM where they are of several: control characters are shown and not
/// obeyed, whoever reads it.
fn line(message: &Message, all_vms: bool) -> String {
    let mut line = format!("{} {:<7} ", message.time, message.severity);
    if all_vms {
        line.push_str(&text::one_line(if message.vm.is_empty() { "-" } else { &message.vm }));
        line.push(' ');
    }
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
        assert_eq!(
            line(&message, false),
            "2026-06-08T09:05:07.000Z err     dns[7]: [a b=\"^G\"] x^[[2J^Jy\n"
        );
        let bare = Message { appname: String::new(), structured_data: String::new(), ..message };
        assert_eq!(line(&bare, false), "2026-06-08T09:05:07.000Z err     x^[[2J^Jy\n");
        assert_eq!(line(&bare, true), "2026-06-08T09:05:07.000Z err     - x^[[2J^Jy\n");
    }
}
