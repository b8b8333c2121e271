//! The QEMU command line of a VM, as a pure function of what was asked for.
//!
//! Owns every QEMU option that Uni uses and their quoting; starts nothing. There is never a shell in between.
//! Checked against QEMU 7.2: listening descriptors, `filter-mirror` and the sandbox all work there.
//!
//! Directions: a `filter-mirror` with `queue=tx` sees what the *netdev* transmits, that is frames on their
//! way **to** the VM; `queue=rx` sees frames **from** the VM. Each mirror writes, to its own socket, a
//! big-endian u32 length and then the frame as it is on the link (no vnet header, no checksum).

use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::accel::Accel;
use crate::id::Link;
use crate::image::{Image, Kind};
use crate::links::Direction;
use crate::paths::Paths;
use crate::spec::{Limits, Machine, PortMap, Spec};

/// The most bytes of a guest's command line: `microvm` cuts longer ones off, `q35` and `pc` corrupt the start info.
pub const MAX_COMMAND_LINE_BYTES: usize = 4095;
/// What to run when nothing else is said.
pub const DEFAULT_QEMU: &str = "qemu-system-x86_64";

/// The descriptor numbers at which QEMU inherits its ends of the shim's pipe and sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShimFds {
    /// COM1.
    pub console: RawFd,
    /// One mirror per link and direction, in the order of [`MIRRORS`].
    pub mirrors: [RawFd; 4],
}

/// Which link and direction each mirror carries.
pub const MIRRORS: [(Link, Direction); 4] = [
    (Link::Service, Direction::FromVm),
    (Link::Service, Direction::ToVm),
    (Link::Management, Direction::FromVm),
    (Link::Management, Direction::ToVm),
];

impl ShimFds {
    /// The numbers the shim uses: far above what a fresh process has open.
    pub const INHERITED: Self = Self { console: 100, mirrors: [101, 102, 103, 104] };
}

/// Why no command line can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// Newline, NUL or bytes that are not UTF-8 in a path.
    #[error("path {} holds a newline, a NUL or bytes that are not UTF-8: rename it", .0.display())]
    Path(PathBuf),
    /// A control character in a guest argument.
    #[error("guest argument {0:?} holds a control character: a guest's command line is one line of text")]
    ControlCharacter(String),
    /// The guest's command line is too long.
    #[error("the guest's arguments take {0} bytes: at most {MAX_COMMAND_LINE_BYTES} fit on its command line")]
    TooLong(usize),
    /// A disk image has no command line.
    #[error("guest arguments were given, but a raw disk image takes none: leave out what follows --")]
    ArgumentsForDisk,
    /// An IPv6 host address.
    #[error("port {0}: QEMU's user-mode network publishes on IPv4 addresses only")]
    Ipv6(PortMap),
}

/// The QEMU binary could not be found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("QEMU is missing: {} was not found; install it (Debian: apt-get install qemu-system-x86) or give --qemu", .0.display())]
pub struct QemuMissing(pub PathBuf);

