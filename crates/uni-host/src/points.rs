//! Points: what was seen, as measurements with the names that albatross uses and the values they promise.
//!
//! Owns field names, units, types and order: those in `schema/`, or those albatross sends on Linux ([`Units`]).
//! Where albatross's values are wrong on Linux (peak memory, stack, uptime, block I/O, threads' context
//! switches), the name is kept and the value is the right one. Never adds tags or times: the caller knows the VM.

use uni_wire::FieldValue;

use crate::sample::ProcessSample;

/// Measurement made by [`resource_usage`].
pub const RESOURCE_USAGE: &str = "resource_usage";
/// Measurement made by [`kinfo_mem`].
pub const KINFO_MEM: &str = "kinfo_mem";
/// Measurement made by [`interface`].
pub const INTERFACE: &str = "interface";
/// Tag of [`INTERFACE`]: despite its name the guest's name of the link, `service` or `management`.
pub const BRIDGE_TAG: &str = "bridge";

/// The page that readers of `kinfo_mem` multiply by, whatever the machine's own is.
const WIRE_PAGE_BYTES: u64 = 4096;
/// The unit of `inblock` and `outblock`, as getrusage(2) has it.
const BLOCK_BYTES: u64 = 512;

/// A point's fields.
pub type Fields = Vec<(&'static str, FieldValue)>;

/// Whose quantities and units the fields have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Units {
    /// What the names promise, as `schema/` has it.
    #[default]
    Right,
    /// What albatross sends on Linux, for readers that depend on it: `maxrss` is the memory of now in pages, `dsize`
    /// holds the stack and `ssize` repeats it, `runtime` counts clock ticks, what it does not look at is 0, and
    /// there is no field that it does not have.
    Albatross,
}

/// Appends the fields of `resource_usage`. `inblock` and `outblock` are absent when the kernel hides them.
/// The fields that Linux does not keep (`ixrss`, `idrss`, `isrss`, `nswap`, `msgsnd`, `msgrcv`, `nsignals`)
/// are 0, as getrusage(2) reports them.
pub fn resource_usage(sample: &ProcessSample, units: Units, out: &mut Fields) {
    let right = units == Units::Right;
    let maxrss = if right { sample.peak_rss_kib } else { sample.rss_bytes / WIRE_PAGE_BYTES };
    let blocks = match (units, sample.io) {
        (Units::Right, io) => io.map(|io| (io.read_bytes / BLOCK_BYTES, io.write_bytes / BLOCK_BYTES)),
        (Units::Albatross, _) => Some((0, 0)),
    };
    out.extend([
        ("utime", FieldValue::Float(sample.user.as_secs_f64())),
        ("stime", FieldValue::Float(sample.system.as_secs_f64())),
        ("maxrss", integer(maxrss)),
        ("ixrss", integer(0)),
        ("idrss", integer(0)),
        ("isrss", integer(0)),
        ("minflt", integer(sample.minflt)),
        ("maxflt", integer(sample.majflt)),
    ]);
    out.extend(right.then(|| ("majflt", integer(sample.majflt))));
    out.push(("nswap", integer(0)));
    out.extend(
        blocks
            .into_iter()
            .flat_map(|(read, written)| [("inblock", integer(read)), ("outblock", integer(written))]),
    );
    out.extend([
        ("msgsnd", integer(0)),
        ("msgrcv", integer(0)),
        ("nsignals", integer(0)),
        ("nvcsw", integer(sample.switches.voluntary)),
        ("nivcsw", integer(sample.switches.involuntary)),
    ]);
}

/// Appends the fields of `kinfo_mem`. `rss`, `tsize`, `dsize` and `ssize` count 4096 bytes each, on machines
/// with larger pages too. `cow_faults` is 0: Linux does not count them, and readers of albatross's points expect the field.
pub fn kinfo_mem(sample: &ProcessSample, units: Units, out: &mut Fields) {
    let pages = |bytes: u64| integer(bytes / WIRE_PAGE_BYTES);
    let right = units == Units::Right;
    let data_and_stack = sample.data_bytes.saturating_add(sample.stack_bytes);
    let (data, stack, cpu) = match units {
        Units::Right => (sample.data_bytes, sample.stack_bytes, sample.cpu),
        Units::Albatross => (data_and_stack, data_and_stack, sample.user.saturating_add(sample.system)),
    };
    out.extend([("vsize", integer(sample.vsize_bytes)), ("rss", pages(sample.rss_bytes))]);
    out.extend(right.then(|| ("rss_bytes", integer(sample.rss_bytes))));
    out.extend([
        ("tsize", pages(sample.text_bytes)),
        ("dsize", pages(data)),
        ("ssize", pages(stack)),
        ("cow_faults", integer(0)),
        ("runtime", FieldValue::Integer(i64::try_from(cpu.as_micros()).unwrap_or(i64::MAX))),
        ("uptime", FieldValue::Float(sample.uptime().as_secs_f64())),
    ]);
}

