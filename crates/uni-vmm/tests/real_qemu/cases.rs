//! The cases; each is a rule that holds with real QEMU.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use uni_vmm::console::{self, Reader};
use uni_vmm::exit::Exit;
use uni_vmm::id::{Link, VmId};
use uni_vmm::image::{self, Kind};
use uni_vmm::links::{Counts, Direction};
use uni_vmm::qemu::environment_file;
use uni_vmm::spec::Machine;
use uni_vmm::{elf, process, qmp, shim};

use super::guests::{IDLE, await_power_button, boot_sector, endless_boot_sector, send_frame};
use super::vm::{PATIENCE, Vm, until};

/// A case: its name, and what runs it with the QEMU binary.
pub(super) type Case = (&'static str, fn(&Path));

/// All cases, in the order they run.
pub(super) const ALL: [Case; 12] = [
    ("a_guests_exit_code_reaches_exit_json", a_guests_exit_code_reaches_exit_json),
    (
        "every_part_of_a_specification_is_understood_by_qemu",
        every_part_of_a_specification_is_understood_by_qemu,
    ),
    ("one_image_serves_two_vms_at_once", one_image_serves_two_vms_at_once),
    ("a_boot_sectors_words_reach_the_console", a_boot_sectors_words_reach_the_console),
    ("frames_to_the_vm_are_counted_to_the_byte", frames_to_the_vm_are_counted_to_the_byte),
    ("frames_from_the_vm_are_counted_to_the_byte", frames_from_the_vm_are_counted_to_the_byte),
    ("the_power_button_reaches_the_guest", the_power_button_reaches_the_guest),
    ("a_running_vm_is_found_again_and_killed", a_running_vm_is_found_again_and_killed),
    ("a_dead_shim_takes_qemu_with_it", a_dead_shim_takes_qemu_with_it),
    ("a_vm_never_runs_twice", a_vm_never_runs_twice),
    ("a_failing_qemu_says_why", a_failing_qemu_says_why),
    (
        "a_flooding_console_is_bounded_and_the_shim_stays_small",
        a_flooding_console_is_bounded_and_the_shim_stays_small,
    ),
];

fn a_guests_exit_code_reaches_exit_json(qemu: &Path) {
    for code in [0, 7, 64, 127] {
        let mut vm = Vm::new(qemu, &elf::exit_image(code), "web");
        vm.start();
        let report = vm.end();
        assert_eq!(Exit::of(&report), Exit::Code(code), "{report:?}");
        assert!(report.at_unix_ns > 1_700_000_000_000_000_000);
        assert_eq!(shim::find(vm.dir(), vm.paths.id()), None);
    }
}

fn every_part_of_a_specification_is_understood_by_qemu(qemu: &Path) {
    for machine in [Machine::Microvm, Machine::Q35, Machine::Pc] {
        let mut vm = Vm::new(qemu, &elf::exit_image(9), "all");
        let free = until("a port free for both protocols", port_free_for_both).unwrap();
        vm.spec.ports =
            vec![format!("{free}:53/udp").parse().unwrap(), format!("{free}:80").parse().unwrap()];
        vm.spec.env = vec!["A=b,c".to_owned(), "D=e f".to_owned()];
        vm.spec.machine = machine;
        vm.spec.cpus = 2;
        vm.launch = Vm::launch(qemu, &vm.spec, &vm.paths);
        vm.launch.environment = environment_file(&vm.spec);
        vm.start();
        let report = vm.end();
        assert_eq!(Exit::of(&report), Exit::Code(9), "{report:?}");
    }
}

/// A port of the loopback that neither TCP nor UDP uses; what is free for one may not be for the other.
fn port_free_for_both() -> Option<u16> {
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").ok()?;
    let port = tcp.local_addr().ok()?.port();
    std::net::UdpSocket::bind(("127.0.0.1", port)).ok().map(|_| port)
}

fn one_image_serves_two_vms_at_once(qemu: &Path) {
    let text = "two at once";
    let mut first = Vm::new(qemu, &endless_boot_sector(text), "first");
    let mut second = Vm::new(qemu, &endless_boot_sector(""), "second");
    second.spec.image.clone_from(&first.spec.image);
    second.launch = Vm::launch(qemu, &second.spec, &second.paths);
    for vm in [&mut first, &mut second] {
        vm.running();
    }
    for vm in [&first, &second] {
        let said = || Reader::tail(vm.dir(), console::CONSOLE, 100).unwrap().bytes == text.as_bytes();
        until("the console", || said().then_some(())).unwrap_or_else(|| vm.fail("said nothing"));
    }
}

fn a_boot_sectors_words_reach_the_console(qemu: &Path) {
    let mut sector = boot_sector("hello from a boot sector\r\n", 3);
    sector.resize(1024, 0);
    let mut vm = Vm::new(qemu, &sector, "disk");
    assert_eq!(image::detect(&vm.spec.image).unwrap().kind, Kind::RawDisk);
    for generation in 1..=2 {
        vm.launch.generation = generation;
        vm.start();
        let report = vm.end();
        assert_eq!((Exit::of(&report), report.generation), (Exit::Code(3), generation), "{report:?}");
    }
    let piece = Reader::read_from(vm.dir(), console::CONSOLE, 0, 4096).unwrap();
    assert_eq!(String::from_utf8(piece.bytes).unwrap(), "hello from a boot sector\r\n".repeat(2));
    assert_eq!(std::fs::read(&vm.spec.image).unwrap(), sector);
}

/// Frames written to the management link by its peer are frames to the VM, counted to the byte.
fn frames_to_the_vm_are_counted_to_the_byte(qemu: &Path) {
    let mut vm = Vm::new(qemu, &elf::pvh_image(&IDLE), "net");
    vm.running();
    let mut link =
        until("the link", || UnixStream::connect(vm.paths.management()).ok()).expect("management link");
    for (first, len) in [(0xff, 60u32), (0x02, 1514), (0x01, 100)] {
        let mut frame = vec![0; len as usize];
        frame[0] = first;
        link.write_all(&[&len.to_be_bytes()[..], &frame].concat()).unwrap();
    }
    let expected = Counts { frames: 3, bytes: 60 + 1514 + 100, multicast: 2 };
    let seen =
        until("counters", || Some(vm.counts(Link::Management, Direction::ToVm)).filter(|c| c.frames == 3));
    assert_eq!(seen, Some(expected));
    assert_eq!(vm.counts(Link::Management, Direction::FromVm), Counts::default());
    assert_eq!(vm.counts(Link::Service, Direction::ToVm), Counts::default());
    assert_eq!(shim::read_links(vm.dir()).unwrap().unframed_bytes, 0);
}

/// A guest of a few stores sends one frame by each card, of different lengths, to see which counter moves.
fn frames_from_the_vm_are_counted_to_the_byte(qemu: &Path) {
    // The first virtio device has the highest address on microvm: the service card, then the management card.
    let mut code = send_frame(0xfeb0_2e00, 0x20_0000, 70);
    // Waits for the peer: its first frame raises nothing, so the guest is told by the power button.
    code.extend(await_power_button());
    code.extend(send_frame(0xfeb0_2c00, 0x30_0000, 300));
    code.extend(IDLE);
    let mut vm = Vm::new(qemu, &elf::pvh_image(&code), "net");
    vm.running();
    let one = |bytes| Some(Counts { frames: 1, bytes, multicast: 1 });
    let count = |vm: &Vm, link| {
        until("a frame", || Some(vm.counts(link, Direction::FromVm)).filter(|c| c.frames > 0))
    };
    assert_eq!(count(&vm, Link::Service), one(70));
    let mut link =
        until("the link", || UnixStream::connect(vm.paths.management()).ok()).expect("management link");
    press_power_button(&vm);
    assert_eq!(count(&vm, Link::Management), one(300));
    let mut frame = [0; 4 + 300];
    link.read_exact(&mut frame).unwrap();
    assert_eq!(frame[..10], [0, 0, 1, 44, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(vm.counts(Link::Service, Direction::FromVm), one(70).unwrap());
    assert_eq!(vm.counts(Link::Management, Direction::ToVm), Counts::default());
}

fn press_power_button(vm: &Vm) {
    let deadline = Instant::now() + PATIENCE;
    let mut client = until("QMP", || qmp::Client::connect(&vm.paths.qmp(), deadline).ok()).expect("QMP");
    client.system_powerdown(deadline).unwrap();
}

fn the_power_button_reaches_the_guest(qemu: &Path) {
    // mov byte [0xfea00200], 0x34: microvm's power-off
    let off = [0xc6, 0x05, 0x00, 0x02, 0xa0, 0xfe, 0x34];
    let mut vm = Vm::new(qemu, &elf::pvh_image(&[&await_power_button()[..], &off, &IDLE].concat()), "button");
    vm.running();
    press_power_button(&vm);
    assert_eq!(Exit::of(&vm.end()), Exit::PowerOff);
}

fn a_running_vm_is_found_again_and_killed(qemu: &Path) {
    let mut vm = Vm::new(qemu, &elf::pvh_image(&IDLE), "idle");
    let info = vm.running();
    assert!(info.qemu.is_alive() && info.qemu.command_line_holds(&vm.paths.id().to_string()));
    assert_eq!(info.boot_id, process::boot_id().unwrap());
    let other = VmId::from_random([9; 6]);
    assert_eq!(shim::find(vm.dir(), other), None);
    let deadline = Instant::now() + PATIENCE;
    let mut client = until("QMP", || qmp::Client::connect(&vm.paths.qmp(), deadline).ok()).expect("QMP");
    assert_eq!(client.query_status(deadline).unwrap(), "running");
    client.system_powerdown(deadline).unwrap();
    drop(client);
    info.kill_qemu().unwrap();
    assert_eq!(Exit::of(&vm.end()), Exit::Signal(9));
    assert!(info.kill_qemu().is_err());
    assert!(!shim::is_locked(vm.dir()));
}

fn a_dead_shim_takes_qemu_with_it(qemu: &Path) {
    let mut vm = Vm::new(qemu, &elf::pvh_image(&IDLE), "idle");
    let info = vm.running();
    info.shim.kill().unwrap();
    until("QEMU's end", || (!info.qemu.is_alive()).then_some(())).expect("QEMU outlived its shim");
    vm.shim.take().unwrap().wait().unwrap();
    assert_eq!(shim::find(vm.dir(), vm.paths.id()), None);
    assert_eq!(shim::read_exit(vm.dir()).unwrap(), None);
}

fn a_vm_never_runs_twice(qemu: &Path) {
    let mut vm = Vm::new(qemu, &elf::pvh_image(&IDLE), "idle");
    let info = vm.running();
    assert!(shim::is_locked(vm.dir()));
    let exe = std::env::current_exe().unwrap();
    let second = shim::spawn(&exe, vm.paths.id(), vm.dir()).unwrap().wait().unwrap();
    assert_eq!(second.code(), Some(1));
    assert!(vm.messages().contains("running already"), "{}", vm.messages());
    assert_eq!(shim::find(vm.dir(), vm.paths.id()), Some(info));
    assert_eq!(shim::read_exit(vm.dir()).unwrap(), None);
}

fn a_failing_qemu_says_why(qemu: &Path) {
    let mut vm = Vm::new(qemu, &elf::exit_image(0), "bad");
    vm.launch.argv.extend(["-device".to_owned(), "no-such-device".to_owned()]);
    vm.start();
    let report = vm.end();
    assert!(
        matches!(Exit::of(&report), Exit::HypervisorError(text) if text.contains("no-such-device")),
        "{report:?}"
    );

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    vm.spec.ports = vec![format!("{port}:80").parse().unwrap()];
    vm.launch = Vm::launch(qemu, &vm.spec, &vm.paths);
    vm.start();
    let report = vm.end();
    let text = Exit::of(&report).to_string();
    assert!(text.contains(&port.to_string()), "{report:?}");

    vm.launch.program = PathBuf::from("/nonexistent/qemu");
    vm.start();
    let report = vm.end();
    assert!(report.error.as_ref().is_some_and(|e| e.contains("/nonexistent/qemu")), "{report:?}");
}

/// A guest that writes to COM1 without end: all of it is read, little is kept, and the shim stays within its
/// 4 MiB.
fn a_flooding_console_is_bounded_and_the_shim_stays_small(qemu: &Path) {
    // mov dx, 0x3f8; mov al, 'x'; out dx, al; jmp back to the out
    let flood = [0x66, 0xba, 0xf8, 0x03, 0xb0, b'x', 0xee, 0xeb, 0xfd];
    let mut vm = Vm::new(qemu, &elf::pvh_image(&flood), "flood");
    vm.launch.console_limit_bytes = 64 * 1024;
    let info = vm.running();
    let written = || Reader::tail(vm.dir(), console::CONSOLE, 10).unwrap();
    until("console bytes", || (written().next_offset > 256 * 1024).then_some(())).expect("a flood");
    assert_eq!(written().bytes, b"xxxxxxxxxx");
    let kept: u64 = std::fs::read_dir(vm.dir())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| {
            entry.file_name().as_os_str() > OsStr::new("console.")
                && entry.file_name() < *OsStr::new("console/")
        })
        .map(|entry| entry.metadata().map_or(0, |metadata| metadata.len()))
        .sum();
    assert!(kept <= 64 * 1024, "{kept} bytes are kept");
    let status = std::fs::read_to_string(format!("/proc/{}/status", info.shim.pid)).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().trim();
    let kib: u64 = resident.trim_end_matches(" kB").parse().unwrap();
    assert!(kib <= 4096, "the shim took {resident}");
    print!("[shim {resident}] ");
    assert!(vm.state.path().exists());
}
