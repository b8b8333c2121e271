//! What the user asks for when he runs a VM: [`Spec`], and the text forms of memory sizes and published
//! ports.
//!
//! Owns parsing and bounds; looks at no file, no port and no clock.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::VmName;

/// Guest memory when nothing is said, in MiB.
pub const DEFAULT_MEMORY_MIB: u32 = 256;
/// Least guest memory, in MiB: QEMU boots a small image with 2, not with 1.
pub const MIN_MEMORY_MIB: u32 = 2;
/// Most guest memory, in MiB (1 TiB).
pub const MAX_MEMORY_MIB: u32 = 1024 * 1024;
/// Most virtual CPUs.
pub const MAX_CPUS: u32 = 255;
/// Greatest cgroup v2 `cpu.weight`.
pub const MAX_CPU_WEIGHT: u16 = 10_000;
/// Most published ports of one VM.
pub const MAX_PORTS: usize = 256;
/// Most environment variables of one VM.
pub const MAX_ENV_ENTRIES: usize = 1024;
/// Most bytes of a VM's environment, as the guest gets it.
pub const MAX_ENV_BYTES: usize = 64 * 1024;
/// As much of a wrong environment variable's name as a message shows.
const SHOWN_NAME_CHARS: usize = 80;

/// A VM as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The VM's unique name.
    pub name: VmName,
    /// The image's absolute path.
    pub image: PathBuf,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Published ports.
    pub ports: Vec<PortMap>,
    /// Guest arguments as the user gave them.
    pub args: Vec<String>,
    /// Guest environment, `KEY=VALUE` each; reaches the guest as the fw_cfg file `opt/uni/env`.
    pub env: Vec<String>,
    /// The QEMU machine for kernels; disks always boot on [`Machine::Pc`].
    pub machine: Machine,
    /// Whether the daemon adds `--name`, `--monitor` and the like to the guest's arguments.
    pub add_name: bool,
    /// Whether the guest may open connections over its service link. QEMU's user-mode network leads to this host's
    /// loopback too, so that it is closed unless asked for; published ports work either way.
    #[serde(default)]
    pub outbound: bool,
    /// What it may take of the host.
    #[serde(default)]
    pub limits: Limits,
}

/// What a VM may take of the host; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// cgroup v2's `cpu.weight`, 1 to [`MAX_CPU_WEIGHT`]; a group that has none said has 100.
    pub cpu_weight: u16,
    /// cgroup v2's `memory.max` for QEMU, guest memory and all, in bytes.
    pub memory_max_bytes: u64,
    /// Operations of the boot disk in a second, reads and writes together.
    pub disk_iops: u64,
    /// Bytes read from and written to the boot disk in a second.
    pub disk_bps: u64,
}

impl Limits {
    /// Whether a control group is needed.
    #[must_use]
    pub fn wants_group(&self) -> bool {
        self.cpu_weight > 0 || self.memory_max_bytes > 0
    }
}

/// A QEMU machine type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Machine {
    /// Minimal, virtio-mmio, no PCI, no firmware boot: for PVH kernels.
    #[default]
    Microvm,
    /// Intel's Q35 chipset with PCI Express: for PVH kernels that want PCI.
    Q35,
    /// i440FX with SeaBIOS: for disk images.
    Pc,
}

impl Machine {
    /// The name QEMU has for it.
    #[must_use]
    pub fn qemu_name(self) -> &'static str {
        match self {
            Self::Microvm => "microvm",
            Self::Q35 => "q35",
            Self::Pc => "pc",
        }
    }
}

impl FromStr for Machine {
    type Err = SpecError;

    /// Reads the machine types a kernel can be run on. [`Machine::Pc`] is none of them: it is what disks get.
    fn from_str(text: &str) -> Result<Self, SpecError> {
        let of_kernels = [Self::Microvm, Self::Q35];
        let named = of_kernels.into_iter().find(|machine| machine.qemu_name() == text);
        named.ok_or_else(|| SpecError::Machine(text.chars().take(80).collect()))
    }
}

