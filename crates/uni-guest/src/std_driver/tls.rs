//! Syslog over TLS (RFC 5425), as a client.
//!
//! Owns what a sink has to prove, and the session on top of a connection: TLS 1.2 or 1.3. Bytes are counted as the
//! caller counts them, so that what the peer acknowledges of the encrypted stream is known of the messages. Never
//! accepts a sink that proves nothing.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, SocketAddrV4};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::AsFd as _;

use rustix::event::{PollFd, PollFlags};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::connection::{Connection, closed, would_block};
use super::flow::Flow;

/// What a sink has to prove, and what this program proves to it.
#[derive(Clone)]
pub struct SinkTls {
    config: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
}

impl fmt::Debug for SinkTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SinkTls").field("name", &self.name).finish_non_exhaustive()
    }
}

impl SinkTls {
    /// The sink's certificate must be signed by one of `authorities` (PEM), and made out for its address.
    ///
    /// # Errors
    /// No certificate among `authorities`, or one that cannot be read.
    pub fn new(authorities: &[u8]) -> io::Result<Self> {
        Ok(Self { config: Arc::new(client(authorities, None)?), name: None })
    }

    /// As [`new`](Self::new); and the sink is shown the certificates `chain` (PEM, one's own first), whose private key
    /// (PEM) is `key`.
    ///
    /// # Errors
    /// As for `new`; a chain or key that cannot be read, or that do not belong together.
    pub fn with_certificate(authorities: &[u8], chain: &[u8], key: &[u8]) -> io::Result<Self> {
        Ok(Self { config: Arc::new(client(authorities, Some((chain, key)))?), name: None })
    }

    /// The certificate must be made out for `name` instead of the sink's address.
    ///
    /// # Errors
    /// It is neither a name nor an address.
    pub fn named(mut self, name: &str) -> io::Result<Self> {
        let name = ServerName::try_from(name.to_string());
        self.name = Some(name.map_err(|error| invalid(format!("--syslog-tls-name: {error}")))?);
        Ok(self)
    }

    /// Begins to open a connection.
    pub(super) fn open(&self, to: SocketAddrV4) -> io::Result<Box<dyn Flow>> {
        let name = self.name.clone().unwrap_or_else(|| ServerName::from(IpAddr::V4(*to.ip())));
        let session = ClientConnection::new(Arc::clone(&self.config), name).map_err(io::Error::other)?;
        Ok(Box::new(Secured {
            tcp: Connection::start(to)?,
            session: Box::new(session),
            encrypted: Vec::new(),
            sent_bytes: 0,
            pieces: VecDeque::new(),
        }))
    }
}

fn client(authorities: &[u8], own: Option<(&[u8], &[u8])>) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("--syslog-ca", authorities)? {
        roots.add(certificate).map_err(|error| invalid(format!("--syslog-ca: {error}")))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots);
    let Some((chain, key)) = own else { return Ok(builder.with_no_client_auth()) };
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| invalid(format!("--syslog-key: no private key in PEM: {error}")))?;
    builder
        .with_client_auth_cert(certificates("--syslog-cert", chain)?, key)
        .map_err(|error| invalid(format!("--syslog-cert with --syslog-key: {error}")))
}

/// All certificates of a PEM text; there is one at least.
fn certificates(option: &str, pem: &[u8]) -> io::Result<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if all.is_empty() => Err(invalid(format!("{option}: there is no certificate in PEM in it"))),
        Ok(all) => Ok(all),
        Err(error) => Err(invalid(format!("{option}: no certificate in PEM: {error}"))),
    }
}

/// The usual way to a certificate of one's own makes an authority of it, which proves nobody (RFC 5280).
fn explain(error: &rustls::Error) -> String {
    let text = error.to_string();
    if !text.contains("CaUsedAsEndEntity") {
        return text;
    }
    "its certificate is an authority's; sign another with it, or make it with basicConstraints CA:FALSE"
        .to_string()
}

fn invalid(text: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, text)
}

/// A TLS session over TCP.
#[derive(Debug)]
struct Secured {
    tcp: Connection,
    session: Box<ClientConnection>,
    /// What the session made and the socket did not take yet.
    encrypted: Vec<u8>,
    /// How many encrypted bytes the socket took.
    sent_bytes: u64,
    /// For each piece the caller handed over: its bytes, and how many encrypted ones there were after it. Those
    /// acknowledged are let go of in time.
    pieces: VecDeque<(usize, u64)>,
}

