//! Events of several domains into one trace of version 3.
//!
//! Owns whose turn it is: a domain's packet is completed whenever another domain's event comes, as the original's
//! multiplexing writer does. Otherwise as [`Writer`](super::Writer).

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use super::writer::{Domain, Trace};
use super::{Allocation, Busy, Info, InfoTooLong, Locate, Version, event};

/// Writes a trace of several domains. Each takes about 380 KiB and the depth of its backtraces.
#[derive(Debug)]
pub struct DomainWriter {
    trace: Trace,
    domains: BTreeMap<u16, Box<Domain<Vec<u64>>>>,
    /// Whose packet is in the making.
    current: u16,
    /// That packet was completed and there was no event since.
    left: bool,
    /// Frames of a backtrace that are kept.
    depth: usize,
}

impl DomainWriter {
    /// Begins a trace. Up to `depth` frames of each domain's last backtrace are kept.
    ///
    /// # Errors
    /// When the info's texts are too long.
    pub fn new(info: &Info<'_>, depth: usize) -> Result<Self, InfoTooLong> {
        let mut trace = Trace::new();
        trace.start(Version::V3, info);
        let current = info.initial_domain;
        let mut writer = Self { trace, domains: BTreeMap::new(), current, left: false, depth };
        let trace = writer.trace;
        writer.domain().put_info(&trace, info)?;
        Ok(writer)
    }

    /// An allocation of `domain`. Returns its id.
    ///
    /// # Errors
    /// [`Busy`] when packets must be taken first.
    pub fn handle_alloc(
        &mut self,
        domain: u16,
        now_micros: u64,
        alloc: &Allocation<'_>,
    ) -> Result<u64, Busy> {
        self.event(domain, |domain, trace| domain.put_alloc(trace, now_micros, alloc))
    }

    /// `domain` moved the allocation `id` to the old.
    ///
    /// # Errors
    /// [`Busy`] when packets must be taken first.
    pub fn handle_promote(&mut self, domain: u16, now_micros: u64, id: u64) -> Result<(), Busy> {
        self.event(domain, |domain, trace| domain.put_reference(trace, now_micros, event::PROMOTE, id))
    }

    /// `domain` freed the allocation `id`, perhaps another's.
    ///
    /// # Errors
    /// [`Busy`] when packets must be taken first.
    pub fn handle_collect(&mut self, domain: u16, now_micros: u64, id: u64) -> Result<(), Busy> {
        self.event(domain, |domain, trace| domain.put_reference(trace, now_micros, event::COLLECT, id))
    }

    /// Completes the last packet.
    ///
    /// # Errors
    /// [`Busy`] when packets must be taken first.
    pub fn close(&mut self) -> Result<(), Busy> {
        self.domain().complete()
    }

    /// As [`Writer::poll_packet`](super::Writer::poll_packet).
    pub fn poll_packet(&mut self, symbols: &impl Locate) -> Option<&[u8]> {
        let trace = self.trace;
        self.domain().poll_packet(&trace, symbols)
    }

    /// As [`Writer::handle_sent`](super::Writer::handle_sent).
    pub fn handle_sent(&mut self, bytes: usize) {
        if let Some(domain) = self.domains.get_mut(&self.current) {
            domain.handle_sent(&mut self.trace, bytes);
        }
    }

    fn event<T>(
        &mut self,
        domain: u16,
        put: impl FnOnce(&mut Domain<Vec<u64>>, &mut Trace) -> Result<T, Busy>,
    ) -> Result<T, Busy> {
        if domain != self.current {
            if !self.left {
                self.domain().complete()?;
                self.left = true;
            }
            if self.domain().is_waiting() {
                return Err(Busy);
            }
            self.current = domain;
        }
        self.left = false;
        self.domain();
        let domain = self.domains.get_mut(&self.current).ok_or(Busy)?;
        put(domain, &mut self.trace)
    }

    /// The domain whose turn it is, made if it is new.
    fn domain(&mut self) -> &mut Domain<Vec<u64>> {
        let (trace, id, depth) = (&mut self.trace, self.current, self.depth);
        self.domains.entry(id).or_insert_with(|| {
            let mut domain = Box::new(Domain::new(vec![0; depth]));
            domain.start(trace, id);
            domain
        })
    }
}
