//! The export to Parquet, which programs have only when they are built with that feature: built so, and read by pyarrow.
//!
//! Owns that one step; it is no part of `cargo xtask test`, since the feature's dependencies cost minutes.

use black_box::workspace;

use crate::{build, install, step};

/// The test that needs the feature.
const TEST: &str = "pyarrow_reads_what_is_exported";

/// Builds with the feature and tests it.
///
/// # Errors
/// What failed.
pub(crate) fn run() -> anyhow::Result<()> {
    install::ensure_venv()?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), Into::into);
    // one after the other: together they would share features, and half of the daemon would be built anew
    for program in [&["unid"][..], &["uni", "--features", "parquet"]] {
        step::run(program[0], build::cargo().args(["build", "--locked", "-p"]).args(program))?;
    }
    let mut test = build::cargo();
    test.args([
        "test",
        "--locked",
        "-p",
        "black-box",
        "--test",
        "store_commands",
        "--",
        "--ignored",
        "--exact",
        TEST,
    ]);
    step::run("parquet", test.env("UNI_BIN_DIR", target.join("debug")))
}