/// Transport of a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// One published port: `addr:host` on this machine leads to `guest` in the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortMap {
    /// Address on this machine; QEMU's user-mode network takes IPv4 only.
    pub addr: IpAddr,
    /// Port on this machine, 1..=65535.
    pub host: u16,
    /// Port in the guest, 1..=65535.
    pub guest: u16,
    /// TCP or UDP.
    pub proto: Proto,
}

/// Why a specification is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Not a memory size.
    #[error("memory size {0:?} is not understood: give a whole number with M or G, such as 256M or 1G")]
    Memory(String),
    /// A memory size out of bounds.
    #[error("memory size {0} MiB is out of range: {MIN_MEMORY_MIB}M to {max}G", max = MAX_MEMORY_MIB / 1024)]
    MemoryRange(u64),
    /// Not a machine type that can be chosen.
    #[error("machine {0:?} is not known: give microvm (the default) or q35")]
    Machine(String),
    /// A CPU count out of bounds.
    #[error("{0} CPUs are out of range: 1 to {MAX_CPUS}")]
    Cpus(u32),
    /// A processor weight out of bounds.
    #[error("a CPU weight of {0} is out of range: 1 to {MAX_CPU_WEIGHT}, or 0 for none")]
    CpuWeight(u16),
    /// A memory limit that the guest's memory alone exceeds.
    #[error(
        "a memory limit of {limit} bytes is less than the guest's memory ({memory} MiB): QEMU would be killed"
    )]
    MemoryLimit {
        /// What was asked for, in bytes.
        limit: u64,
        /// Guest memory in MiB.
        memory: u32,
    },
    /// Not a port mapping.
    #[error("port {text:?}: {fault}; expected [ADDR:]HOST:GUEST[/tcp|udp], such as 8080:80")]
    Port {
        /// What was given.
        text: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// The same host port twice.
    #[error("port {0} is published twice: publish each host address, port and protocol once")]
    PortTwice(PortMap),
    /// More than [`MAX_PORTS`].
    #[error("{0} ports are published: at most {MAX_PORTS} are allowed")]
    TooManyPorts(usize),
    /// The image path is relative.
    #[error("image path {} is not absolute", .0.display())]
    RelativeImage(PathBuf),
    /// An environment entry that is refused. Its value is never shown: it may be a secret.
    #[error(transparent)]
    Env(#[from] EnvError),
}

/// Why an environment is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// No `=`. The text is not shown, for it may be a value whose name was forgotten.
    #[error("environment entry {number} has no \"=\": write KEY=VALUE")]
    NoValue {
        /// Which one, from 1.
        number: usize,
    },
    /// Not a variable's name.
    #[error("environment variable {0:?}: a name is letters, digits and _, and does not begin with a digit")]
    Name(String),
    /// An entry that would not stay one line of the file the guest reads.
    #[error("environment variable {0:?} holds a line end or a NUL, which guests cannot be given")]
    Line(String),
    /// More than [`MAX_ENV_ENTRIES`].
    #[error("{0} environment variables were given: at most {MAX_ENV_ENTRIES} are allowed")]
    TooMany(usize),
    /// More than [`MAX_ENV_BYTES`].
    #[error("the environment takes {0} bytes: at most {MAX_ENV_BYTES} are allowed")]
    TooLong(usize),
}

impl Spec {
    /// A VM of this name and image with every default.
    #[must_use]
    pub fn new(name: VmName, image: PathBuf) -> Self {
        Self {
            name,
            image,
            memory_mib: DEFAULT_MEMORY_MIB,
            cpus: 1,
            ports: Vec::new(),
            args: Vec::new(),
            env: Vec::new(),
            machine: Machine::default(),
            add_name: true,
            outbound: false,
            limits: Limits::default(),
        }
    }

    /// Whether the guest can open connections over its service link: asked for, or needed, because QEMU's user-mode
    /// network when closed outwards loses the answers of published UDP ports (seen with QEMU 7.2).
    #[must_use]
    pub fn reaches_out(&self) -> bool {
        self.outbound || self.ports.iter().any(|port| port.proto == Proto::Udp)
    }

