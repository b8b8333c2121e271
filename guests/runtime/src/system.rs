//! The loop of a guest: poll the links, let the program and the monitoring take their turns, sleep until the
//! next deadline or interrupt. Everything that waits gives a deadline; nothing blocks.

use crate::monitoring::Monitoring;
use crate::network::{Address, Network};
use crate::nic::Nic;
use crate::random::random_seed;
use crate::reporter::MAX_DATAGRAM_BYTES;
use crate::serial::Port;
use crate::wall::WallClock;
use crate::{clock, config, console, devices, fw_cfg, heap, interrupts, power, roles, rtc};
use alloc::string::String;
use alloc::vec::Vec;
use uni_guest::source;
use uni_guest::sources::{self, ClockSteps};
use uni_guest::syslog::{DEFAULT_QUEUE_MESSAGES, Timestamp};
use uni_guest::{Arguments, Log, Logs, OptionSpec, Registry, SyslogQueue};

static CLOCK_STEPS: ClockSteps = ClockSteps::new();

source! {
    static CLOCK: Source = sources::clock(&CLOCK_STEPS.fields());
}

/// Where the host may leave the time at which it started the machine, in nanoseconds since 1970:
/// `-fw_cfg name=opt/uni/start-ns,string=...`.
const START_TIME_FILE: &str = "opt/uni/start-ns";
/// How long open connections have to close after the power button.
const CLOSING_NS: u64 = 200_000_000;

/// A guest's own program.
pub trait App {
    /// Takes a turn: looks at its sockets and does what is due, without waiting. Called whenever something may
    /// have changed. Returns when it wants its next turn at the latest, in monotonic nanoseconds; `None` means
    /// when something arrives.
    fn turn(&mut self, system: &mut System) -> Option<u64>;

    /// The power button was pressed: closes what should be closed. Connections then have 200 ms.
    fn stop(&mut self, system: &mut System);
}

/// What a program finds around it.
#[derive(Debug)]
pub struct System {
    /// The name of the virtual machine.
    pub name: String,
    /// The log sources, to add one's own.
    pub logs: Logs,
    /// The link that carries the guest's own service, if there is one.
    pub service: Option<Network>,
    /// The link that carries its monitoring, if that is not the same.
    pub management: Option<Network>,
    arguments: Arguments,
    queue: SyslogQueue,
    monitoring: Option<Monitoring>,
    wall: Option<WallClock>,
    log: Log,
    now_ns: u64,
}

impl System {
    /// Monotonic time of this turn in nanoseconds.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// The value of one of the program's own options (see [`entry!`](crate::entry)), if it was given.
    #[must_use]
    pub fn option(&self, name: &str) -> Option<&str> {
        self.arguments.extra(name)
    }

    /// Reports on this guest from now on, where and as often as the command line says, and answers on the control
    /// port. Returns the metric sources, to add one's own. A program that never calls it is not monitored.
    pub fn monitor(&mut self) -> &mut Registry {
        let (arguments, logs, log, queue) = (&self.arguments, &self.logs, &self.log, &self.queue);
        let (service, management) = (self.service.as_mut(), self.management.as_mut());
        let start = || Monitoring::start(arguments, logs, log, queue, service, management);
        self.monitoring.get_or_insert_with(start).registry()
    }

    fn start(default_name: &str, options: &[OptionSpec]) -> Self {
        let (arguments, slots) = config::read(default_name, options);
        let is_profiled = !arguments.heap_profile || heap::start_profile(random_seed());
        let start_ns = fw_cfg::read_number(START_TIME_FILE);
        let wall = rtc::read().map(|reading| WallClock::new(reading, start_ns));
        clock::set_wall_offset_ns(wall.as_ref().map_or_else(|| start_ns.unwrap_or(0), WallClock::offset_ns));
        let queue = SyslogQueue::new(&arguments.name, DEFAULT_QUEUE_MESSAGES);
        let logs = start_logs(&arguments, &queue);
        let log = logs.source("runtime", "links, clock and power of the guest");
        if !is_profiled {
            log.warning(format_args!("no memory for the heap's profile: give the guest more"));
        }
        if wall.is_none() && start_ns.is_none() {
            log.warning(format_args!("no real-time clock: points carry the time since boot"));
        }
        power::listen_for_button();
        let (service, management) = start_links(devices::find_nics(slots), &arguments, &log);
        Self {
            service,
            management,
            monitoring: None,
            wall,
            log,
            logs,
            queue,
            now_ns: clock::monotonic_ns(),
            name: arguments.name.clone(),
            arguments,
        }
    }

    fn links(&mut self) -> impl Iterator<Item = &mut Network> {
        self.service.iter_mut().chain(self.management.iter_mut())
    }

    /// True if a socket may have changed.
    fn poll_links(&mut self) -> bool {
        // Cards may share an interrupt line, and a line that is never let go makes no further edge.
        while self.links().fold(false, |raised, link| link.acknowledge() | raised) {}
        let now_ns = clock::monotonic_ns();
        self.now_ns = now_ns;
        self.links().fold(false, |changed, link| link.poll(now_ns) | changed)
    }

    fn links_deadline_ns(&mut self) -> Option<u64> {
        let now_ns = clock::monotonic_ns();
        self.links().filter_map(|link| link.deadline_ns(now_ns)).min()
    }

    /// The monitoring's turn; returns when the next is due.
    fn report(&mut self) -> Option<u64> {
        let link = self.management.as_mut().or(self.service.as_mut())?;
        self.monitoring.as_mut()?.turn(link, self.now_ns)
    }

    fn stop_reporting(&mut self) {
        if let Some(link) = self.management.as_mut().or(self.service.as_mut())
            && let Some(monitoring) = &mut self.monitoring
        {
            monitoring.close(link);
        }
    }

