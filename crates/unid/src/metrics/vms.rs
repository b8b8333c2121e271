//! The metrics of each VM, from its state and the sampler's newest sample.
//!
//! What is measured of a process is shown while it lives, so that its curves end with it; state and restarts are
//! shown as long as the VM is known.

use uni_host::ProcessSample;
use uni_vmm::id::Link;
use uni_vmm::links::{Direction, Links};

use super::Family;
use crate::sampler::{Figures, Latest};
use crate::vms::{Manager, Vm};

/// A VM's states.
const STATES: [&str; 5] = ["created", "starting", "running", "stopping", "stopped"];

/// Adds the families, empty ones too.
pub(super) fn collect(manager: &Manager, figures: &Figures, families: &mut Vec<Family>) {
    let vms = manager.all();
    let mut known = Known::default();
    let mut process = Process::default();
    let mut links = PerLink::default();
    figures.with_latest(|latest| {
        for vm in &vms {
            known.add(vm);
            // a sample of an earlier run, or of a run that has ended, says nothing about now
            let measured = latest.get(vm.id()).filter(|latest| vm.process() == Some(latest.process));
            if let Some(Latest { sample, links: counters, .. }) = measured {
                process.add(vm, sample);
                links.add(vm.name(), counters);
            }
        }
    });
    families.extend(known.families());
    families.extend(process.families());
    families.extend(links.families());
}

/// What is known of a VM without measuring it.
struct Known {
    state: Family,
    restarts: Family,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            state: Family::gauge("uni_vm_state", "1 for the state that the VM is in, 0 for the others."),
            restarts: Family::counter(
                "uni_vm_restarts_total",
                "Starts of the VM by its restart policy, over its whole life.",
            ),
        }
    }
}

impl Known {
    fn add(&mut self, vm: &Vm) {
        let present = vm.state();
        for state in STATES {
            self.state.add(&[("vm", vm.name()), ("state", state)], u64::from(state == present));
        }
        self.restarts.add(&[("vm", vm.name())], vm.restarts());
    }

    fn families(self) -> [Family; 2] {
        [self.state, self.restarts]
    }
}

/// What the host's kernel says of a VM's process.
struct Process {
    start_time: Family,
    cpu: Family,
    resident: Family,
    virtual_size: Family,
    faults: Family,
    switches: Family,
    read: Family,
    written: Family,
}

impl Default for Process {
    fn default() -> Self {
        Self {
            start_time: Family::gauge(
                "uni_vm_start_time_seconds",
                "When the VM was last started, in seconds since 1970.",
            ),
            cpu: Family::counter(
                "uni_vm_cpu_seconds_total",
                "Processor time of the VM's process, by mode: user (a KVM guest's own time included) and system.",
            ),
            resident: Family::gauge(
                "uni_vm_memory_resident_bytes",
                "Memory of the VM's process that is in the host's RAM.",
            ),
            virtual_size: Family::gauge("uni_vm_memory_virtual_bytes", "Address space of the VM's process."),
            faults: Family::counter(
                "uni_vm_page_faults_total",
                "Page faults of the VM's process, by kind: major ones had to read a page.",
            ),
            switches: Family::counter(
                "uni_vm_context_switches_total",
                "Context switches of the VM's process, all threads, by kind: voluntary and involuntary.",
            ),
            read: Family::counter(
                "uni_vm_disk_read_bytes_total",
                "Bytes that the VM's process had read from block devices.",
            ),
            written: Family::counter(
                "uni_vm_disk_written_bytes_total",
                "Bytes that the VM's process had written to block devices.",
            ),
        }
    }
}

impl Process {
    fn add(&mut self, vm: &Vm, sample: &ProcessSample) {
        let name = vm.name();
        if let Some(time) = vm.start_time_seconds() {
            self.start_time.add(&[("vm", name)], time);
        }
        self.cpu.add(&[("vm", name), ("mode", "user")], sample.user.as_secs_f64());
        self.cpu.add(&[("vm", name), ("mode", "system")], sample.system.as_secs_f64());
        self.resident.add(&[("vm", name)], sample.rss_bytes);
        self.virtual_size.add(&[("vm", name)], sample.vsize_bytes);
        self.faults.add(&[("vm", name), ("kind", "minor")], sample.minflt);
        self.faults.add(&[("vm", name), ("kind", "major")], sample.majflt);
        self.switches.add(&[("vm", name), ("kind", "voluntary")], sample.switches.voluntary);
        self.switches.add(&[("vm", name), ("kind", "involuntary")], sample.switches.involuntary);
        if let Some(io) = sample.io {
            self.read.add(&[("vm", name)], io.read_bytes);
            self.written.add(&[("vm", name)], io.write_bytes);
        }
    }

    fn families(self) -> [Family; 8] {
        [
            self.start_time,
            self.cpu,
            self.resident,
            self.virtual_size,
            self.faults,
            self.switches,
            self.read,
            self.written,
        ]
    }
}

/// What went over a VM's links, as the guest sees it.
struct PerLink {
    receive_bytes: Family,
    transmit_bytes: Family,
    receive_packets: Family,
    transmit_packets: Family,
    console_dropped: Family,
}

impl Default for PerLink {
    fn default() -> Self {
        Self {
            receive_bytes: Family::counter(
                "uni_vm_network_receive_bytes_total",
                "Bytes of Ethernet frames that went to the VM, by link: service or management.",
            ),
            transmit_bytes: Family::counter(
                "uni_vm_network_transmit_bytes_total",
                "Bytes of Ethernet frames that the VM sent, by link: service or management.",
            ),
            receive_packets: Family::counter(
                "uni_vm_network_receive_packets_total",
                "Ethernet frames that went to the VM, by link: service or management.",
            ),
            transmit_packets: Family::counter(
                "uni_vm_network_transmit_packets_total",
                "Ethernet frames that the VM sent, by link: service or management.",
            ),
            console_dropped: Family::counter(
                "uni_vm_console_dropped_bytes_total",
                "Bytes of the VM's console that could not be written to disk.",
            ),
        }
    }
}

impl PerLink {
    fn add(&mut self, vm: &str, links: &Links) {
        for (link, word) in [(Link::Service, "service"), (Link::Management, "management")] {
            let labels = [("vm", vm), ("link", word)];
            let (to_vm, from_vm) = (links.of(link, Direction::ToVm), links.of(link, Direction::FromVm));
            self.receive_bytes.add(&labels, to_vm.bytes);
            self.receive_packets.add(&labels, to_vm.frames);
            self.transmit_bytes.add(&labels, from_vm.bytes);
            self.transmit_packets.add(&labels, from_vm.frames);
        }
        self.console_dropped.add(&[("vm", vm)], links.console_dropped_bytes);
    }

    fn families(self) -> [Family; 5] {
        [
            self.receive_bytes,
            self.transmit_bytes,
            self.receive_packets,
            self.transmit_packets,
            self.console_dropped,
        ]
    }
}