    /// Checks every bound that does not need the image.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), SpecError> {
        if !self.image.is_absolute() {
            return Err(SpecError::RelativeImage(self.image.clone()));
        }
        check_memory(u64::from(self.memory_mib))?;
        if !(1..=MAX_CPUS).contains(&self.cpus) {
            return Err(SpecError::Cpus(self.cpus));
        }
        check_ports(&self.ports)?;
        Ok(check_env(&self.env)?)
    }

    /// Checks the names in the environment and the limits too. They are free in records of older installations,
    /// which [`Spec::validate`] takes.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate_request(&self) -> Result<(), SpecError> {
        self.validate()?;
        self.limits.check(self.memory_mib)?;
        Ok(self.env.iter().try_for_each(|entry| check_name(name_of(entry)))?)
    }
}

impl Limits {
    fn check(&self, memory_mib: u32) -> Result<(), SpecError> {
        if self.cpu_weight > MAX_CPU_WEIGHT {
            return Err(SpecError::CpuWeight(self.cpu_weight));
        }
        if (1..u64::from(memory_mib) << 20).contains(&self.memory_max_bytes) {
            return Err(SpecError::MemoryLimit { limit: self.memory_max_bytes, memory: memory_mib });
        }
        Ok(())
    }
}

fn check_memory(mib: u64) -> Result<u32, SpecError> {
    match u32::try_from(mib) {
        Ok(mib) if (MIN_MEMORY_MIB..=MAX_MEMORY_MIB).contains(&mib) => Ok(mib),
        _ => Err(SpecError::MemoryRange(mib)),
    }
}

fn check_ports(ports: &[PortMap]) -> Result<(), SpecError> {
    if ports.len() > MAX_PORTS {
        return Err(SpecError::TooManyPorts(ports.len()));
    }
    for (index, port) in ports.iter().enumerate() {
        if ports.iter().take(index).any(|earlier| earlier.overlaps(port)) {
            return Err(SpecError::PortTwice(*port));
        }
        port.check().map_err(|fault| SpecError::Port { text: port.to_string(), fault })?;
    }
    Ok(())
}

/// Whether the guest would read these entries and no others.
fn check_env(entries: &[String]) -> Result<(), EnvError> {
    if entries.len() > MAX_ENV_ENTRIES {
        return Err(EnvError::TooMany(entries.len()));
    }
    let bytes = entries.iter().map(|entry| entry.len() + 1).sum();
    if bytes > MAX_ENV_BYTES {
        return Err(EnvError::TooLong(bytes));
    }
    for (index, entry) in entries.iter().enumerate() {
        if !entry.contains('=') {
            return Err(EnvError::NoValue { number: index + 1 });
        }
        if entry.contains(['\n', '\r', '\0']) {
            return Err(EnvError::Line(shown(name_of(entry))));
        }
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), EnvError> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts_well = name.starts_with(|c| is_word(c) && !c.is_ascii_digit());
    if starts_well && name.chars().all(is_word) { Ok(()) } else { Err(EnvError::Name(shown(name))) }
}

fn name_of(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

fn shown(name: &str) -> String {
    name.chars().take(SHOWN_NAME_CHARS).collect()
}

/// Parses guest memory: a whole number with optional `K`, `M` or `G` (binary, any case); a bare number is
/// MiB, as QEMU's `-m` has it.
///
/// # Errors
/// Not such a text, or outside [`MIN_MEMORY_MIB`]..=[`MAX_MEMORY_MIB`].
pub fn parse_memory_mib(text: &str) -> Result<u32, SpecError> {
    let bad = || SpecError::Memory(text.chars().take(40).collect());
    let (digits, kib_per_unit) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 1),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 1024),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 1024 * 1024),
        _ => (text, 1024),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    let number: u64 = digits.parse().map_err(|_| bad())?;
    let kib = number.checked_mul(kib_per_unit).ok_or(SpecError::MemoryRange(u64::MAX))?;
    if kib % 1024 != 0 {
        return Err(bad());
    }
    check_memory(kib / 1024)
}