impl Secured {
    /// Reads what the peer says in the session's own affairs; what it says beyond is dropped.
    fn hear(&mut self) -> io::Result<()> {
        loop {
            match self.session.read_tls(&mut self.tcp.stream()) {
                Ok(0) => return Err(closed()),
                Ok(_) => {}
                Err(error) => return would_block(error).map(drop),
            }
            let state = match self.session.process_new_packets() {
                Ok(state) => state,
                Err(error) => {
                    // The peer is told why, if it still listens.
                    let _ = self.push();
                    return Err(invalid(explain(&error)));
                }
            };
            let mut bytes = [0; 512];
            while state.plaintext_bytes_to_read() > 0
                && self.session.reader().read(&mut bytes).is_ok_and(|n| n > 0)
            {}
            if state.peer_has_closed() {
                return Err(closed());
            }
        }
    }

    /// Gives the socket what it takes.
    fn push(&mut self) -> io::Result<()> {
        self.encrypt()?;
        while !self.encrypted.is_empty() {
            match self.tcp.send(&self.encrypted)? {
                0 => break,
                sent => {
                    self.encrypted.drain(..sent);
                    self.sent_bytes += sent as u64;
                }
            }
        }
        Ok(())
    }

    fn encrypt(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut self.encrypted)?;
        }
        Ok(())
    }

    /// How many of the encrypted bytes the peer has acknowledged.
    fn acknowledged_bytes(&self) -> u64 {
        self.sent_bytes.saturating_sub(self.tcp.unacknowledged() as u64)
    }
}

impl Flow for Secured {
    fn is_open(&self) -> bool {
        self.tcp.is_open() && !self.session.is_handshaking()
    }

    fn follow(&mut self) -> io::Result<bool> {
        let was_open = self.is_open();
        if self.tcp.come_up()? {
            self.push()?;
            self.hear()?;
            self.push()?;
        }
        Ok(self.is_open() && !was_open)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push()?;
        if !self.is_open() || !self.encrypted.is_empty() {
            return Ok(0);
        }
        let acknowledged_bytes = self.acknowledged_bytes();
        self.pieces.retain(|(_, end)| *end > acknowledged_bytes);
        let taken = self.session.writer().write(bytes)?;
        self.encrypt()?;
        self.pieces.push_back((taken, self.sent_bytes + self.encrypted.len() as u64));
        self.push()?;
        Ok(taken)
    }

    fn unacknowledged(&self) -> usize {
        let acknowledged_bytes = self.acknowledged_bytes();
        self.pieces.iter().filter(|(_, end)| *end > acknowledged_bytes).map(|(bytes, _)| bytes).sum()
    }

    fn interest(&self, has_more: bool) -> PollFd<'_> {
        let wants_out =
            !self.tcp.is_open() || !self.encrypted.is_empty() || (has_more && !self.session.is_handshaking());
        let flags = if wants_out { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        PollFd::from_borrowed_fd(self.tcp.stream().as_fd(), flags)
    }
}

/// The peer is told that this is the end, and not a cut.
impl Drop for Secured {
    fn drop(&mut self) {
        if self.is_open() {
            self.session.send_close_notify();
            // Who has gone needs not be told.
            let _ = self.push();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{ServerConfig, ServerConnection, StreamOwned};
    use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
    use std::thread;
    use std::time::{Duration, Instant};

    /// How long a peer waits for what must come; only a broken driver makes a test take so long.
    const PATIENCE: Duration = Duration::from_secs(20);

    struct Sink {
        listener: TcpListener,
        address: SocketAddrV4,
        config: Arc<ServerConfig>,
        authority: String,
    }

    impl Sink {
        /// Its certificate is made out for `name`.
        fn new(name: &str) -> Self {
            Self::of(name, rcgen::IsCa::NoCa)
        }

        fn of(name: &str, kind: rcgen::IsCa) -> Self {
            let mut made = rcgen::CertificateParams::new([name.to_string()]).expect("a name");
            made.is_ca = kind;
            let signing_key = rcgen::KeyPair::generate().expect("a key");
            let cert = made.self_signed(&signing_key).expect("a certificate");
            let key = PrivateKeyDer::from_pem_slice(signing_key.serialize_pem().as_bytes()).expect("a key");
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_no_client_auth()
                .with_single_cert(std::vec![cert.der().clone()], key)
                .expect("a configuration");
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
            let Ok(SocketAddr::V4(address)) = listener.local_addr() else { panic!("no IPv4 address") };
            Self { listener, address, config: Arc::new(config), authority: cert.pem() }
        }

        /// Takes the next connection; `None` if its client does not agree.
        fn accept(&self) -> Option<StreamOwned<ServerConnection, TcpStream>> {
            let (mut tcp, _) = self.listener.accept().expect("a connection");
            tcp.set_read_timeout(Some(PATIENCE)).expect("a socket");
            let mut session = ServerConnection::new(Arc::clone(&self.config)).expect("a session");
            session.complete_io(&mut tcp).ok()?;
            Some(StreamOwned::new(session, tcp))
        }
    }

    /// Follows until `done`, or an error.
    fn drive(flow: &mut dyn Flow, mut done: impl FnMut(&mut dyn Flow) -> bool) -> io::Result<()> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            flow.follow()?;
            if done(flow) {
                return Ok(());
            }
            thread::yield_now();
        }
        panic!("not within {PATIENCE:?}");
    }

