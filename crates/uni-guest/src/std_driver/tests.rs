//! The driver with real peers on loopback.

use super::*;
use crate::args::{Arguments, SyslogTransport};
use crate::metrics::Periodic;
use crate::sources::HeapStats;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::string::{String, ToString as _};
use uni_wire::syslog::Deframer;

/// How long a peer waits for what must come; only a broken driver makes a test take so long.
const PATIENCE: Duration = Duration::from_secs(20);

fn v4(address: io::Result<SocketAddr>) -> SocketAddrV4 {
    match address {
        Ok(SocketAddr::V4(address)) => address,
        other => panic!("no IPv4 address: {other:?}"),
    }
}

fn listener() -> (TcpListener, SocketAddrV4) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = v4(listener.local_addr());
    (listener, address)
}

fn free_port() -> u16 {
    listener().1.port()
}

/// Without ports, sinks or collector, and silent.
fn quiet() -> Config {
    let mut config = Config::new(Arguments::default());
    config.arguments.name = "web".into();
    config.arguments.control_port = None;
    config.arguments.metrics_port = None;
    config.console = false;
    config
}

fn reporting_to(monitor: SocketAddrV4) -> Config {
    let mut config = quiet();
    config.arguments.monitor = Some(monitor);
    config
}

fn accept(listener: &TcpListener) -> BufReader<TcpStream> {
    let (stream, _) = listener.accept().expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    BufReader::new(stream)
}

fn line(from: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    from.read_line(&mut line).expect("a line");
    line
}

fn until_line(from: &mut BufReader<TcpStream>, start: &str) -> String {
    loop {
        let line = line(from);
        assert!(!line.is_empty(), "the end came before {start}");
        if line.starts_with(start) {
            return line;
        }
    }
}