impl PortMap {
    fn check(&self) -> Result<(), &'static str> {
        match (self.host, self.guest, self.addr) {
            (0, ..) | (_, 0, _) => Err("ports are 1 to 65535"),
            (_, _, IpAddr::V6(_)) => Err("QEMU's user-mode network publishes on IPv4 addresses only"),
            _ => Ok(()),
        }
    }

    /// Whether both would listen on the same socket address.
    fn overlaps(&self, other: &Self) -> bool {
        let same_address =
            self.addr == other.addr || self.addr.is_unspecified() || other.addr.is_unspecified();
        same_address && self.host == other.host && self.proto == other.proto
    }
}

impl fmt::Display for PortMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addr {
            IpAddr::V4(addr) => write!(f, "{addr}:{}:{}/{}", self.host, self.guest, self.proto),
            IpAddr::V6(addr) => write!(f, "[{addr}]:{}:{}/{}", self.host, self.guest, self.proto),
        }
    }
}

impl FromStr for PortMap {
    type Err = SpecError;

    /// Parses `[ADDR:]HOST:GUEST[/tcp|udp]`; ADDR defaults to 127.0.0.1, the protocol to TCP.
    fn from_str(text: &str) -> Result<Self, SpecError> {
        parse_port(text).map_err(|fault| SpecError::Port { text: text.chars().take(80).collect(), fault })
    }
}

fn parse_port(text: &str) -> Result<PortMap, &'static str> {
    let (rest, proto) = match text.split_once('/') {
        None => (text, Proto::Tcp),
        Some((rest, "tcp")) => (rest, Proto::Tcp),
        Some((rest, "udp")) => (rest, Proto::Udp),
        Some(_) => return Err("the protocol is neither tcp nor udp"),
    };
    let (rest, guest) = rest.rsplit_once(':').ok_or("the guest port is missing")?;
    let (addr, host) = match rest.rsplit_once(':') {
        None => (IpAddr::V4(Ipv4Addr::LOCALHOST), rest),
        Some((addr, host)) => (parse_addr(addr)?, host),
    };
    let map = PortMap { addr, host: parse_number(host)?, guest: parse_number(guest)?, proto };
    map.check()?;
    Ok(map)
}

fn parse_addr(text: &str) -> Result<IpAddr, &'static str> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| "the address is not an IP address")
}