    /// Reads the real-time clock where that is due; returns when it is due again.
    fn keep_time(&mut self) -> Option<u64> {
        let wall = self.wall.as_mut()?;
        if wall.next_reading_ns() <= self.now_ns
            && let Some(reading) = rtc::read()
        {
            let stepped = wall.observe(reading);
            clock::set_wall_offset_ns(wall.offset_ns());
            if let Some(off_ns) = stepped {
                CLOCK_STEPS.count(off_ns);
                self.log.warning(format_args!("wall clock was off by {} ms: stepped", off_ns / 1_000_000));
            }
        }
        Some(wall.next_reading_ns())
    }
}

/// Log lines go to the console, and to the syslog sink if there is one.
fn start_logs(arguments: &Arguments, queue: &SyslogQueue) -> Logs {
    let logs = Logs::default();
    let unix_seconds = || i64::try_from(clock::wall_ns() / 1_000_000_000).unwrap_or(i64::MAX);
    logs.add_sink(move |record| {
        // Writing to the console cannot fail.
        let _ = record.write_console(&mut Port, unix_seconds());
    });
    if arguments.syslog.is_some() {
        queue.set_format(arguments.syslog_format);
        queue.set_truncation(arguments.syslog_truncation(MAX_DATAGRAM_BYTES));
        logs.add_sink(queue.sink(|| Timestamp(i64::try_from(clock::wall_ns()).unwrap_or(i64::MAX))));
    }
    arguments.apply_logs(&logs);
    logs
}

fn start_links(nics: Vec<Nic>, arguments: &Arguments, log: &Log) -> (Option<Network>, Option<Network>) {
    let mut nics: Vec<_> = nics.into_iter().map(Some).collect();
    let addresses: Vec<_> = nics.iter().flatten().map(Nic::mac_address).collect();
    let roles = roles::assign_roles(&addresses);
    let mut take = |position: Option<usize>| nics.get_mut(position?)?.take();
    let service =
        take(roles.service).map(|nic| start_link(nic, "service", config::service_address(arguments), log));
    let management = match (take(roles.management), config::management_address(arguments)) {
        (Some(nic), Some(address)) => Some(start_link(nic, "management", address, log)),
        (Some(_), None) => {
            log.warning(format_args!("management link left unused: --management-ipv4 is not given"));
            None
        }
        (None, Some(_)) => {
            log.warning(format_args!("--management-ipv4 is given, but there is no management link"));
            None
        }
        (None, None) => None,
    };
    (service, management)
}

fn start_link(nic: Nic, name: &str, address: Address, log: &Log) -> Network {
    log.info(format_args!("{name} link is up: {}", address.cidr));
    Network::new(nic, address, clock::monotonic_ns())
}

/// Runs a guest for ever. Called by the code that [`entry!`](crate::entry) makes.
pub fn run<A: App>(default_name: &str, options: &[OptionSpec], start: fn(&mut System) -> A) -> ! {
    console!("{default_name}: booted by PVH, time stamp counter {} kHz", clock::time_stamp_khz());
    let mut system = System::start(default_name, options);
    let mut app = start(&mut system);
    system.links().for_each(Network::announce);
    // The button may have been pressed before its interrupt was routed.
    let mut woken = interrupts::WOKEN_BY_POWER;
    loop {
        if woken & interrupts::WOKEN_BY_POWER != 0 && power::button_pressed() {
            shut_down(&mut system, &mut app);
        }
        woken = turn(&mut system, &mut app);
    }
}

/// One round; returns what ended the sleep, 0 if there was none.
fn turn<A: App>(system: &mut System, app: &mut A) -> u32 {
    system.poll_links();
    let deadlines = [app.turn(system), system.report(), system.keep_time()];
    if system.poll_links() {
        return 0;
    }
    let deadline_ns = deadlines.into_iter().flatten().chain(system.links_deadline_ns()).min();
    if deadline_ns.is_some_and(|at| at <= clock::monotonic_ns()) {
        return 0;
    }
    clock::sleep_until(deadline_ns)
}

/// Lets connections finish, then powers off.
fn shut_down<A: App>(system: &mut System, app: &mut A) -> ! {
    system.log.info(format_args!("power button: stopping"));
    app.stop(system);
    // Syslog messages leave one by one.
    for _ in 0..DEFAULT_QUEUE_MESSAGES {
        system.report();
        if !system.poll_links() {
            break;
        }
    }
    system.stop_reporting();
    let end_ns = clock::monotonic_ns() + CLOSING_NS;
    system.poll_links();
    while clock::monotonic_ns() < end_ns && system.links().any(|link| link.has_connections()) {
        let links_ns = system.links_deadline_ns();
        clock::sleep_until(Some(links_ns.map_or(end_ns, |at| at.min(end_ns))));
        system.poll_links();
    }
    console!("{}: stopped", system.name);
    power::power_off()
}

/// Makes a type the program of this image: `entry!("hello", Hello::new)`. The name is used where the command
/// line gives none; the function is called once, after the links are up. A third argument lists the program's own
/// options: `entry!("leaky", Leaky::new, [LEAK_RATE])`, each a [`uni_guest::OptionSpec`].
#[macro_export]
macro_rules! entry {
    ($name:expr, $start:expr) => {
        $crate::entry!($name, $start, []);
    };
    ($name:expr, $start:expr, $options:expr) => {
        /// Called by the runtime once memory and clock are ready.
        #[unsafe(no_mangle)]
        extern "C" fn guest_main() -> ! {
            $crate::run($name, &$options, $start)
        }

        #[panic_handler]
        fn panic(info: &::core::panic::PanicInfo<'_>) -> ! {
            $crate::report_panic(info)
        }
    };
}