/// What a link has carried since the VM started. Bytes are those of Ethernet frames, headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Largest payload of a frame, bytes.
    pub mtu: u64,
    /// Bits per second, or 0 where nothing limits the link.
    pub baudrate: u64,
    /// Frames waiting for the VM now.
    pub send_queue_length: u64,
    /// Most frames that may wait for the VM.
    pub max_send_queue_length: u64,
    /// Frames lost because the queue towards the VM was full.
    pub send_queue_drops: u64,
    /// Collisions; 0 on a link that has none.
    pub collisions: u64,
    /// From the VM.
    pub vm_to_host: Direction,
    /// To the VM.
    pub host_to_vm: Direction,
}

/// One direction of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Direction {
    /// Frames.
    pub packets: u64,
    /// Frames that were malformed.
    pub errors: u64,
    /// Bytes of the frames.
    pub bytes: u64,
    /// Of the frames, those to a group (multicast and broadcast).
    pub mcast: u64,
    /// Frames that were thrown away.
    pub dropped: u64,
}

/// Appends the fields of `interface`.
pub fn interface(link: &LinkCounters, units: Units, out: &mut Fields) {
    let (from, to) = (&link.vm_to_host, &link.host_to_vm);
    // what albatross does not look at on Linux
    let seen = |value| integer(if units == Units::Right { value } else { 0 });
    out.extend([
        ("send_queue_length", seen(link.send_queue_length)),
        ("max_send_queue_length", seen(link.max_send_queue_length)),
        ("send_queue_drops", seen(link.send_queue_drops)),
        ("mtu", integer(link.mtu)),
        ("baudrate", seen(link.baudrate)),
        ("vm_to_host_packets", integer(from.packets)),
        ("vm_to_host_errors", integer(from.errors)),
        ("vm_to_host_bytes", integer(from.bytes)),
        ("vm_to_host_mcast", integer(from.mcast)),
        ("vm_to_host_dropped", integer(from.dropped)),
        ("collisions", integer(link.collisions)),
        ("host_to_vm_packets", integer(to.packets)),
        ("host_to_vm_errors", integer(to.errors)),
        ("host_to_vm_bytes", integer(to.bytes)),
        ("host_to_vm_mcast", seen(to.mcast)),
        ("host_to_vm_dropped", integer(to.dropped)),
    ]);
}

