//! A way to an HTTP listener that notes who asks for what, and when.
//!
//! Owns its listening socket and passes bytes on as they come; it ends with the test's process. Never answers by itself.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The way.
#[derive(Debug)]
pub struct Overheard {
    port: u16,
    asked: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Overheard {
    /// Passes on to `target` what comes to a free port on loopback.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(target: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let asked = Arc::<Mutex<Vec<_>>>::default();
        let (kept, target) = (Arc::clone(&asked), target.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // a failed connection is the client's to notice
                let _ = pass(client, &target, &kept);
            }
        });
        Ok(Self { port, asked })
    }

    /// Where it listens.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// When `path` was asked for.
    #[must_use]
    pub fn asked(&self, path: &str) -> Vec<Instant> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|(_, line)| line.split(' ').nth(1) == Some(path)).map(|(at, _)| *at).collect()
    }
}

fn pass(client: TcpStream, target: &str, asked: &Arc<Mutex<Vec<(Instant, String)>>>) -> anyhow::Result<()> {
    let server = TcpStream::connect(target)?;
    let (back_from, back_to) = (server.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || copy(back_from, back_to, |_| ()));
    let asked = Arc::clone(asked);
    std::thread::spawn(move || {
        copy(client, server, |bytes| {
            // a browser sends a request as one piece, and the next when that is answered
            let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
            let line = String::from_utf8_lossy(line).into_owned();
            asked.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), line));
        });
    });
    Ok(())
}

fn copy(mut from: TcpStream, mut to: TcpStream, mut see: impl FnMut(&[u8])) {
    let mut buffer = [0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        see(&buffer[..length]);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    // whoever is gone already need not be told
    let _ = to.shutdown(Shutdown::Both);
}
