//! What a traced program's addresses are called, by its own file.
//!
//! Owns the way from that file's debug information to a trace's frames. Reading it is [`uni_vmm::symbols`]'s business.

use std::path::Path;

use anyhow::{Context as _, ensure};
use uni_memtrace::Names;
use uni_vmm::symbols::{Frame, Symbols};
use uni_wire::memtrace::{Locate, Position};

/// A program with debug information.
struct Program(Symbols);

/// Reads the names of the program at `path`, or of the twin beside it: functions with files and lines by debug
/// information, functions alone by symbols.
///
/// # Errors
/// When it cannot be read, is no ELF file, or has neither.
pub(super) fn names(path: &Path) -> anyhow::Result<Names> {
    ensure!(path.exists(), "reading symbols: there is no {}", path.display());
    let symbols = match Symbols::load(path)? {
        Some(symbols) => symbols,
        None => own_symbols(path)?,
    };
    Ok(Names::new(Program(symbols)))
}

fn own_symbols(path: &Path) -> anyhow::Result<Symbols> {
    let bytes = std::fs::read(path)?;
    let symbols = Symbols::parse(&bytes, &bytes).ok().filter(Symbols::has_functions);
    symbols.with_context(|| {
        format!(
            "{} is no program with symbols, nor has it a twin (.debug.elf); name it as it was built, before it was stripped",
            path.display()
        )
    })
}

impl Locate for Program {
    fn locate(&self, code: u64, each: &mut dyn FnMut(Position<'_>)) {
        let frames = self.0.resolve(code);
        if frames.iter().all(|frame| frame.function == "??") {
            return;
        }
        // a trace has the outermost function first
        for Frame { function, file, line } in frames.iter().rev() {
            let (name, file, line) = (function.as_bytes(), file.as_bytes(), i64::from(*line));
            each(Position { name, file, line, start_column: 0, end_column: 0 });
        }
    }
}
