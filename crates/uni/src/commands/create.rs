//! `uni run`.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use uni_api::rpc::method;
use uni_api::vm::{RunParams, VmInfo};

use crate::args::{Format, RunArgs};
use crate::client::{ANSWER_WAIT, Client};
use crate::{commands::console, env_file, output};

/// Creates and starts a VM; prints its id, or its console with `--attach`.
pub(super) fn run(client: &mut Client, args: RunArgs, format: Format) -> anyhow::Result<()> {
    let mut env = args.env;
    if let Some(file) = &args.env_file {
        env.extend(env_file::read(file)?);
    }
    let params = RunParams {
        image_path: image_path(&args.image)?,
        memory: args.memory.unwrap_or_default(),
        cpus: args.cpus,
        machine: args.machine.unwrap_or_default(),
        port_maps: args.ports,
        name: args.name.unwrap_or_default(),
        args: args.args,
        env,
        no_add_name: args.no_add_name,
        outbound: args.outbound,
        cpu_shares: args.cpu_shares,
        memory_max: args.memory_max,
        disk_iops: args.disk_iops,
        disk_bps: args.disk_bps,
        other: serde_json::Map::new(),
        auto_remove: args.rm,
    };
    let vm: VmInfo = client.call(method::VM_RUN, &params, ANSWER_WAIT)?;
    match (args.attach, format) {
        (true, _) => {
            announce(&vm);
            console::attach(client, vm.id, format)
        }
        (false, Format::Table) => output::text(&format!("{}\n", vm.id)),
        (false, Format::Json) => output::json(&vm),
    }
}

/// Says on stderr how to leave, to people only: stdout belongs to the guest.
fn announce(vm: &VmInfo) {
    let mut stderr = std::io::stderr().lock();
    if stderr.is_terminal() {
        let _only_a_hint = writeln!(stderr, "attached to {} ({}); Ctrl-C leaves it running", vm.name, vm.id);
    }
}

/// The image's absolute path, for the daemon has another working directory.
fn image_path(image: &str) -> anyhow::Result<String> {
    if !image.contains('/') {
        let hint = if Path::new(image).is_file() { "for the file here" } else { "for a file" };
        bail!("image `{image}`: images by name are not available in this version; {hint}, write ./{image}");
    }
    let kind = std::fs::metadata(image).with_context(|| format!("image `{image}`"))?;
    if !kind.is_file() {
        bail!("image `{image}` is not a regular file");
    }
    let path = std::path::absolute(image).with_context(|| format!("image `{image}`"))?;
    path.into_os_string()
        .into_string()
        .map_err(|path| anyhow::anyhow!("image {}: its path is not UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(image: &str) -> String {
        format!("{:#}", image_path(image).unwrap_err())
    }

    #[test]
    fn a_file_named_with_a_slash_becomes_absolute() {
        let path = image_path("./Cargo.toml").unwrap();
        assert!(path.starts_with('/') && path.ends_with("/Cargo.toml") && !path.contains("/./"), "{path}");
    }

    #[test]
    fn names_missing_files_and_directories_are_refused_with_what_to_do() {
        assert!(refusal("Cargo.toml").ends_with("for the file here, write ./Cargo.toml"));
        assert!(refusal("web:1").contains("images by name are not available in this version"));
        assert!(refusal("./no-such.elf").contains("image `./no-such.elf`: No such file"));
        assert!(refusal("./src").contains("not a regular file"));
    }
}