/// Finds the QEMU binary: `program` itself if it holds a `/`, else the first match in `search_path` (the form
/// of `$PATH`). The result is absolute.
///
/// # Errors
/// No such executable file.
pub fn resolve(program: &Path, search_path: Option<&OsStr>) -> Result<PathBuf, QemuMissing> {
    let found = if program.as_os_str().as_bytes().contains(&b'/') {
        Some(program.to_owned()).filter(|path| is_executable(path))
    } else {
        let dirs = std::env::split_paths(search_path.unwrap_or_default());
        dirs.map(|dir| dir.join(program)).find(|path| is_executable(path))
    };
    found.and_then(|path| std::path::absolute(path).ok()).ok_or_else(|| QemuMissing(program.to_owned()))
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// The machine type an image runs on: disks need firmware, kernels run where the user says.
#[must_use]
pub fn machine_for(spec: &Spec, image: &Image) -> Machine {
    match image.kind {
        Kind::PvhElf => spec.machine,
        Kind::RawDisk => Machine::Pc,
    }
}

/// Composes QEMU's arguments (without the program itself). `guest_args` is the guest's whole command line:
/// what [`crate::inject::arguments`] adds, then the user's own.
///
/// # Errors
/// Something that cannot be said to QEMU, named.
pub fn compose(
    spec: &Spec,
    guest_args: &[String],
    image: &Image,
    paths: &Paths,
    accel: Accel,
    fds: &ShimFds,
) -> Result<Vec<OsString>, ComposeError> {
    let machine = machine_for(spec, image);
    let mut argv = Argv::default();
    argv.identity(spec, paths);
    argv.machine(machine, accel, spec);
    argv.control(paths)?;
    argv.console(fds);
    argv.network(spec, machine, accel, paths)?;
    argv.mirrors(fds);
    argv.environment(spec, paths)?;
    argv.boot(image, guest_args, spec.limits)?;
    Ok(argv.0)
}

#[derive(Default)]
struct Argv(Vec<OsString>);

impl Argv {
    fn option(&mut self, name: &str, value: impl Into<OsString>) {
        self.0.push(name.into());
        self.0.push(value.into());
    }

    fn flag(&mut self, name: &str) {
        self.0.push(name.into());
    }

    /// Who this is, for people and for finding it again: the VM's name, and its id as the last group of a
    /// UUID.
    fn identity(&mut self, spec: &Spec, paths: &Paths) {
        self.option("-name", format!("guest={}", spec.name));
        self.option("-uuid", format!("00000000-0000-0000-0000-{}", paths.id()));
    }

    fn machine(&mut self, machine: Machine, accel: Accel, spec: &Spec) {
        let options = match machine {
            // ACPI carries the power button; the clock chips are what guests calibrate on, under KVM too.
            Machine::Microvm => "microvm,acpi=on,rtc=on,pit=on,pic=on,isa-serial=on,auto-kernel-cmdline=off",
            // What no unikernel drives is left out.
            Machine::Q35 => "q35,usb=off,sata=off,smbus=off",
            Machine::Pc => "pc,usb=off",
        };
        self.option("-M", options);
        let accel = match accel {
            Accel::Kvm => "kvm",
            Accel::Tcg if spec.cpus > 1 => "tcg,thread=multi",
            Accel::Tcg => "tcg,thread=single",
        };
        self.option("-accel", accel);
        self.option("-cpu", "max");
        self.option("-smp", spec.cpus.to_string());
        self.option("-m", format!("{}M", spec.memory_mib));
        for flag in ["-nodefaults", "-no-user-config", "-no-reboot"] {
            self.flag(flag);
        }
        self.option("-display", "none");
        self.option("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
        self.option("-device", "isa-debug-exit,iobase=0xf4,iosize=4");
    }

    fn control(&mut self, paths: &Paths) -> Result<(), ComposeError> {
        self.option("-qmp", format!("unix:{},server=on,wait=off", quoted(&paths.qmp())?));
        Ok(())
    }

    fn console(&mut self, fds: &ShimFds) {
        // A pipe: QEMU writes each byte alone, and a socket would charge for each of them.
        self.option("-chardev", format!("file,id=console,path=/dev/fd/{},append=on", fds.console));
        self.option("-serial", "chardev:console");
    }

    fn network(
        &mut self,
        spec: &Spec,
        machine: Machine,
        accel: Accel,
        paths: &Paths,
    ) -> Result<(), ComposeError> {
        let forwards: Vec<String> = spec.ports.iter().map(forward).collect::<Result<_, _>>()?;
        self.option(
            "-netdev",
            format!(
                "user,id=service,restrict={}{}",
                if spec.reaches_out() { "off" } else { "on" },
                forwards.concat()
            ),
        );
        let socket = quoted(&paths.management())?;
        self.option("-netdev", format!("stream,id=management,server=on,addr.type=unix,addr.path={socket}"));
        let (model, options) = match (machine, accel) {
            (Machine::Microvm, _) => ("virtio-net-device", ""),
            // Without a boot ROM: nothing boots from the network, and firmware would spend time on it.
            (Machine::Q35 | Machine::Pc, Accel::Kvm) => ("virtio-net-pci", ",romfile="),
            // In software a card's bell rung by event only comes later, as on virtio-mmio it never does. Frames then
            // cross, and a connection that both sides close at once lingers for a second (seen with 32 sockets used up).
            (Machine::Q35 | Machine::Pc, Accel::Tcg) => ("virtio-net-pci", ",romfile=,ioeventfd=off"),
        };
        for link in [Link::Service, Link::Management] {
            let mac = paths.id().mac(link);
            self.option("-device", format!("{model},netdev={},mac={mac}{options}", link_id(link)));
        }
        Ok(())
    }

    fn mirrors(&mut self, fds: &ShimFds) {
        for ((link, direction), fd) in MIRRORS.into_iter().zip(fds.mirrors) {
            let (link, queue) = (link_id(link), queue(direction));
            self.option("-chardev", format!("socket,id={link}-{queue},fd={fd}"));
            let object =
                format!("id=mirror-{link}-{queue},netdev={link},queue={queue},outdev={link}-{queue}");
            self.option("-object", format!("filter-mirror,{object}"));
        }
    }

    /// By file, because a command line is readable by every user of the machine.
    fn environment(&mut self, spec: &Spec, paths: &Paths) -> Result<(), ComposeError> {
        if !spec.env.is_empty() {
            self.option("-fw_cfg", format!("name=opt/uni/env,file={}", quoted(&paths.env())?));
        }
        Ok(())
    }

    fn boot(&mut self, image: &Image, guest_args: &[String], limits: Limits) -> Result<(), ComposeError> {
        match image.kind {
            Kind::PvhElf => {
                printable(&image.path)?;
                self.option("-kernel", &image.path);
                self.option("-append", command_line(guest_args)?);
            }
            Kind::RawDisk if !guest_args.is_empty() => return Err(ComposeError::ArgumentsForDisk),
            Kind::RawDisk => {
                // A run never changes an image: writes go to a temporary file in the VM's directory.
                let file = quoted(&image.path)?;
                let throttle = throttling(limits);
                self.option(
                    "-drive",
                    format!("file={file},format=raw,if=none,id=disk,snapshot=on{throttle}"),
                );
                self.option("-device", "ide-hd,drive=disk,bootindex=1");
                // Where kernels made for disks look for the debug-exit device.
                self.option("-device", "isa-debug-exit,iobase=0x501,iosize=4");
            }
        }
        Ok(())
    }
}

/// QEMU's own limits on a drive (its manual, section *Block device options*); nothing when there are none.
fn throttling(limits: Limits) -> String {
    let option = |name, limit| if limit > 0 { format!(",throttling.{name}={limit}") } else { String::new() };
    option("iops-total", limits.disk_iops) + &option("bps-total", limits.disk_bps)
}

fn link_id(link: Link) -> &'static str {
    match link {
        Link::Service => "service",
        Link::Management => "management",
    }
}

fn queue(direction: Direction) -> &'static str {
    match direction {
        Direction::FromVm => "rx",
        Direction::ToVm => "tx",
    }
}

