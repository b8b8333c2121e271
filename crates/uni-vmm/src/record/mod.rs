//! What is remembered of a VM: the shape of its record, and where records are kept.
//!
//! The shape is the one of existing installations (snake_case outside, PascalCase inside `config`, settings
//! this version does not act on included), with keys of our own beside it, so that their records are read and
//! ours are not foreign to them. Owns that shape and the interface of a store; the stores are [`FileStore`]
//! and [`SqliteStore`]. Knows no times but as text given from outside.

mod dirs;
mod file;
mod migrate;
mod row;
mod sqlite;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

pub use self::file::FileStore;
pub use self::migrate::Migration;
pub use self::sqlite::SqliteStore;
use crate::accel::Accel;
use crate::id::VmId;
use crate::machine::Stored;
use crate::name::{NameError, VmName};
use crate::spec::{self, Limits, MAX_CPU_WEIGHT, Machine, PortMap, Proto, Spec, SpecError};

/// The longest record that is read, in bytes.
const MAX_RECORD_BYTES: u64 = 4 << 20;

/// Ours, in `config`: what the VM was called in an older installation.
const ORIGINAL_NAME: &str = "OriginalName";

/// A VM's record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Whose it is.
    pub id: VmId,
    /// What was asked for.
    pub config: Config,
    /// Where the VM is in its life; `state` outside, `intent`, `generation`, `injection`, `last_exit` are
    /// ours.
    #[serde(flatten)]
    pub lifecycle: Stored,
    /// RFC 3339 with fractional seconds.
    pub created_at: String,
    /// The same; absent until set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// The same; absent until set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<String>,
    /// Whether a returning daemon found the VM gone.
    #[serde(default, skip_serializing_if = "is_default")]
    pub daemon_recovered: bool,
    /// The last health verdict.
    #[serde(default, skip_serializing_if = "is_default")]
    pub health_status: String,
    /// Restarts by policy.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restart_count: u64,
    /// QEMU's pid while it runs, else 0.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pid: u32,
    /// Ours: seconds that the last stop gave the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_seconds: Option<u64>,
    /// Ours: how guest instructions are run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accel: Option<Accel>,
    /// Ours: why so.
    #[serde(default, skip_serializing_if = "is_default")]
    pub accel_reason: String,
}

/// The `config` object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// Absolute path.
    pub image_path: String,
    /// QEMU size, such as `256M`.
    pub memory: String,
    /// 0 means one.
    #[serde(rename = "CPUs")]
    pub cpus: u32,
    /// Managed network; empty without.
    pub network_name: String,
    /// Published ports.
    #[serde(deserialize_with = "null_as_default")]
    pub port_maps: Vec<StoredPort>,
    /// `KEY=VALUE` each.
    #[serde(deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    /// The VM's name.
    pub name: String,
    /// Attached volumes, kept as they are.
    #[serde(deserialize_with = "null_as_default")]
    pub volumes: Vec<Value>,
    /// Whether the console was to be streamed.
    pub attach: bool,
    /// Static address; empty without a network, as are the next three.
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    /// Gateway.
    #[serde(rename = "GatewayIP")]
    pub gateway_ip: String,
    /// Bridge.
    pub bridge_name: String,
    /// Prefix length as text.
    pub subnet_mask: String,
    /// Health check, kept as it is.
    pub health_check: Option<Value>,
    /// Restart policy, kept as it is.
    pub restart: Value,
    /// cgroup weight, 0 unset.
    #[serde(rename = "CPUShares")]
    pub cpu_shares: u64,
    /// cgroup memory limit in bytes, 0 unset.
    pub memory_max: i64,
    /// Disk operations per second, 0 unlimited.
    #[serde(rename = "DiskIOPS")]
    pub disk_iops: u64,
    /// Disk bytes per second, 0 unlimited.
    #[serde(rename = "DiskBPS")]
    pub disk_bps: i64,
    /// Ours: guest arguments as the user gave them.
    #[serde(deserialize_with = "null_as_default")]
    pub args: Vec<String>,
    /// Ours: `--no-add-name` was said.
    pub no_add_name: bool,
    /// Ours: QEMU machine for kernels.
    pub machine: Machine,
    /// Ours: the guest may reach out.
    pub outbound: bool,
    /// Ours: `--rm` was said.
    pub auto_remove: bool,
    /// Settings of other versions, kept as they are.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A published port in a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StoredPort {
    /// Port on this machine.
    pub host_port: u16,
    /// Port in the guest.
    pub guest_port: u16,
    /// Transport.
    pub protocol: Proto,
    /// Ours: address on this machine; absent means 127.0.0.1.
    #[serde(default = "loopback")]
    pub host_addr: IpAddr,
}

