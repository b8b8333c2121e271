//! What must hold for any bytes as the kernel's files about a process: shared by the replay of seeds here and by the
//! fuzz target in `fuzz/`.

use uni_host::proc::{Io, Schedstat, Stat, Status};

/// Figures, or an error that names the file and what is missing.
pub(crate) fn check_proc(bytes: &[u8]) {
    let errors = [
        Stat::parse(bytes).err(),
        Status::parse(bytes).err(),
        Io::parse(bytes).err(),
        Schedstat::parse(bytes).err(),
    ];
    for error in errors.into_iter().flatten() {
        assert!(error.to_string().len() > error.file.len());
    }
}