fn forward(port: &PortMap) -> Result<String, ComposeError> {
    match port.addr {
        IpAddr::V4(addr) => Ok(format!(",hostfwd={}:{addr}:{}-:{}", port.proto, port.host, port.guest)),
        IpAddr::V6(_) => Err(ComposeError::Ipv6(*port)),
    }
}

fn printable(path: &Path) -> Result<&str, ComposeError> {
    let text = path.to_str().filter(|text| !text.contains(['\n', '\0']));
    text.ok_or_else(|| ComposeError::Path(path.to_owned()))
}

/// A path as the value of a QEMU option: commas are doubled, else they would end it.
fn quoted(path: &Path) -> Result<String, ComposeError> {
    Ok(printable(path)?.replace(',', ",,"))
}

/// Joins guest arguments to one line. An argument that is empty or holds white space, a quote or a backslash
/// is put in double quotes, with `"` and `\` inside preceded by a backslash, as MirageOS unikernels (and the
/// guests here) read it.
///
/// # Errors
/// A control character, or more than [`MAX_COMMAND_LINE_BYTES`] bytes.
pub fn command_line(args: &[String]) -> Result<String, ComposeError> {
    if let Some(arg) = args.iter().find(|arg| arg.contains(char::is_control)) {
        return Err(ComposeError::ControlCharacter(arg.clone()));
    }
    let line = args.iter().map(|arg| quote_argument(arg)).collect::<Vec<_>>().join(" ");
    if line.len() > MAX_COMMAND_LINE_BYTES { Err(ComposeError::TooLong(line.len())) } else { Ok(line) }
}