fn loopback() -> IpAddr {
    IpAddr::V4(Ipv4Addr::LOCALHOST)
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn null_as_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// Why a stored configuration cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Its name is none (older versions did not check).
    #[error("the stored name is not usable")]
    Name(#[from] NameError),
    /// Something else in it.
    #[error("the stored configuration is not usable")]
    Spec(#[from] SpecError),
}

impl Config {
    /// The configuration that stores `spec`.
    ///
    /// Paths that are not UTF-8 never get this far: [`crate::qemu::compose`] refuses them.
    #[must_use]
    pub fn of(spec: &Spec) -> Self {
        Self {
            image_path: spec.image.to_string_lossy().into_owned(),
            memory: format!("{}M", spec.memory_mib),
            cpus: spec.cpus,
            port_maps: spec.ports.iter().map(StoredPort::of).collect(),
            env: spec.env.clone(),
            name: spec.name.to_string(),
            restart: serde_json::json!({ "Policy": "", "MaxRetries": 0 }),
            args: spec.args.clone(),
            no_add_name: !spec.add_name,
            outbound: spec.outbound,
            cpu_shares: u64::from(spec.limits.cpu_weight),
            memory_max: i64::try_from(spec.limits.memory_max_bytes).unwrap_or(i64::MAX),
            disk_iops: spec.limits.disk_iops,
            disk_bps: i64::try_from(spec.limits.disk_bps).unwrap_or(i64::MAX),
            machine: spec.machine,
            ..Self::default()
        }
    }

    /// Keeps a name that was replaced, unless an earlier one is kept already.
    pub fn remember_name(&mut self, name: &str) {
        if !name.is_empty() {
            self.other.entry(ORIGINAL_NAME).or_insert_with(|| name.into());
        }
    }

    /// The name before it was replaced, because it was none or another's.
    #[must_use]
    pub fn original_name(&self) -> Option<&str> {
        self.other.get(ORIGINAL_NAME)?.as_str()
    }

    /// The limits stored here. What older versions took and no kernel takes is brought into range.
    fn limits(&self) -> Limits {
        Limits {
            cpu_weight: u16::try_from(self.cpu_shares)
                .map_or(MAX_CPU_WEIGHT, |weight| weight.min(MAX_CPU_WEIGHT)),
            memory_max_bytes: u64::try_from(self.memory_max).unwrap_or(0),
            disk_iops: self.disk_iops,
            disk_bps: u64::try_from(self.disk_bps).unwrap_or(0),
        }
    }

    /// The specification stored here.
    ///
    /// # Errors
    /// It breaks a rule that older versions did not have.
    pub fn to_spec(&self) -> Result<Spec, ConfigError> {
        let name = VmName::try_from(self.name.clone())?;
        let spec = Spec {
            name,
            image: PathBuf::from(&self.image_path),
            memory_mib: self.memory_mib()?,
            cpus: self.cpus.max(1),
            ports: self.port_maps.iter().map(StoredPort::to_port).collect(),
            args: self.args.clone(),
            env: self.env.clone(),
            machine: self.machine,
            add_name: !self.no_add_name,
            outbound: self.outbound,
            limits: self.limits(),
        };
        spec.validate()?;
        Ok(spec)
    }

    /// Guest memory; older versions stored nothing where nothing was asked for.
    fn memory_mib(&self) -> Result<u32, SpecError> {
        if self.memory.is_empty() {
            return Ok(spec::DEFAULT_MEMORY_MIB);
        }
        spec::parse_memory_mib(&self.memory)
    }
}

impl StoredPort {
    fn of(port: &PortMap) -> Self {
        Self { host_port: port.host, guest_port: port.guest, protocol: port.proto, host_addr: port.addr }
    }

    fn to_port(&self) -> PortMap {
        PortMap { addr: self.host_addr, host: self.host_port, guest: self.guest_port, proto: self.protocol }
    }
}

/// The records of all VMs, wherever they are kept. The VMs' directories stand beside them in any case.
pub trait RecordStore: fmt::Debug + Send + Sync {
    /// Writes a record durably: after this returns, a crash at any moment leaves it (or a later one)
    /// readable.
    ///
    /// # Errors
    /// What the file system or the database says; the old record is then still there.
    fn save(&self, record: &Record) -> Result<(), StoreError>;

    /// Reads all records. One that cannot be read is named and stays; the others load.
    ///
    /// # Errors
    /// The records cannot be listed at all.
    fn load_all(&self) -> Result<LoadReport, StoreError>;

    /// Forgets a VM: its record first, then all its files. One that is gone already is no error.
    ///
    /// # Errors
    /// What the file system or the database says; doing it again finishes it.
    fn remove(&self, id: VmId) -> Result<(), StoreError>;
}

/// What [`RecordStore::load_all`] found.
#[derive(Debug, Default)]
pub struct LoadReport {
    /// The records, by id.
    pub records: Vec<Record>,
    /// Records that could not be read.
    pub damaged: Vec<Damaged>,
    /// VM directories without a record: left by a crash while a VM was made or removed.
    pub orphans: Vec<PathBuf>,
}

/// A record that could not be read.
#[derive(Debug)]
pub struct Damaged {
    /// Where it is (or was).
    pub place: String,
    /// Where it is now, if it was set aside.
    pub set_aside: Option<PathBuf>,
    /// What is wrong with it.
    pub fault: String,
}

/// A store operation failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}", path.display())]
pub struct StoreError {
    /// What was tried.
    pub what: &'static str,
    /// On what.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::exit::Exit;
    use crate::machine::{Injection, Intent, State};

    /// As an existing installation writes it.
    pub(super) const FOREIGN: &str = r#"{
      "id": "9f2c41d07ab3",
      "config": {
        "ImagePath": "/root/.uni/images/0c1e/disk.img", "Memory": "256M", "CPUs": 1,
        "NetworkName": "", "PortMaps": [{"HostPort": 8080, "GuestPort": 80, "Protocol": "tcp"}],
        "Env": null, "Name": "web", "Volumes": [], "Attach": false,
        "IPAddress": "", "GatewayIP": "", "BridgeName": "", "SubnetMask": "",
        "HealthCheck": {"Type": "http", "Port": 8080, "Path": "/healthz", "Interval": 0, "Timeout": 0, "Retries": 0},
        "Restart": {"Policy": "on-failure", "MaxRetries": 5},
        "CPUShares": 512, "MemoryMax": 1073741824, "DiskIOPS": 1000, "DiskBPS": 10485760
      },
      "state": "running",
      "created_at": "2026-05-15T21:40:02.118349201+02:00",
      "started_at": "2026-05-15T21:40:02.131007554+02:00",
      "health_status": "healthy",
      "restart_count": 2
    }"#;

    pub(super) fn foreign() -> Record {
        serde_json::from_str(FOREIGN).unwrap()
    }

    #[test]
    fn a_record_of_an_existing_installation_is_read_whole() {
        let record = foreign();
        assert_eq!((record.lifecycle.state, record.lifecycle.intent), (State::Running, Intent::Run));
        assert_eq!((record.restart_count, record.health_status.as_str()), (2, "healthy"));
        let spec = record.config.to_spec().unwrap();
        assert_eq!((&*spec.name, spec.memory_mib, spec.add_name), ("web", 256, true));
        assert_eq!(spec.ports[0].to_string(), "127.0.0.1:8080:80/tcp");
    }

    #[test]
    fn writing_such_a_record_loses_none_of_its_keys() {
        let before: Value = serde_json::from_str(FOREIGN).unwrap();
        let after = serde_json::to_value(foreign()).unwrap();
        for (key, value) in before.as_object().unwrap() {
            if key != "config" {
                assert_eq!(after.get(key), Some(value), "{key}");
            }
        }
        for (key, value) in before["config"].as_object().unwrap() {
            match key.as_str() {
                // Its null becomes an empty list, its ports gain an address.
                "Env" => assert_eq!(after["config"][key], serde_json::json!([])),
                "PortMaps" => assert_eq!(after["config"][key][0]["HostPort"], 8080),
                _ => assert_eq!(after["config"].get(key), Some(value), "{key}"),
            }
        }
    }

    #[test]
    fn a_specification_survives_its_record() {
        let mut spec = Spec::new("a.b".parse().unwrap(), PathBuf::from("/x"));
        spec.ports = vec!["0.0.0.0:1:2/udp".parse().unwrap()];
        spec.args = vec!["a b".to_owned()];
        spec.add_name = false;
        let text = serde_json::to_string(&Config::of(&spec)).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap().to_spec().unwrap(), spec);
    }

    #[test]
    fn settings_of_other_versions_are_kept() {
        let text = FOREIGN.replace("\"Attach\"", "\"ImageRef\": \"web:1\", \"Attach\"");
        let record: Record = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_value(&record).unwrap()["config"]["ImageRef"], "web:1");
    }

    /// A change of what is stored.
    #[derive(Clone, Debug)]
    enum Step {
        Save(Box<Record>),
        Remove(VmId),
    }

    fn id() -> impl Strategy<Value = VmId> {
        (0..4u8).prop_map(|n| VmId::from_random([0, 0, 0, 0, 0, n]))
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|object| Value::from(Map::from_iter(object))),
            ]
        })
    }

    fn lifecycle() -> impl Strategy<Value = Stored> {
        let state = prop::sample::select(vec![
            State::Created,
            State::Starting,
            State::Running,
            State::Stopping,
            State::Stopped,
        ]);
        let exit = prop_oneof![
            Just(Exit::PowerOff),
            any::<u8>().prop_map(Exit::Code),
            any::<String>().prop_map(Exit::HypervisorError),
            any::<i32>().prop_map(Exit::Signal),
        ];
        let intent = prop::sample::select(vec![Intent::Run, Intent::Stop, Intent::Kill]);
        (state, intent, any::<u64>(), prop::option::of(exit)).prop_map(
            |(state, intent, generation, last_exit)| Stored {
                state,
                intent,
                generation,
                injection: Injection::With,
                last_exit,
            },
        )
    }

    fn record() -> impl Strategy<Value = Record> {
        let times = (any::<String>(), prop::option::of(any::<String>()), prop::option::of(any::<String>()));
        let counts = (any::<bool>(), 0..=i64::MAX as u64, any::<u32>(), prop::option::of(any::<u64>()));
        (id(), lifecycle(), times, counts, (any::<[String; 2]>(), json(), json())).prop_map(
            |(id, lifecycle, (created_at, started_at, stopped_at), counts, (texts, restart, volume))| {
                let [name, health_status] = texts;
                let (daemon_recovered, restart_count, pid, stop_seconds) = counts;
                let config =
                    Config { name: name.clone(), restart, volumes: vec![volume], ..foreign().config };
                let (accel, accel_reason) = (Some(Accel::Tcg), name);
                Record {
                    id,
                    config,
                    lifecycle,
                    created_at,
                    started_at,
                    stopped_at,
                    daemon_recovered,
                    health_status,
                    restart_count,
                    pid,
                    stop_seconds,
                    accel,
                    accel_reason,
                }
            },
        )
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => record().prop_map(|record| Step::Save(Box::new(record))),
            1 => id().prop_map(Step::Remove),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn both_stores_remember_the_same(steps in prop::collection::vec(step(), 0..12)) {
            let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
            let open = || -> [Box<dyn RecordStore>; 2] {
                [
                    Box::new(FileStore::open(dirs[0].path()).unwrap()),
                    Box::new(SqliteStore::open(dirs[1].path()).unwrap()),
                ]
            };
            let stores = open();
            let mut expected = std::collections::BTreeMap::new();
            for step in steps {
                for store in &stores {
                    match &step {
                        Step::Save(record) => store.save(record).unwrap(),
                        Step::Remove(id) => store.remove(*id).unwrap(),
                    }
                }
                match step {
                    Step::Save(record) => drop(expected.insert(record.id, *record)),
                    Step::Remove(id) => drop(expected.remove(&id)),
                }
            }
            drop(stores);
            let expected: Vec<_> = expected.into_values().collect();
            for store in open() {
                let report = store.load_all().unwrap();
                prop_assert_eq!(&report.records, &expected);
                prop_assert!(report.damaged.is_empty() && report.orphans.is_empty());
            }
        }
    }

    proptest! {
        #[test]
        fn no_json_makes_reading_a_record_panic(value in json()) {
            let _ = serde_json::from_value::<Record>(value);
        }

        #[test]
        fn nor_does_a_record_with_any_one_value_replaced(at in any::<prop::sample::Index>(), value in json()) {
            let mut record: Value = serde_json::from_str(FOREIGN).unwrap();
            let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            let inner = keys(&record["config"]).into_iter().map(|key| format!("/config/{key}"));
            let pointers: Vec<_> = keys(&record).iter().map(|key| format!("/{key}")).chain(inner).collect();
            *record.pointer_mut(&pointers[at.index(pointers.len())]).unwrap() = value;
            if let Ok(record) = serde_json::from_value::<Record>(record) {
                let _ = record.config.to_spec();
                prop_assert_eq!(serde_json::from_str::<Record>(&serde_json::to_string(&record).unwrap()).unwrap(), record);
            }
        }
    }
}