fn parse_number(text: &str) -> Result<u16, &'static str> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err("ports are 1 to 65535");
    }
    text.parse().map_err(|_| "ports are 1 to 65535")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn limits_have_bounds_and_none_is_no_limit() {
        let request = |limits| {
            let spec = Spec { limits, ..Spec::new("a".parse().unwrap(), "/i".into()) };
            spec.validate_request()
        };
        let memory = |memory_max_bytes| Limits { memory_max_bytes, ..Limits::default() };
        let weight = |cpu_weight| Limits { cpu_weight, ..Limits::default() };
        for limits in [memory(0), memory(256 << 20), weight(1), weight(MAX_CPU_WEIGHT)] {
            assert_eq!(request(limits), Ok(()), "{limits:?}");
        }
        for limits in [memory(1), memory((256 << 20) - 1), weight(MAX_CPU_WEIGHT + 1)] {
            assert!(request(limits).is_err(), "{limits:?}");
        }
    }

    #[test]
    fn memory_sizes_are_binary_and_bounded() {
        for (text, mib) in [("256M", 256), ("1G", 1024), ("64", 64), ("2048k", 2), ("1024g", MAX_MEMORY_MIB)]
        {
            assert_eq!(parse_memory_mib(text), Ok(mib), "{text}");
        }
        for text in ["", "M", "1.5G", "10MB", "-1", "+1M", "1T", "3K", " 1M", "99999999999999999999M", "é"] {
            assert!(matches!(parse_memory_mib(text), Err(SpecError::Memory(_))), "{text}");
        }
        for text in ["0", "1M", "1025G", "18446744073709551615G"] {
            assert!(matches!(parse_memory_mib(text), Err(SpecError::MemoryRange(_))), "{text}");
        }
    }

    #[test]
    fn a_machine_is_chosen_by_qemus_name_for_it() {
        assert_eq!("microvm".parse(), Ok(Machine::Microvm));
        assert_eq!("q35".parse(), Ok(Machine::Q35));
        for text in ["", "pc", "Q35", "q35,accel=kvm", "é"] {
            let message = text.parse::<Machine>().unwrap_err().to_string();
            assert!(message.contains("microvm (the default) or q35"), "{message}");
        }
    }

    #[test]
    fn ports_default_to_loopback_and_tcp() {
        let port: PortMap = "8080:80".parse().unwrap();
        assert_eq!(port.to_string(), "127.0.0.1:8080:80/tcp");
        let port: PortMap = "0.0.0.0:53:5353/udp".parse().unwrap();
        assert_eq!(port.to_string(), "0.0.0.0:53:5353/udp");
    }

    #[test]
    fn ill_formed_ports_say_what_is_wrong() {
        for (text, fault) in [
            ("80", "guest port is missing"),
            ("8080:80/sctp", "neither tcp nor udp"),
            ("0:80", "1 to 65535"),
            ("80:65536", "1 to 65535"),
            ("host:80:80", "not an IP address"),
            ("[::1]:80:80", "IPv4 addresses only"),
            ("1.2.3.4:+80:80", "1 to 65535"),
        ] {
            let message = text.parse::<PortMap>().unwrap_err().to_string();
            assert!(message.contains(fault) && message.contains("8080:80"), "{text}: {message}");
        }
    }

    fn spec() -> Spec {
        Spec::new("web".parse().unwrap(), PathBuf::from("/i.elf"))
    }

    #[test]
    fn a_host_port_is_published_once() {
        let ports =
            |texts: &[&str]| Spec { ports: texts.iter().map(|t| t.parse().unwrap()).collect(), ..spec() };
        assert!(ports(&["80:80", "80:80/udp", "81:80"]).validate().is_ok());
        assert!(matches!(ports(&["80:80", "80:81"]).validate(), Err(SpecError::PortTwice(_))));
        assert!(matches!(ports(&["80:80", "0.0.0.0:80:81"]).validate(), Err(SpecError::PortTwice(_))));
    }

    #[test]
    fn environment_entries_cannot_smuggle_lines() {
        let env = |entry: &str| Spec { env: vec![entry.to_owned()], ..spec() }.validate_request();
        for good in ["A=b,c d", "_a1=", "A=b=c", "A=tab\there", "A=\u{e9}"] {
            assert_eq!(env(good), Ok(()), "{good:?}");
        }
        for bad in ["A", "", "=b", "1A=b", "A-B=c", "A B=c", "\u{e9}=c", "A=b\nC=d", "A=b\r", "A=b\0c"] {
            assert!(env(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Spec { env: vec!["of.old=1".to_owned()], ..spec() }.validate(), Ok(()));
    }

    #[test]
    fn a_refused_environment_never_shows_a_value() {
        for bad in ["hunter2", "1A=hunter2", "A=hunter2\n"] {
            let refused = Spec { env: vec![bad.to_owned()], ..spec() }.validate_request();
            let message = refused.unwrap_err().to_string();
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn an_environment_has_limits() {
        let env = |count: usize, bytes: usize| {
            let entry = format!("A={}", "x".repeat(bytes));
            Spec { env: vec![entry; count], ..spec() }.validate()
        };
        assert_eq!(env(MAX_ENV_ENTRIES, 1), Ok(()));
        assert_eq!(env(MAX_ENV_ENTRIES + 1, 1), Err(EnvError::TooMany(MAX_ENV_ENTRIES + 1).into()));
        assert_eq!(env(1, MAX_ENV_BYTES - 3), Ok(()));
        assert_eq!(env(1, MAX_ENV_BYTES - 2), Err(EnvError::TooLong(MAX_ENV_BYTES + 1).into()));
    }

    proptest! {
        #[test]
        fn every_port_mapping_survives_printing(host in 1u16.., guest in 1u16.., addr: [u8; 4], udp: bool) {
            let proto = if udp { Proto::Udp } else { Proto::Tcp };
            let map = PortMap { addr: IpAddr::V4(addr.into()), host, guest, proto };
            prop_assert_eq!(map.to_string().parse(), Ok(map));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in any::<String>()) {
            let _ = text.parse::<PortMap>();
            let _ = parse_memory_mib(&text);
        }
    }
}
