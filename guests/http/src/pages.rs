//! The pages: what each path does. Memory taken on request is bounded here.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use guest_runtime::heap_statistics;
use http::request::{Method, Request};
use http::response::Response;

const SLOW_NS: u64 = 500_000_000;
const BLOCK_BYTES: usize = 256 * 1024;
const MAX_BLOCKS: usize = 32;

/// When a request is answered, and how.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// The answer.
    pub(crate) response: Response,
    /// When to give it, in monotonic time.
    pub(crate) at_ns: u64,
}

/// What the pages remember.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    kept: Vec<Vec<u8>>,
}

impl Pages {
    /// The answer to a request, and when to give it.
    pub(crate) fn serve(&mut self, request: Request<'_>, now_ns: u64) -> Verdict {
        let slow = request.method != Method::Other && request.path == "/slow";
        let at_ns = if slow { now_ns + SLOW_NS } else { now_ns };
        Verdict { response: self.page(request, now_ns), at_ns }
    }

    fn page(&mut self, request: Request<'_>, now_ns: u64) -> Response {
        if request.method == Method::Other {
            return Response::bare(405);
        }
        match request.path {
            "/" => Response::page("It works. See also /about /status /slow /fail /alloc\n".into()),
            "/about" => Response::page("A unikernel in Rust: no operating system inside.\n".into()),
            "/status" => Response::page(status(now_ns)),
            "/slow" => Response::page("That took half a second.\n".into()),
            "/fail" => Response::bare(500),
            "/alloc" => self.allocate(),
            _ => Response::bare(404),
        }
    }

    /// Keeps another block; with the last one that is allowed, or that fits, all are given back.
    fn allocate(&mut self) -> Response {
        let mut block = Vec::new();
        if block.try_reserve_exact(BLOCK_BYTES).is_err() {
            self.kept = Vec::new();
            return Response::bare(503);
        }
        block.resize(BLOCK_BYTES, 1);
        self.kept.push(block);
        let kept = self.kept.len();
        if kept == MAX_BLOCKS {
            self.kept = Vec::new();
        }
        Response::page(format!("block {kept} of {MAX_BLOCKS}, {BLOCK_BYTES} bytes each\n"))
    }
}

fn status(now_ns: u64) -> String {
    let heap = heap_statistics();
    format!(
        "uptime_ms {}\nheap_bytes {}\nheap_live_bytes {}\nheap_peak_bytes {}\nheap_live_blocks {}\n",
        now_ns / 1_000_000,
        heap.size_bytes,
        heap.live_bytes,
        heap.peak_bytes,
        heap.live_blocks
    )
}
