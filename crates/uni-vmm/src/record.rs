//! What is remembered of a VM: the shape of `state.json` and the directory of such files.
//!
//! The shape is the one of existing installations (snake_case outside, PascalCase inside `config`, settings
//! this version does not act on included), with keys of our own beside it, so that their records are read and
//! ours are not foreign to them. Owns that shape, durable writing and tolerant loading; knows no times but as
//! text given from outside.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::accel::Accel;
use crate::atomic;
use crate::id::VmId;
use crate::machine::Stored;
use crate::name::{NameError, VmName};
use crate::paths::STATE_FILE;
use crate::spec::{self, Machine, PortMap, Proto, Spec, SpecError};

/// The longest `state.json`, in bytes.
const MAX_RECORD_BYTES: u64 = 4 << 20;
/// What a damaged record's file is renamed to.
const DAMAGED_FILE: &str = "state.json.damaged";

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
            machine: spec.machine,
            ..Self::default()
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
            memory_mib: spec::parse_memory_mib(&self.memory)?,
            cpus: self.cpus.max(1),
            ports: self.port_maps.iter().map(StoredPort::to_port).collect(),
            args: self.args.clone(),
            env: self.env.clone(),
            machine: self.machine,
            add_name: !self.no_add_name,
            outbound: self.outbound,
        };
        spec.validate()?;
        Ok(spec)
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

/// The records of all VMs: `<state>/vms/<id>/state.json`, 0600 in directories of 0700.
#[derive(Clone, Debug)]
pub struct FileStore {
    vms_dir: PathBuf,
}

/// What [`FileStore::load_all`] found.
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
    /// The file.
    pub path: PathBuf,
    /// Where it is now, if it could be set aside.
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

impl FileStore {
    /// The store below `state_dir`; makes its directory.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(state_dir: &Path) -> Result<Self, StoreError> {
        let vms_dir = state_dir.join("vms");
        match atomic::private_dir(&vms_dir) {
            Ok(()) => Ok(Self { vms_dir }),
            Err(source) => Err(StoreError { what: "make", path: vms_dir, source }),
        }
    }

    fn dir(&self, id: VmId) -> PathBuf {
        self.vms_dir.join(id.to_string())
    }

    /// Writes a record durably: after this returns, a crash at any moment leaves it (or a later one)
    /// readable.
    ///
    /// # Errors
    /// What the file system says; the old record is then still there.
    pub fn save(&self, record: &Record) -> Result<(), StoreError> {
        let dir = self.dir(record.id);
        let is_new = !dir.exists();
        let text = serde_json::to_vec_pretty(record).map_err(io::Error::from);
        let written = text.and_then(|text| {
            atomic::private_dir(&dir)?;
            if is_new {
                std::fs::File::open(&self.vms_dir)?.sync_all()?;
            }
            atomic::write(&dir, STATE_FILE, &text)
        });
        written.map_err(|source| StoreError { what: "save the record in", path: dir, source })
    }

    /// Reads all records. One that cannot be read is set aside and named; the others load.
    ///
    /// # Errors
    /// The directory itself cannot be listed.
    pub fn load_all(&self) -> Result<LoadReport, StoreError> {
        let failed = |source| StoreError { what: "list", path: self.vms_dir.clone(), source };
        let mut report = LoadReport::default();
        for entry in std::fs::read_dir(&self.vms_dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if let Some(id) = name.to_str().and_then(|name| name.parse().ok()) {
                self.load(id, &mut report);
            }
        }
        report.records.sort_by_key(|record| record.id);
        Ok(report)
    }

    fn load(&self, id: VmId, report: &mut LoadReport) {
        let dir = self.dir(id);
        let path = dir.join(STATE_FILE);
        match read_record(&path, id) {
            Ok(record) => report.records.push(record),
            Err(error) if error.kind() == io::ErrorKind::NotFound => report.orphans.push(dir),
            Err(error) => {
                let target = dir.join(DAMAGED_FILE);
                let set_aside = std::fs::rename(&path, &target).is_ok().then_some(target);
                report.damaged.push(Damaged { path, set_aside, fault: error.to_string() });
            }
        }
    }

    /// Forgets a VM: its record first, then all its files. One that is gone already is no error.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove(&self, id: VmId) -> Result<(), StoreError> {
        let dir = self.dir(id);
        let gone_is_fine = |result: io::Result<()>| match result {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        gone_is_fine(std::fs::remove_file(dir.join(STATE_FILE)))
            .and_then(|()| gone_is_fine(std::fs::remove_dir_all(&dir)))
            .map_err(|source| StoreError { what: "remove", path: dir, source })
    }
}

fn read_record(path: &Path, id: VmId) -> io::Result<Record> {
    let record: Record = serde_json::from_slice(&atomic::read(path, MAX_RECORD_BYTES)?)?;
    if record.id != id {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it is the record of VM {}", record.id),
        ));
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::machine::{Intent, State};

    /// As an existing installation writes it.
    const FOREIGN: &str = r#"{
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

    fn foreign() -> Record {
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
    fn what_was_saved_is_loaded_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(dir.path()).unwrap();
        let record = foreign();
        store.save(&record).unwrap();
        let vm = dir.path().join("vms/9f2c41d07ab3");
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&vm), mode(&vm.join("state.json"))), (0o700, 0o600));
        assert_eq!(store.load_all().unwrap().records, std::slice::from_ref(&record));
        store.remove(record.id).unwrap();
        store.remove(record.id).unwrap();
        assert!(!vm.exists() && store.load_all().unwrap().records.is_empty());
    }

    #[test]
    fn a_damaged_record_is_set_aside_and_the_rest_loads() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(dir.path()).unwrap();
        store.save(&foreign()).unwrap();
        let other = |name: &str| dir.path().join("vms").join(name);
        for (name, text) in [("000000000001", FOREIGN), ("000000000002", "{\"id\": \"0000")] {
            std::fs::create_dir(other(name)).unwrap();
            std::fs::write(other(name).join("state.json"), text).unwrap();
        }
        std::fs::create_dir(other("000000000003")).unwrap();
        std::fs::create_dir(other("not-an-id")).unwrap();
        let report = store.load_all().unwrap();
        assert_eq!(report.records.len(), 1);
        assert_eq!(report.orphans, [other("000000000003")]);
        let mut damaged: Vec<_> =
            report.damaged.iter().map(|d| (d.path.clone(), d.set_aside.clone().unwrap())).collect();
        damaged.sort();
        assert_eq!(damaged[1].0, other("000000000002").join("state.json"));
        assert!(damaged.iter().all(|(before, after)| !before.exists() && after.exists()));
        assert!(store.load_all().unwrap().damaged.is_empty());
    }
}
