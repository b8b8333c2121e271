//! What a virtual machine is to Uni and how one is run: its specification, the image it boots, the QEMU
//! command line, its lifecycle, its stored record, and the small shim process that is QEMU's parent.
//!
//! This crate never opens a listening socket for users, never makes threads and knows nothing of points,
//! queries or the daemon's own API. Pure parts (`spec`, `image`, `qemu`, `machine`, `inject`, `record`
//! shapes, the parsers) take everything as arguments; parts that touch the machine (`accel`, `qmp`, `shim`,
//! the stores of `record`) say so in their own header.
//!
//! Reading order: [`spec::Spec`] is what the user asked for, [`image::detect`] what the file is,
//! [`qemu::compose`] the command line made of both, [`shim::spawn`] what runs it, [`machine::Machine`] which
//! of these may happen when, and [`record::RecordStore`] what is remembered.

pub mod accel;
pub mod atomic;
pub mod cgroup;
pub mod console;
pub mod elf;
pub mod exit;
pub mod id;
pub mod image;
pub mod inject;
pub mod links;
pub mod machine;
pub mod name;
pub mod paths;
pub mod process;
pub mod qemu;
pub mod qmp;
pub mod record;
pub mod shim;
pub mod spec;
pub mod symbols;
pub mod trace;
