//! The way of spans to the collector: a bounded queue and one thread that sends.
//!
//! Owns the promise that a collector that is down, slow or silent delays nobody: what finds no room, and what it
//! does not take in the end, is counted and forgotten. Never makes a span.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc as done;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::Context;
use opentelemetry_otlp::{
    Protocol, RetryPolicy, WithExportConfig as _, WithHttpConfig as _, WithTonicConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter as _, SpanProcessor};
use tokio::sync::mpsc;

use crate::config::Collector;

/// Spans that wait at most.
const QUEUE_SPANS: usize = 2048;
/// Spans sent at once at most.
const BATCH_SPANS: usize = 512;
/// The first span of a batch waits this long for others at most.
const BATCH_TIME: Duration = Duration::from_secs(1);
/// The collector may take this long to answer.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// The waits before a batch is sent once more; after the last one it is given up.
const RETRY_WAITS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(1)];

/// What became of the spans since the daemon started.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Taken by the collector.
    pub(crate) exported: AtomicU64,
    /// Lost because the queue was full.
    pub(crate) dropped_queue_full: AtomicU64,
    /// Lost because the collector did not take them.
    pub(crate) dropped_export_failed: AtomicU64,
}

impl Counters {
    /// The same as answers have it.
    pub(crate) fn snapshot(&self) -> uni_api::daemon::Traces {
        uni_api::daemon::Traces {
            spans_exported_total: self.exported.load(Relaxed),
            spans_dropped_total: uni_api::daemon::DroppedSpans {
                queue_full: self.dropped_queue_full.load(Relaxed),
                export_failed: self.dropped_export_failed.load(Relaxed),
            },
        }
    }
}

/// The queue's entrance.
#[derive(Debug)]
pub(super) struct Queue {
    /// Gone once the daemon ends.
    spans: Mutex<Option<mpsc::Sender<SpanData>>>,
    /// Told when the thread has sent the last one.
    sent: Mutex<done::Receiver<()>>,
    counters: Arc<Counters>,
}

impl Queue {
    /// Starts the thread that sends to `collector`.
    ///
    /// # Errors
    /// When the address cannot be used, or there is no thread.
    pub(super) fn start(
        collector: &Collector,
        resource: &Resource,
        counters: Arc<Counters>,
    ) -> anyhow::Result<Self> {
        // of its own, so that the daemon's tasks wait for nothing here and the last spans outlive them
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let exporter = runtime.block_on(async { exporter(collector) })?;
        let (spans, queue) = mpsc::channel(QUEUE_SPANS);
        let (tell, sent) = done::channel();
        let mut sender = Sender {
            exporter,
            counters: Arc::clone(&counters),
            collector: collector.to_string(),
            is_failing: false,
        };
        sender.exporter.set_resource(resource);
        std::thread::Builder::new().name("unid-traces".to_owned()).spawn(move || {
            runtime.block_on(sender.send_all(queue));
            // whoever waited may have gone
            let _ = tell.send(());
        })?;
        Ok(Self { spans: Mutex::new(Some(spans)), sent: Mutex::new(sent), counters })
    }
}

/// Retries are ours: the crate's own would wait longer than a daemon that ends.
fn exporter(collector: &Collector) -> anyhow::Result<opentelemetry_otlp::SpanExporter> {
    let builder = opentelemetry_otlp::SpanExporter::builder();
    let exporter = match collector {
        Collector::Grpc(address) => builder
            .with_tonic()
            .with_endpoint(format!("http://{address}"))
            .with_timeout(ANSWER_TIME)
            .with_retry_policy(RetryPolicy::disabled())
            .build(),
        Collector::Http(url) => builder
            .with_http()
            .with_endpoint(url)
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(ANSWER_TIME)
            .with_retry_policy(RetryPolicy::disabled())
            .build(),
    };
    exporter.context("make the exporter")
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        if spans.as_ref().is_none_or(|spans| spans.try_send(span).is_err()) {
            self.counters.dropped_queue_full.fetch_add(1, Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        drop(self.spans.lock().unwrap_or_else(PoisonError::into_inner).take());
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        match sent.recv_timeout(timeout) {
            Err(done::RecvTimeoutError::Timeout) => Err(OTelSdkError::Timeout(timeout)),
            // or the thread has told already
            Ok(()) | Err(done::RecvTimeoutError::Disconnected) => Ok(()),
        }
    }
}

/// The queue's other end.
struct Sender {
    exporter: opentelemetry_otlp::SpanExporter,
    counters: Arc<Counters>,
    collector: String,
    is_failing: bool,
}

impl Sender {
    /// Sends batch after batch until the queue is closed and empty.
    async fn send_all(mut self, mut queue: mpsc::Receiver<SpanData>) {
        loop {
            let mut batch = Vec::new();
            if queue.recv_many(&mut batch, BATCH_SPANS).await == 0 {
                return;
            }
            let more = async {
                while batch.len() < BATCH_SPANS {
                    let room = BATCH_SPANS - batch.len();
                    if queue.recv_many(&mut batch, room).await == 0 {
                        return;
                    }
                }
            };
            let _ = tokio::time::timeout(BATCH_TIME, more).await;
            self.send(batch, &queue).await;
        }
    }

    /// Sends a batch, again if need be; a daemon that ends tries only once.
    async fn send(&mut self, batch: Vec<SpanData>, queue: &mpsc::Receiver<SpanData>) {
        let spans = batch.len() as u64;
        let mut waits = RETRY_WAITS.iter();
        loop {
            let error = match tokio::time::timeout(ANSWER_TIME, self.exporter.export(batch.clone())).await {
                Ok(Ok(())) => {
                    self.counters.exported.fetch_add(spans, Relaxed);
                    self.recovered();
                    return;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {ANSWER_TIME:?}"),
            };
            self.failed(&error);
            match waits.next() {
                Some(wait) if !queue.is_closed() => tokio::time::sleep(*wait).await,
                _ => break,
            }
        }
        self.counters.dropped_export_failed.fetch_add(spans, Relaxed);
    }

    /// Only the first of many failures is told.
    fn failed(&mut self, err: &str) {
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(collector = self.collector, err, "traces cannot be delivered; VMs go on without");
        }
    }

    fn recovered(&mut self) {
        if std::mem::take(&mut self.is_failing) {
            tracing::info!(collector = self.collector, "traces are delivered again");
        }
    }
}