fn ask(port: SocketAddr, command: &str, half_close: bool) -> String {
    let mut stream = TcpStream::connect(port).expect("an open port");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.write_all(command.as_bytes()).expect("room");
    if half_close {
        stream.shutdown(Shutdown::Write).expect("an open connection");
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    answer
}

#[test]
fn the_collector_hears_at_once_and_once_more_at_the_end() {
    let (collector, address) = listener();
    let handle = Reporting::start(reporting_to(address).sources(|registry| {
        let mut n = 0;
        registry.register(Periodic::new("turns", move |fields| {
            n += 1;
            fields.count("n", n);
        }));
    }))
    .expect("a start");
    let mut stream = accept(&collector);
    assert!(until_line(&mut stream, "resource_usage,vm=web ").contains("utime="));
    let first = until_line(&mut stream, "turns,vm=web n=1i ");
    let counts = handle.stop();
    let second = until_line(&mut stream, "turns,vm=web n=2i ");
    assert!(first < second, "each has its own time");
    assert_eq!((counts.agent.queued_bytes, counts.agent.dropped_points), (0, 0));
    assert!(counts.agent.sent_bytes > 0);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("closed in good order");
}

#[test]
fn an_allocator_that_counts_is_believed_and_else_the_kernel() {
    let heap = |config: Config| {
        let (collector, address) = listener();
        let handle = Reporting::start(Config { arguments: reporting_to(address).arguments, ..config })
            .expect("a start");
        let line = until_line(&mut accept(&collector), "heap,vm=web ");
        handle.stop();
        line
    };
    let stats = HeapStats { total_bytes: 800, live_bytes: 80, peak_bytes: 160 };
    let counted = heap(quiet().heap(move || stats));
    let expected =
        "heap,vm=web heap_bytes=800i,heap_live_bytes=80i,heap_free_bytes=720i,heap_peak_bytes=160i ";
    assert!(counted.starts_with(expected), "{counted}");
    let known = heap(quiet());
    let bytes =
        known.strip_prefix("heap,vm=web heap_bytes=").and_then(|rest| rest.split_once("i ")?.0.parse().ok());
    assert!(bytes.is_some_and(|bytes: u64| bytes > 50_000), "{known}");
}

#[test]
fn points_wait_for_a_collector_that_is_away() {
    let (collector, address) = listener();
    drop(collector);
    let mut config = reporting_to(address);
    config.arguments.interval_seconds = 1;
    let handle = Reporting::start(config).expect("a collector that is away is no error");
    // A second report means that the first waits.
    let start = std::time::Instant::now();
    let mut reports = 0;
    let mut queued = 0;
    while reports < 2 && start.elapsed() < PATIENCE {
        let now = handle.counts().agent.queued_bytes;
        reports += usize::from(now > queued);
        queued = now;
        thread::yield_now();
    }
    let collector = TcpListener::bind(address).expect("the port again");
    let mut stream = accept(&collector);
    let first = until_line(&mut stream, "resource_usage,vm=web ");
    let second = until_line(&mut stream, "resource_usage,vm=web ");
    let time = |line: &str| {
        line.trim_end().rsplit(' ').next().and_then(|ns| ns.parse::<i64>().ok()).expect("a time")
    };
    let apart_ns = time(&second) - time(&first);
    assert!((500_000_000..5_000_000_000).contains(&apart_ns), "made a second apart: {apart_ns} ns");
    handle.stop();
}

#[test]
fn a_control_port_answers_in_both_forms_and_what_it_says_takes_effect() {
    let mut config = quiet();
    config.arguments.control_port = Some(free_port());
    let mut handle = Reporting::start(config).expect("a start");
    let port = handle.control_address().expect("a control port");
    let recorder = handle.take_recorder().expect("the recorder");
    metrics::with_local_recorder(&recorder, || metrics::counter!("sold").increment(1));
    assert_eq!(ask(port, "Msrc:sold:disable", true), "ok");
    assert_eq!(ask(port, "msold\r\nM*:enable\r\nmsold\n", true), "ok: sold:disabled\nok\nok: sold:enabled\n");
    assert_eq!(ask(port, "Msold:disable\nmsold\n", true), "ok\nok: sold:disabled\n");
    assert_eq!(ask(port, "Mnone:disable", false), "error: unknown source: none");
    assert!(ask(port, "L*:debug\nl*\n", true).starts_with("ok\nok: *:debug"), "levels");
    handle.stop();
}

#[test]
fn a_port_that_is_taken_or_open_to_everybody_is_an_error_that_says_what_to_do() {
    let (_taken, address) = listener();
    let mut config = quiet();
    config.arguments.control_port = Some(address.port());
    let error = Reporting::start(config).expect_err("taken").to_string();
    assert!(error.contains("--monitor-adjust"), "{error}");
    let mut config = quiet();
    config.arguments.control_port = Some(free_port());
    config.control_ip = Ipv4Addr::UNSPECIFIED.into();
    let error = Reporting::start(config).expect_err("open").to_string();
    assert!(error.contains("--monitor-token"), "{error}");
}

#[test]
fn prometheus_is_answered() {
    let mut config = quiet();
    config.arguments.metrics_port = Some(free_port());
    let handle = Reporting::start(config).expect("a start");
    let page =
        ask(handle.metrics_address().expect("a port"), "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", false);
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    assert!(page.contains("resource_usage_rss{vm=\"web\"}"), "{page}");
}

fn say(handle: &Handle, text: &str) {
    log::Log::log(
        &handle.messages(),
        &log::Record::builder().target("shop").level(log::Level::Warn).args(format_args!("{text}")).build(),
    );
}

#[test]
fn messages_leave_as_datagrams_at_once() {
    let sink = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    sink.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut config = quiet();
    config.arguments.syslog = Some(v4(sink.local_addr()));
    let handle = Reporting::start(config).expect("a start");
    say(&handle, "careful");
    let mut bytes = [0; 1024];
    let length = sink.recv(&mut bytes).expect("a message");
    let message = String::from_utf8_lossy(bytes.get(..length).expect("its length"));
    assert!(message.starts_with("<28>") && message.ends_with(" web shop: careful"), "{message}");
    assert_eq!(handle.stop().sent_messages, 1);
}

#[test]
fn a_sink_that_refuses_gets_its_messages_when_it_is_back() {
    let sink = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = v4(sink.local_addr());
    drop(sink);
    let mut config = quiet();
    config.arguments.syslog = Some(address);
    let handle = Reporting::start(config).expect("a start");
    say(&handle, "early");
    let start = std::time::Instant::now();
    while handle.counts().sent_messages == 0 && start.elapsed() < Duration::from_millis(200) {
        thread::yield_now();
    }
    assert_eq!(handle.counts().sent_messages, 0, "refused");
    let sink = UdpSocket::bind(address).expect("the port again");
    sink.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut bytes = [0; 1024];
    let length = sink.recv(&mut bytes).expect("a message");
    assert!(bytes.get(..length).is_some_and(|message| message.ends_with(b"shop: early")));
}

#[test]
fn messages_cross_a_broken_stream_in_both_framings() {
    for transport in [SyslogTransport::Tcp, SyslogTransport::TcpNewline] {
        let (sink, address) = listener();
        let mut config = quiet();
        config.arguments.syslog = Some(address);
        config.arguments.syslog_transport = transport;
        let handle = Reporting::start(config).expect("a start");
        // Taken and closed at once: what was sent was read by nobody.
        drop(accept(&sink));
        say(&handle, "one");
        let mut stream = accept(&sink);
        say(&handle, "two");
        let mut deframer = Deframer::new(1024);
        let mut messages = Vec::new();
        while !messages.iter().any(|message: &String| message.ends_with("shop: two")) {
            let mut bytes = [0; 256];
            let length = stream.read(&mut bytes).expect("bytes");
            assert!(length > 0, "{messages:?}");
            deframer.feed(bytes.get(..length).expect("its length"), |message| {
                messages.push(String::from_utf8_lossy(message).into_owned());
            });
        }
        assert!(messages.iter().any(|message| message.ends_with("shop: one")), "{transport:?}: {messages:?}");
        handle.stop();
    }
}

#[test]
fn silent_strangers_lock_nobody_out_and_who_speaks_stays() {
    for token in [None, crate::Token::new("sesame")] {
        let mut config = quiet();
        config.arguments.control_port = Some(0);
        config.arguments.control_token.clone_from(&token);
        let reporting = Reporting::start(config).expect("a port");
        let port = reporting.control_address().expect("a port");
        let greeting = if token.is_some() { "T sesame\n" } else { "" };
        let mut known = TcpStream::connect(port).expect("a connection");
        known.set_read_timeout(Some(PATIENCE)).expect("a socket");
        known.write_all(format!("{greeting}ldriver\n").as_bytes()).expect("a connection");
        let mut known = BufReader::new(known);
        let mut answer = until_line(&mut known, "");
        if token.is_some() {
            answer = line(&mut known);
        }
        assert!(answer.starts_with("error: unknown source"), "{answer}");
        // More of them than there are places, none of which says a word.
        let strangers: Vec<_> = (0..12).map(|_| TcpStream::connect(port).expect("a connection")).collect();
        let before = std::time::Instant::now();
        known.get_mut().write_all(b"l\n").expect("a connection");
        assert!(line(&mut known).starts_with("ok: *:"));
        assert!(ask(port, &format!("{greeting}l"), false).contains("ok: *:"));
        assert!(
            before.elapsed() < Duration::from_secs(9),
            "they kept their places for {:?}",
            before.elapsed()
        );
        drop(strangers);
        reporting.stop();
    }
}