/// Counters go out as signed integers, as albatross sends them; what does not fit stays at the largest.
fn integer(value: u64) -> FieldValue {
    FieldValue::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::proc::Io;
    use crate::sample::ContextSwitches;
    use std::time::Duration;
    use uni_wire::FieldType;

    pub(crate) fn sample() -> ProcessSample {
        ProcessSample {
            at: Duration::from_millis(1_894_093),
            start_ticks: 108_183,
            started: Duration::from_millis(1_081_830),
            user: Duration::from_millis(12_340),
            system: Duration::from_millis(3_000),
            cpu: Duration::from_nanos(15_347_654_321),
            minflt: 5000,
            majflt: 2,
            threads: 4,
            vsize_bytes: 141_557_760,
            rss_bytes: 8123 * 4096,
            peak_rss_kib: 36_264,
            text_bytes: 44 * 4096,
            data_bytes: 32_967 * 4096,
            stack_bytes: 33 * 4096,
            switches: ContextSwitches { voluntary: 100, involuntary: 9 },
            io: Some(Io { read_bytes: 4096, write_bytes: 1023 }),
        }
    }

    fn value(fields: &Fields, name: &str) -> Option<FieldValue> {
        fields.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone())
    }

    fn made(make: impl FnOnce(&mut Fields)) -> Fields {
        let mut fields = Fields::new();
        make(&mut fields);
        fields
    }

    #[test]
    fn resource_usage_has_albatross_names_types_and_right_values() {
        let fields = made(|out| resource_usage(&sample(), Units::Right, out));
        assert_eq!(value(&fields, "utime"), Some(FieldValue::Float(12.34)));
        assert_eq!(value(&fields, "stime"), Some(FieldValue::Float(3.0)));
        for (name, expected) in
            [("maxrss", 36_264), ("maxflt", 2), ("majflt", 2), ("nvcsw", 100), ("nivcsw", 9)]
        {
            assert_eq!(value(&fields, name), Some(FieldValue::Integer(expected)), "{name}");
        }
        assert_eq!(value(&fields, "inblock"), Some(FieldValue::Integer(8)));
        assert_eq!(value(&fields, "outblock"), Some(FieldValue::Integer(1)));
    }

    #[test]
    fn block_counts_that_cannot_be_seen_are_absent_not_zero() {
        let fields = made(|out| resource_usage(&ProcessSample { io: None, ..sample() }, Units::Right, out));
        assert_eq!(value(&fields, "inblock"), None);
    }

    #[test]
    fn kinfo_mem_counts_4096_bytes_and_tells_data_from_stack() {
        let fields = made(|out| kinfo_mem(&sample(), Units::Right, out));
        for (name, expected) in [
            ("vsize", 141_557_760),
            ("rss", 8123),
            ("tsize", 44),
            ("dsize", 32_967),
            ("ssize", 33),
            ("runtime", 15_347_654),
        ] {
            assert_eq!(value(&fields, name), Some(FieldValue::Integer(expected)), "{name}");
        }
        assert_eq!(value(&fields, "uptime"), Some(FieldValue::Float(812.263)));
        assert_eq!(value(&fields, "cow_faults"), Some(FieldValue::Integer(0)));
    }

    #[test]
    fn interface_directions_are_not_swapped() {
        let link = LinkCounters {
            vm_to_host: Direction { packets: 10, bytes: 1000, ..Direction::default() },
            host_to_vm: Direction { packets: 20, bytes: u64::MAX, dropped: 1, ..Direction::default() },
            ..LinkCounters::default()
        };
        let fields = made(|out| interface(&link, Units::Right, out));
        for (name, expected) in [
            ("vm_to_host_packets", 10),
            ("vm_to_host_bytes", 1000),
            ("host_to_vm_packets", 20),
            ("host_to_vm_bytes", i64::MAX),
            ("host_to_vm_dropped", 1),
        ] {
            assert_eq!(value(&fields, name), Some(FieldValue::Integer(expected)), "{name}");
        }
    }

    /// The fields of a line that albatross-influx was seen to send.
    fn recorded(text: &str) -> Vec<(&str, &str)> {
        text.split(',').filter_map(|field| field.split_once('=')).collect()
    }

    fn written(fields: &Fields) -> Vec<(&'static str, String)> {
        let text = |value: &FieldValue| match value {
            FieldValue::Integer(value) => format!("{value}i"),
            FieldValue::Float(value) => format!("{value:.6}"),
            other => panic!("albatross sends no {other:?}"),
        };
        fields.iter().map(|(name, value)| (*name, text(value))).collect()
    }

    #[test]
    fn albatross_units_make_its_recorded_lines() {
        let usage = "utime=12.340000,stime=3.000000,maxrss=8123i,ixrss=0i,idrss=0i,isrss=0i,minflt=5000i,maxflt=2i,\
                     nswap=0i,inblock=0i,outblock=0i,msgsnd=0i,msgrcv=0i,nsignals=0i,nvcsw=100i,nivcsw=9i";
        let memory = "vsize=141557760i,rss=8123i,tsize=44i,dsize=33000i,ssize=33000i,cow_faults=0i,\
                      runtime=15340000i,uptime=812.263000";
        let link = "send_queue_length=0i,max_send_queue_length=0i,send_queue_drops=0i,mtu=1500i,baudrate=0i,\
                    vm_to_host_packets=10i,vm_to_host_errors=0i,vm_to_host_bytes=1000i,vm_to_host_mcast=0i,\
                    vm_to_host_dropped=0i,collisions=0i,host_to_vm_packets=20i,host_to_vm_errors=0i,\
                    host_to_vm_bytes=2000i,host_to_vm_mcast=0i,host_to_vm_dropped=1i";
        let counters = LinkCounters {
            mtu: 1500,
            baudrate: 1_000_000_000,
            send_queue_drops: 5,
            vm_to_host: Direction { packets: 10, bytes: 1000, ..Direction::default() },
            host_to_vm: Direction { packets: 20, bytes: 2000, mcast: 7, dropped: 1, ..Direction::default() },
            ..LinkCounters::default()
        };
        for (fields, text) in [
            (made(|out| resource_usage(&sample(), Units::Albatross, out)), usage),
            (made(|out| kinfo_mem(&sample(), Units::Albatross, out)), memory),
            (made(|out| interface(&counters, Units::Albatross, out)), link),
        ] {
            let written = written(&fields);
            let written: Vec<_> = written.iter().map(|(name, text)| (*name, text.as_str())).collect();
            assert_eq!(written, recorded(text));
        }
    }

    /// `(name, type)` of every field in a schema file, which is TOML of one shape.
    fn schema(text: &str) -> Vec<(String, String)> {
        let values = |key: &'static str| {
            text.lines().filter_map(move |line| {
                let (name, value) = line.split_once(" = ")?;
                (name == key).then(|| value.trim_matches('"').to_owned())
            })
        };
        values("name").zip(values("type")).collect()
    }

    #[test]
    fn the_schema_lists_exactly_the_fields_made() {
        let cases = [
            (
                made(|out| resource_usage(&sample(), Units::Right, out)),
                include_str!("../../../schema/resource_usage.toml"),
            ),
            (
                made(|out| kinfo_mem(&sample(), Units::Right, out)),
                include_str!("../../../schema/kinfo_mem.toml"),
            ),
            (
                made(|out| interface(&LinkCounters::default(), Units::Right, out)),
                include_str!("../../../schema/interface.toml"),
            ),
        ];
        for (fields, text) in cases {
            let mut made: Vec<_> = fields
                .iter()
                .map(|(name, value): &(&str, FieldValue)| {
                    let field_type: FieldType = value.field_type();
                    ((*name).to_owned(), field_type.name().to_owned())
                })
                .collect();
            let mut listed = schema(text);
            made.sort();
            listed.sort();
            assert_eq!(made, listed);
        }
    }
}