fn quote_argument(arg: &str) -> String {
    let special = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '\\');
    if !arg.is_empty() && !arg.contains(special) {
        return arg.to_owned();
    }
    format!("\"{}\"", arg.replace('\\', "\\\\").replace('"', "\\\""))
}

/// What the file behind `opt/uni/env` holds: the entries, one a line.
#[must_use]
pub fn environment_file(spec: &Spec) -> String {
    spec.env.join("\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::VmId;

    fn paths() -> Paths {
        Paths::new(Path::new("/s,t"), VmId::from_random([0x9f, 0x2c, 0x41, 0xd0, 0x7a, 0xb3])).unwrap()
    }

    fn image(path: &str, kind: Kind) -> Image {
        Image { path: PathBuf::from(path), kind, bytes: 512 }
    }

    fn spec() -> Spec {
        let ports = vec!["8080:80".parse().unwrap(), "0.0.0.0:53:53/udp".parse().unwrap()];
        Spec { ports, ..Spec::new("web".parse().unwrap(), PathBuf::from("/i")) }
    }

    fn line(spec: &Spec, args: &[String], image: &Image, accel: Accel) -> Result<String, ComposeError> {
        let argv = compose(spec, args, image, &paths(), accel, &ShimFds::INHERITED)?;
        Ok(argv.iter().map(|a| a.to_str().unwrap()).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn a_kernel_runs_on_microvm_with_two_mirrored_links() {
        let args = ["--name=web".to_owned(), "a b".to_owned()];
        let line = line(&spec(), &args, &image("/i,j.elf", Kind::PvhElf), Accel::Tcg).unwrap();
        for expected in [
            "-uuid\n00000000-0000-0000-0000-9f2c41d07ab3",
            "-M\nmicrovm,acpi=on",
            "-accel\ntcg,thread=single",
            "-m\n256M",
            "-qmp\nunix:/s,,t/vms/9f2c41d07ab3/qmp.sock,server=on,wait=off",
            "user,id=service,restrict=off,hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=udp:0.0.0.0:53-:53",
            "addr.path=/s,,t/vms/9f2c41d07ab3/mgmt.sock",
            "virtio-net-device,netdev=service,mac=02:75:6e:00:7a:b3",
            "virtio-net-device,netdev=management,mac=02:75:6e:01:7a:b3",
            "filter-mirror,id=mirror-service-rx,netdev=service,queue=rx,outdev=service-rx",
            "socket,id=management-tx,fd=104",
            "-kernel\n/i,j.elf\n-append\n--name=web \"a b\"",
        ] {
            assert!(line.contains(expected), "{expected}\nnot in\n{line}");
        }
        assert!(!line.contains("fw_cfg"));
    }

    #[test]
    fn a_kernel_runs_on_q35_if_asked_with_pci_cards_that_have_no_rom() {
        let spec = Spec { machine: Machine::Q35, ..spec() };
        let line = line(&spec, &[], &image("/i.elf", Kind::PvhElf), Accel::Tcg).unwrap();
        for expected in [
            "-M\nq35,usb=off,sata=off,smbus=off\n",
            "virtio-net-pci,netdev=service,mac=02:75:6e:00:7a:b3,romfile=,ioeventfd=off\n",
            "virtio-net-pci,netdev=management,mac=02:75:6e:01:7a:b3,romfile=,ioeventfd=off\n",
        ] {
            assert!(line.contains(expected), "{expected}\nnot in\n{line}");
        }
    }

    #[test]
    fn limits_of_a_disk_are_qemus_own() {
        let limits = Limits { disk_iops: 1000, disk_bps: 10 << 20, ..Limits::default() };
        let spec = Spec { limits, ..spec() };
        let line = line(&spec, &[], &image("/i.img", Kind::RawDisk), Accel::Tcg).unwrap();
        let expected = "snapshot=on,throttling.iops-total=1000,throttling.bps-total=10485760\n";
        assert!(line.contains(expected), "{line}");
    }

    #[test]
    fn under_kvm_a_pci_card_keeps_its_event() {
        let spec = Spec { machine: Machine::Q35, ..spec() };
        let line = line(&spec, &[], &image("/i.elf", Kind::PvhElf), Accel::Kvm).unwrap();
        assert!(line.contains(",romfile=\n") && !line.contains("ioeventfd"), "{line}");
    }

    #[test]
    fn a_disk_runs_on_pc_and_is_never_written() {
        let line = line(&spec(), &[], &image("/a,b.img", Kind::RawDisk), Accel::Kvm).unwrap();
        for expected in
            ["-M\npc", "-accel\nkvm", "file=/a,,b.img,format=raw,if=none,id=disk,snapshot=on", "romfile="]
        {
            assert!(line.contains(expected), "{expected}\nnot in\n{line}");
        }
    }

    #[test]
    fn a_vm_without_ports_has_its_links_all_the_same() {
        let spec = Spec { ports: Vec::new(), ..spec() };
        let line = line(&spec, &[], &image("/i", Kind::PvhElf), Accel::Tcg).unwrap();
        assert!(line.contains("-netdev\nuser,id=service,restrict=on\n"), "{line}");
    }

    #[test]
    fn a_guest_reaches_out_only_when_asked_for_or_when_udp_needs_it() {
        let tcp = Spec { ports: spec().ports[..1].to_vec(), ..spec() };
        for (spec, restrict) in
            [(tcp.clone(), "on"), (Spec { outbound: true, ..tcp }, "off"), (spec(), "off")]
        {
            let line = line(&spec, &[], &image("/i", Kind::PvhElf), Accel::Tcg).unwrap();
            assert!(line.contains(&format!("user,id=service,restrict={restrict},hostfwd=tcp")), "{line}");
        }
    }

    #[test]
    fn the_environment_goes_by_file_and_not_by_command_line() {
        let spec = Spec { env: vec!["SECRET=x".to_owned(), "B=2".to_owned()], ..spec() };
        let line = line(&spec, &[], &image("/i", Kind::PvhElf), Accel::Tcg).unwrap();
        assert!(
            line.contains("name=opt/uni/env,file=/s,,t/vms/9f2c41d07ab3/env") && !line.contains("SECRET")
        );
        assert_eq!(environment_file(&spec), "SECRET=x\nB=2");
    }

    #[test]
    fn what_cannot_be_said_to_qemu_is_refused() {
        let kernel = image("/i", Kind::PvhElf);
        let one = |arg: &str| line(&spec(), &[arg.to_owned()], &kernel, Accel::Tcg);
        assert!(matches!(one("a\nb"), Err(ComposeError::ControlCharacter(_))));
        assert_eq!(one(&"x".repeat(4096)), Err(ComposeError::TooLong(4096)));
        assert!(one(&"x".repeat(4095)).is_ok());
        assert!(matches!(
            line(&spec(), &[], &image("/a\nb", Kind::PvhElf), Accel::Tcg),
            Err(ComposeError::Path(_))
        ));
        let args = ["x".to_owned()];
        let disk = image("/d", Kind::RawDisk);
        assert_eq!(line(&spec(), &args, &disk, Accel::Tcg), Err(ComposeError::ArgumentsForDisk));
    }

    #[test]
    fn a_missing_qemu_says_how_to_get_it() {
        let error = resolve(Path::new("no-such-qemu"), Some(OsStr::new("/usr/bin:/bin"))).unwrap_err();
        assert!(error.to_string().contains("apt-get install qemu-system-x86"), "{error}");
        assert!(resolve(Path::new("/etc/passwd"), None).is_err());
        assert_eq!(resolve(Path::new("sh"), Some(OsStr::new("/bin"))), Ok(PathBuf::from("/bin/sh")));
    }

    /// The guests' reading rule, for checking that quoting loses nothing.
    fn split(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
        let mut chars = line.chars();
        while let Some(c) = chars.next() {
            match c {
                '"' => {
                    quoted = !quoted;
                    word.get_or_insert_default();
                }
                '\\' => word.get_or_insert_default().extend(chars.next()),
                c if c.is_whitespace() && !quoted => words.extend(word.take()),
                c => word.get_or_insert_default().push(c),
            }
        }
        words.extend(word);
        words
    }

    proptest! {
        #[test]
        fn guest_arguments_survive_quoting(args in proptest::collection::vec("[ -~é\u{a0}\u{2003}]{0,12}", 0..8)) {
            prop_assert_eq!(split(&command_line(&args).unwrap()), args);
        }
    }
}
