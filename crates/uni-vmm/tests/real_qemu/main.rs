//! Real QEMU (TCG) under the real shim: exit status, console, link counters, re-adoption, power button,
//! errors.
//!
//! This program is also the one that is started as `unid shim ...`, hence its own `main`. It is skipped, and
//! says so, only where QEMU is not installed. A word as argument runs only the tests whose names hold it.

#[cfg(test)]
mod cases;
#[cfg(test)]
mod guests;
#[cfg(test)]
mod vm;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use uni_vmm::{qemu, shim};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    if let [_, "shim", "--id", id, "--dir", dir] = words[..] {
        return ExitCode::from(shim::run(id, Path::new(dir)));
    }
    let Ok(qemu) = qemu::resolve(Path::new(qemu::DEFAULT_QEMU), std::env::var_os("PATH").as_deref()) else {
        println!(
            "SKIPPED: {} is not installed (Debian: apt-get install qemu-system-x86)",
            qemu::DEFAULT_QEMU
        );
        return ExitCode::SUCCESS;
    };
    let filter = words.get(1).filter(|word| !word.starts_with('-')).copied().unwrap_or_default();
    for (name, test) in cases::ALL.iter().filter(|(name, _)| name.contains(filter)) {
        print!("test {name} ... ");
        let _ = std::io::stdout().flush();
        let started = Instant::now();
        test(&qemu);
        println!("ok ({} ms)", started.elapsed().as_millis());
    }
    ExitCode::SUCCESS
}
