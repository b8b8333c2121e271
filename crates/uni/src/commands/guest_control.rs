//! `uni log-level` and `uni metrics`: what guests log and measure, shown and changed.
//!
//! Owns which guests are meant, and how their answers are printed. What a change may say is the daemon's business.

use std::io::IsTerminal as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use serde::Serialize;
use serde_json::Value;
use uni_api::guest::{ControlAnswer, ControlKind, ControlParams, Exposition, Secret, SourceState};
use uni_api::rpc::method;
use uni_api::vm::{VmInfo, VmRef};

use crate::args::{Format, GuestControlArgs};
use crate::client::{ANSWER_WAIT, Client};
use crate::{glob, output, render, text};

/// Guests asked at one time.
const AT_ONCE: usize = 16;
/// The longest token that is read.
const MAX_TOKEN_BYTES: u64 = 1024;

/// How it went with one of several guests.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    /// The VM's name.
    pub(crate) guest: String,
    /// What is in force now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sources: Option<Vec<SourceState>>,
    /// Why that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// Shows or changes one guest's settings, or those of all VMs that a pattern names.
///
/// # Errors
/// What failed; of several VMs, that some did.
pub(super) fn run(
    client: &mut Client,
    args: GuestControlArgs,
    kind: ControlKind,
    format: Format,
) -> anyhow::Result<()> {
    let params = params(args, kind)?;
    if glob::is_pattern(&params.id) {
        return several(client, &params, format);
    }
    let answer: ControlAnswer = client.call(method::VM_CONTROL, &params, ANSWER_WAIT)?;
    match format {
        Format::Table => output::text(&render::sources(kind, &answer.sources)),
        Format::Json => output::json(&answer),
    }
}

/// Prints what one guest tells Prometheus: to a terminal made harmless, elsewhere as it is.
///
/// # Errors
/// What failed.
pub(super) fn scrape(client: &mut Client, vm: String, format: Format) -> anyhow::Result<()> {
    ensure!(!glob::is_pattern(&vm), "--scrape is for one VM; {vm:?} names several");
    let told: Exposition = client.call(method::VM_SCRAPE, &VmRef { id: vm }, ANSWER_WAIT)?;
    match format {
        Format::Table if std::io::stdout().is_terminal() => output::text(&text::harmless(&told.text)),
        Format::Table => output::text(&told.text),
        Format::Json => output::json(&told),
    }
}

fn params(args: GuestControlArgs, kind: ControlKind) -> anyhow::Result<ControlParams> {
    let token = args.token_file.as_deref().map(read_token).transpose()?;
    let (id, spec) = match (&args.addr, args.vm, args.spec) {
        (None, vm, spec) => (vm.unwrap_or_default(), spec),
        // the address takes the VM's place
        (Some(_), spec, None) => (String::new(), spec),
        (Some(_), Some(_), Some(_)) => bail!("--addr takes the place of the VM; name one of both"),
        (Some(_), None, spec) => (String::new(), spec),
    };
    let addr = args.addr.unwrap_or_default();
    ensure!(args.time.is_none() || spec.is_some(), "--for needs a change (SPEC) that is to end");
    Ok(ControlParams { id, addr, kind, spec, for_seconds: args.time, token })
}

/// A guest's token.
///
/// # Errors
/// When the file cannot be read, or holds none.
pub(super) fn read_token(path: &Path) -> anyhow::Result<Secret> {
    let context = || format!("read the token from {}", path.display());
    let length = std::fs::metadata(path).with_context(context)?.len();
    ensure!(length <= MAX_TOKEN_BYTES, "{} has {length} bytes; a token is shorter", path.display());
    let text = std::fs::read_to_string(path).with_context(context)?;
    Ok(Secret(text.trim_end_matches(['\r', '\n']).to_owned()))
}

fn several(client: &mut Client, params: &ControlParams, format: Format) -> anyhow::Result<()> {
    let vms: Vec<VmInfo> = client.call(method::VM_LIST, &Value::Null, ANSWER_WAIT)?;
    let is_up = |vm: &VmInfo| vm.state != "stopped" && vm.state != "created";
    let named: Vec<_> =
        vms.into_iter().filter(|vm| is_up(vm) && glob::matches(&params.id, &vm.name)).collect();
    ensure!(
        !named.is_empty(),
        "no running VM's name matches {:?}; `uni ps` lists the VMs there are",
        params.id
    );
    let mut outcomes = Vec::new();
    for some in named.chunks(AT_ONCE) {
        outcomes.extend(at_once(client, params, some)?);
    }
    let failed = outcomes.iter().filter(|outcome| outcome.error.is_some()).count();
    match format {
        Format::Table => output::text(&render::outcomes(&outcomes))?,
        Format::Json => output::json(&outcomes)?,
    }
    ensure!(failed == 0, "{failed} of {} VMs failed", outcomes.len());
    Ok(())
}

/// Asks all of them at the same time: one that does not answer keeps nobody waiting for longer than itself.
fn at_once(client: &Client, params: &ControlParams, vms: &[VmInfo]) -> anyhow::Result<Vec<Outcome>> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = vms
            .iter()
            .map(|vm| {
                let mut client = client.another();
                scope.spawn(move || one(&mut client, params, vm))
            })
            .collect();
        asked
            .into_iter()
            .map(|asked| asked.join().map_err(|_| anyhow::anyhow!("asking a VM failed")))
            .collect()
    })
}

fn one(client: &mut Client, params: &ControlParams, vm: &VmInfo) -> Outcome {
    let params = ControlParams { id: vm.id.clone(), ..params.clone() };
    let guest = vm.name.clone();
    match client.call::<ControlAnswer>(method::VM_CONTROL, &params, ANSWER_WAIT) {
        Ok(answer) => Outcome { guest, sources: Some(answer.sources), error: None },
        Err(error) => Outcome { guest, sources: None, error: Some(error.to_string()) },
    }
}
