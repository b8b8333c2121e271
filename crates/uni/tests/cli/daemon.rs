//! A daemon of a few lines on a real Unix socket, and the built `uni` asking it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tempfile::TempDir;

/// What a daemon does with a request: method and parameters in; a result, an error `(code, message)`, or
/// nothing, which closes the connection.
pub(crate) type Handler = dyn Fn(&str, &Value) -> Option<Result<Value, (i64, String)>> + Send + Sync;

pub(crate) struct Daemon {
    dir: TempDir,
    requests: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Daemon {
    pub(crate) fn start(
        handler: impl Fn(&str, &Value) -> Option<Result<Value, (i64, String)>> + Send + Sync + 'static,
    ) -> Self {
        let dir = TempDir::new().expect("a directory");
        let listener = UnixListener::bind(dir.path().join("s")).expect("a socket");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, handler): (_, Arc<Handler>) = (Arc::clone(&requests), Arc::new(handler));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, handler) = (Arc::clone(&seen), Arc::clone(&handler));
                std::thread::spawn(move || serve(stream, &seen, &*handler));
            }
        });
        Self { dir, requests }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    /// The requests so far, in order.
    pub(crate) fn requests(&self) -> Vec<(String, Value)> {
        self.requests.lock().expect("no panic").clone()
    }

    pub(crate) fn uni(&self, args: &[&str]) -> Output {
        uni(&self.socket(), args).output().expect("uni runs")
    }
}

fn serve(stream: UnixStream, seen: &Mutex<Vec<(String, Value)>>, handler: &Handler) {
    let mut answers = stream.try_clone().expect("a second handle");
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        let request: Value = serde_json::from_str(&line).expect("one JSON value a line");
        let method = request["method"].as_str().expect("a method").to_owned();
        seen.lock().expect("no panic").push((method.clone(), request["params"].clone()));
        let mut answer = json!({"jsonrpc": "2.0", "id": request["id"]});
        match handler(&method, &request["params"]) {
            Some(Ok(result)) => answer["result"] = result,
            Some(Err((code, message))) => answer["error"] = json!({"code": code, "message": message}),
            None => return,
        }
        if writeln!(answers, "{answer}").is_err() {
            return;
        }
    }
}

/// The built program, free of the surroundings' settings.
pub(crate) fn uni(socket: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_uni"));
    command.args(args).arg("--socket").arg(socket).env_remove("UNI_SOCKET").stdin(Stdio::null());
    command
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}