    fn tls(sink: &Sink) -> SinkTls {
        SinkTls::new(sink.authority.as_bytes()).expect("an authority")
    }

    #[test]
    fn bytes_arrive_are_counted_as_handed_over_and_end_in_good_order() {
        let sink = Sink::new("127.0.0.1");
        let mut flow = tls(&sink).open(sink.address).expect("a socket");
        let (go_on, wait) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            let sink = &sink;
            let peer = scope.spawn(move || {
                let mut stream = sink.accept().expect("a session");
                let mut all = Vec::new();
                // Reads nothing for a time: what finds no room is not acknowledged.
                wait.recv().expect("the word");
                stream.read_to_end(&mut all).expect("an end that is none by a cut");
                all
            });
            drive(&mut *flow, |flow| flow.is_open()).expect("a session");
            assert_eq!(flow.send(b"hello").expect("room"), 5);
            drive(&mut *flow, |flow| flow.unacknowledged() == 0).expect("a session");
            let mut sent = 5;
            drive(&mut *flow, |flow| {
                let now = flow.send(&[7; 8192]).expect("an open connection");
                sent += now;
                now == 0
            })
            .expect("a session");
            let left = flow.unacknowledged();
            assert!(left > 0 && left < sent, "{left} of {sent}");
            go_on.send(()).expect("the peer");
            drive(&mut *flow, |flow| flow.unacknowledged() == 0).expect("a session");
            drop(flow);
            let all = peer.join().expect("the peer");
            assert_eq!((all.len(), all.get(..5)), (sent, Some(&b"hello"[..])));
        });
    }

    #[test]
    fn a_sink_that_proves_nothing_gets_nothing() {
        let (sink, other) = (Sink::new("127.0.0.1"), Sink::new("sink.example"));
        let refused = |tls: &SinkTls, sink: &Sink| {
            thread::scope(|scope| {
                let peer = scope.spawn(|| sink.accept().is_none());
                let mut flow = tls.open(sink.address).expect("a socket");
                let error = drive(&mut *flow, |flow| flow.is_open()).expect_err("no session");
                drop(flow);
                assert!(peer.join().expect("the peer"), "it thinks there is a session");
                error.to_string()
            })
        };
        let error = refused(&tls(&other), &sink);
        assert!(error.starts_with("invalid peer certificate: "), "{error}");
        assert!(refused(&tls(&other), &other).contains("certificate not valid for name"), "its address");
        let authority = Sink::of("127.0.0.1", rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
        let error = refused(&tls(&authority), &authority);
        assert!(error.contains("make it with basicConstraints CA:FALSE"), "{error}");
        let named = tls(&other).named("sink.example").expect("a name");
        thread::scope(|scope| {
            let peer = scope.spawn(|| other.accept().is_some());
            let mut flow = named.open(other.address).expect("a socket");
            drive(&mut *flow, |flow| flow.is_open()).expect("a session");
            assert!(peer.join().expect("the peer"));
        });
    }

    #[test]
    fn what_is_no_certificate_key_or_name_is_an_error_that_names_the_option() {
        let made = rcgen::generate_simple_self_signed(["a".to_string()]).expect("a certificate");
        let (pem, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let other = rcgen::generate_simple_self_signed(["b".to_string()]).expect("a certificate").cert.pem();
        for (result, option) in [
            (SinkTls::new(b""), "--syslog-ca"),
            (SinkTls::new(b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"), "--syslog-ca"),
            (SinkTls::with_certificate(pem.as_bytes(), pem.as_bytes(), b"none"), "--syslog-key"),
            (SinkTls::with_certificate(pem.as_bytes(), other.as_bytes(), key.as_bytes()), "--syslog-cert"),
            (tls_of(&pem).named("not a name"), "--syslog-tls-name"),
        ] {
            let error = result.expect_err(option).to_string();
            assert!(error.starts_with(option) && !error.contains("PRIVATE KEY"), "{error}");
        }
        SinkTls::with_certificate(pem.as_bytes(), pem.as_bytes(), key.as_bytes()).expect("a pair");
    }

    fn tls_of(pem: &str) -> SinkTls {
        SinkTls::new(pem.as_bytes()).expect("an authority")
    }
}
