//! A VM for one case.

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use uni_vmm::accel::Accel;
use uni_vmm::exit::ExitReport;
use uni_vmm::id::{Link, VmId};
use uni_vmm::links::{Counts, Direction};
use uni_vmm::paths::Paths;
use uni_vmm::shim::{self, Launch, RunInfo};
use uni_vmm::spec::Spec;
use uni_vmm::{image, qemu};

/// Generous: the machine may be busy with other tests.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A VM of a test: its directory goes, and its QEMU is killed, when it is dropped.
pub(super) struct Vm {
    pub(super) state: tempfile::TempDir,
    pub(super) spec: Spec,
    pub(super) paths: Paths,
    pub(super) launch: Launch,
    pub(super) shim: Option<Child>,
}

impl Vm {
    pub(super) fn new(qemu: &Path, image: &[u8], name: &str) -> Self {
        // A comma and a blank in the path: they must survive QEMU's option syntax.
        let state = tempfile::Builder::new().prefix("uni, ").tempdir().unwrap();
        let file = state.path().join("image, 1");
        std::fs::write(&file, image).unwrap();
        let id = VmId::from_random([1, 2, 3, 4, 5, 6]);
        let paths = Paths::new(state.path(), id).unwrap();
        let spec = Spec { memory_mib: 16, ..Spec::new(name.parse().unwrap(), file.clone()) };
        let launch = Self::launch(qemu, &spec, &paths);
        Self { state, spec, paths, launch, shim: None }
    }

    pub(super) fn launch(qemu: &Path, spec: &Spec, paths: &Paths) -> Launch {
        let image = image::detect(&spec.image).unwrap();
        let argv = qemu::compose(spec, &[], &image, paths, Accel::Tcg, &qemu::ShimFds::INHERITED).unwrap();
        Launch::new(paths.id(), 1, qemu.to_owned(), argv).unwrap()
    }

    pub(super) fn dir(&self) -> &Path {
        self.paths.dir()
    }

    pub(super) fn start(&mut self) {
        self.launch.write(self.dir()).unwrap();
        self.shim =
            Some(shim::spawn(&std::env::current_exe().unwrap(), self.paths.id(), self.dir()).unwrap());
    }

    pub(super) fn running(&mut self) -> RunInfo {
        self.start();
        let id = self.paths.id();
        until("run.json", || shim::find(self.paths.dir(), id)).unwrap_or_else(|| self.fail("never ran"))
    }

    pub(super) fn end(&mut self) -> ExitReport {
        let report = until("exit.json", || shim::read_exit(self.paths.dir()).unwrap());
        let report = report.unwrap_or_else(|| self.fail("never ended"));
        assert!(self.shim.take().unwrap().wait().unwrap().code().is_some(), "{}", self.messages());
        report
    }

    pub(super) fn messages(&self) -> String {
        shim::messages(self.dir(), 4096)
    }

    pub(super) fn fail(&self, what: &str) -> ! {
        panic!("the VM {what}: {}", self.messages())
    }

    pub(super) fn counts(&self, link: Link, direction: Direction) -> Counts {
        shim::read_links(self.dir()).unwrap().of(link, direction)
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if let Some(shim) = &mut self.shim {
            // Its QEMU dies with it.
            let _ = shim.kill();
            let _ = shim.wait();
        }
    }
}

pub(super) fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = attempt() {
            return Some(found);
        }
        if Instant::now() > deadline {
            eprintln!("waited {} s for {what}", PATIENCE.as_secs());
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
