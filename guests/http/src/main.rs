//! A web server that shows what a guest looks like from inside: pages that answer, fail, take their time and
//! take memory, and an echo service for counting bytes. It serves the service link only.

#![no_std]
#![no_main]

extern crate alloc;

mod echo;
mod pages;

use alloc::vec::Vec;
use echo::Echo;
use guest_runtime::{App, Buffers, Exchange, Input, Progress, System, entry};
use http::request::{self, Method, Parsed};
use http::response::Response;
use pages::{Pages, Verdict};
use uni_guest::sources::{HttpResponses, http_response};
use uni_guest::{Log, source};

const HTTP_PORT: u16 = 80;
/// One socket waits for one connection: so many can arrive at once.
const CONNECTIONS: usize = 32;
const BUFFERS: Buffers = Buffers { receive_bytes: 2048, transmit_bytes: 8192 };
/// From the start of a connection to the end of its request head.
const REQUEST_NS: u64 = 10_000_000_000;

static RESPONSES: HttpResponses = HttpResponses::new();

source! {
    /// What is answered.
    static HTTP: Source = http_response(&RESPONSES.fields());
}

entry!("http", Web::new);

/// The server.
struct Web {
    /// Each with the part of the request head that has come.
    connections: Vec<Exchange<Vec<u8>>>,
    echo: Option<Echo>,
    desk: Desk,
}

/// Answers requests.
struct Desk {
    pages: Pages,
    log: Log,
}

impl Web {
    fn new(system: &mut System) -> Self {
        let log = system.logs.source("http", "the web server");
        system.monitor();
        let desk = Desk { pages: Pages::default(), log };
        let mut web = Self { connections: Vec::new(), echo: None, desk };
        let Some(service) = &mut system.service else {
            web.desk.log.warning(format_args!("no service link: nothing is served"));
            return web;
        };
        let sockets = service.sockets();
        web.connections = (0..CONNECTIONS).map(|_| Exchange::new(sockets, HTTP_PORT, BUFFERS)).collect();
        web.echo = Some(Echo::new(sockets));
        web.desk
            .log
            .info(format_args!("serving HTTP on TCP port {HTTP_PORT}, echo on UDP port {}", echo::PORT));
        web
    }
}

impl App for Web {
    fn turn(&mut self, system: &mut System) -> Option<u64> {
        let now_ns = system.now_ns();
        let sockets = system.service.as_mut()?.sockets();
        if let Some(echo) = &self.echo {
            echo.turn(sockets);
        }
        let desk = &mut self.desk;
        let mut converse = |received: &mut Vec<u8>, input: Input<'_>, started_ns: u64| {
            desk.converse(received, input, started_ns, now_ns)
        };
        self.connections.iter_mut().filter_map(|place| place.turn(sockets, now_ns, &mut converse)).min()
    }

    fn stop(&mut self, system: &mut System) {
        let Some(service) = &mut system.service else { return };
        for place in &mut self.connections {
            place.close(service.sockets());
        }
    }
}

impl Desk {
    fn converse(
        &mut self,
        received: &mut Vec<u8>,
        input: Input<'_>,
        started_ns: u64,
        now_ns: u64,
    ) -> Progress {
        match input {
            Input::Bytes(bytes) => {
                let room = (request::MAX_HEAD_BYTES + 1).saturating_sub(received.len());
                received.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            Input::End => return Progress::Close,
            Input::Silence if received.is_empty() => return Progress::Close,
            Input::Silence => return self.refuse(408, now_ns),
        }
        match request::parse(received) {
            Parsed::Incomplete => Progress::More { until_ns: started_ns + REQUEST_NS },
            Parsed::Malformed => self.refuse(400, now_ns),
            Parsed::TooLarge => self.refuse(431, now_ns),
            Parsed::Complete(request) => {
                let verdict = self.pages.serve(request, now_ns);
                self.answer(&verdict, request.method != Method::Head)
            }
        }
    }

    fn refuse(&self, status: u16, now_ns: u64) -> Progress {
        self.answer(&Verdict { response: Response::bare(status), at_ns: now_ns }, true)
    }

    fn answer(&self, verdict: &Verdict, with_body: bool) -> Progress {
        let status = verdict.response.status;
        RESPONSES.count(status);
        if status >= 500 {
            self.log.error(format_args!("answered {status}"));
        }
        Progress::Answer { bytes: verdict.response.to_bytes(with_body), at_ns: verdict.at_ns }
    }
}
