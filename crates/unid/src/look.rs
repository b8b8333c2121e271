//! What one look at a VM from outside found, as measurements: the same for the store and for forwarders.
//!
//! Owns their order and their tags. The fields are [`points`]'s; when to look is the sampler's business.

use uni_host::points::{self, Fields, Units};
use uni_host::{LinkCounters, ProcessSample};
use uni_store::Point;
use uni_vmm::id::Link;
use uni_vmm::links::{Direction, Links};
use uni_wire::Timestamp;

/// MTU of the links QEMU gives its guests.
const MTU_BYTES: u64 = 1500;
/// The tag that every point about a VM carries.
pub(crate) const VM_TAG: &str = "vm";

/// One VM at one moment.
#[derive(Debug)]
pub(crate) struct Look<'a> {
    pub(crate) vm: &'a str,
    pub(crate) sample: &'a ProcessSample,
    pub(crate) links: &'a Links,
    pub(crate) time: Timestamp,
}

impl Look<'_> {
    /// Hands out each measurement with the link it is about (if it is about one) and its fields, in the order in
    /// which albatross sends them.
    pub(crate) fn measurements(
        &self,
        units: Units,
        mut each: impl FnMut(&'static str, Option<&'static str>, &mut Fields),
    ) {
        let mut fields = Fields::new();
        points::resource_usage(self.sample, units, &mut fields);
        each(points::RESOURCE_USAGE, None, &mut fields);
        fields.clear();
        points::kinfo_mem(self.sample, units, &mut fields);
        each(points::KINFO_MEM, None, &mut fields);
        for link in [Link::Service, Link::Management] {
            fields.clear();
            points::interface(&self.counters(link), units, &mut fields);
            each(points::INTERFACE, Some(link_name(link)), &mut fields);
        }
    }

    /// The points that are stored.
    pub(crate) fn points(&self, batch: &mut Vec<Point>) {
        self.measurements(Units::Right, |measurement, link, fields| {
            let bridge = link.map(|link| (points::BRIDGE_TAG.into(), link.into()));
            batch.push(Point {
                measurement: measurement.into(),
                tags: bridge.into_iter().chain([(VM_TAG.into(), self.vm.into())]).collect(),
                fields: fields.drain(..).map(|(name, value)| (name.into(), value)).collect(),
                time: self.time,
            });
        });
    }

    fn counters(&self, link: Link) -> LinkCounters {
        let direction = |direction| {
            let counts = self.links.of(link, direction);
            points::Direction {
                packets: counts.frames,
                bytes: counts.bytes,
                mcast: counts.multicast,
                ..points::Direction::default()
            }
        };
        LinkCounters {
            mtu: MTU_BYTES,
            vm_to_host: direction(Direction::FromVm),
            host_to_vm: direction(Direction::ToVm),
            ..LinkCounters::default()
        }
    }
}

/// The link's name as the guest and the dashboards spell it.
pub(crate) const fn link_name(link: Link) -> &'static str {
    match link {
        Link::Service => "service",
        Link::Management => "management",
    }
}
