//! Traces: what an operator's operation on a VM did, and how long each part took.
//!
//! Owns which spans there are and what they say. How they reach the collector is [`export`]'s business. Without a
//! collector there is nothing here: no thread, no provider, no span.
//!
//! ```text
//!   vm.lifecycle   SERVER    vm.event, vm.id, vm.name, vm.state, vm.duration_seconds; below the caller's span, if any
//!     vm.create    INTERNAL  run: vm.image, vm.memory, vm.cpus, vm.name
//!     vm.start     INTERNAL  run: vm.id
//!     vm.stop      INTERNAL  vm.id
//!     vm.kill      INTERNAL  vm.id
//!     vm.remove    INTERNAL  vm.id
//!     vm.readopt   INTERNAL  vm.id; a daemon that comes back finds the VM living, or gone (vm.state says which)
//! ```
//!
//! One operation is one `vm.lifecycle`: that of `run` has `vm.event` = `create`, and `vm.create` and `vm.start`
//! below it. What nobody asked for, such as a guest's own end, is no operation. What fails has an `exception` event
//! and an error status with the message, the part that failed and the whole.

mod export;

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use opentelemetry::trace::{
    SpanBuilder, SpanContext, SpanId, SpanKind, SpanRef, Status, TraceContextExt as _, TraceFlags, TraceId,
    TraceState, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use uni_api::rpc::Request;
use uni_api::vm::RunParams;

use crate::config::Collector;

pub(crate) use self::export::Counters;

/// The daemon's end waits this long for the last spans to be taken.
const FLUSH_TIME: Duration = Duration::from_secs(3);
/// Longer ones may be left out (W3C Trace Context, 3.3.1.5).
const MAX_TRACESTATE: usize = 512;

/// Makes traces, if there is a collector for them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tracing(Option<Arc<On>>);

#[derive(Debug)]
struct On {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    counters: Arc<Counters>,
}

impl Tracing {
    /// Makes ready to send traces to `collector`, which need not be there; nothing without one.
    ///
    /// # Errors
    /// When its address cannot be used, or the thread that sends cannot be started.
    pub(crate) fn start(collector: Option<&Collector>) -> anyhow::Result<Self> {
        let Some(collector) = collector else { return Ok(Self(None)) };
        let resource = Resource::builder()
            .with_service_name("unid")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let counters = Arc::new(Counters::default());
        let queue = export::Queue::start(collector, &resource, Arc::clone(&counters))
            .with_context(|| format!("send traces to {collector} (--trace-addr)"))?;
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            // a caller whose trace is not recorded wants no spans of ours
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
            .with_span_processor(queue)
            .build();
        let tracer = provider.tracer("unid");
        Ok(Self(Some(Arc::new(On { provider, tracer, counters }))))
    }

    /// What became of the spans; nothing when none are made.
    pub(crate) fn counters(&self) -> Option<&Arc<Counters>> {
        self.0.as_ref().map(|on| &on.counters)
    }

    /// Delivers the last spans, for a moment; spans that end later are lost.
    pub(crate) fn finish(&self) {
        if let Some(on) = &self.0
            && let Err(error) = on.provider.shutdown_with_timeout(FLUSH_TIME)
        {
            tracing::warn!(err = error.to_string(), "the last spans did not reach the collector");
        }
    }

    /// Begins an operation of `caller`.
    pub(crate) fn begin(&self, event: Event, caller: &Caller) -> Operation {
        Operation(self.0.as_ref().map(|on| {
            let parent = match caller.0.as_ref() {
                Some(remote) => Context::new().with_remote_span_context(remote.clone()),
                None => Context::new(),
            };
            let span = SpanBuilder::from_name("vm.lifecycle")
                .with_kind(SpanKind::Server)
                .with_attributes([KeyValue::new("vm.event", event.as_str())]);
            let span = on.tracer.build_with_context(span, &parent);
            let context = parent.with_span(span);
            Running { on: Arc::clone(on), context, start: Instant::now() }
        }))
    }
}

/// The span, possibly of another program, that an operation belongs to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller(Option<SpanContext>);

impl Caller {
    /// Whom a request names in its W3C trace context; nobody if it names none, or not by the rules.
    pub(crate) fn of(request: &Request) -> Self {
        let state = request.tracestate.as_deref();
        Self(request.traceparent.as_deref().and_then(|text| span_context(text, state)))
    }
}

/// `traceparent` by W3C Trace Context, 3.2: a later version may have more parts, and flags we do not know.
fn span_context(traceparent: &str, tracestate: Option<&str>) -> Option<SpanContext> {
    let hex =
        |text: &str, length| text.len() == length && text.bytes().all(|b| b"0123456789abcdef".contains(&b));
    let mut parts = traceparent.trim().split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let well_formed = hex(version, 2) && hex(trace, 32) && hex(span, 16) && hex(flags, 2);
    if !well_formed || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let state = tracestate.filter(|text| text.len() <= MAX_TRACESTATE);
    let state = state.and_then(|text| TraceState::from_str(text).ok()).unwrap_or_default();
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let context = SpanContext::new(trace, span, flags, true, state);
    context.is_valid().then_some(context)
}

/// What an operation is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// A VM is made and started.
    Create,
    /// A guest is asked to end.
    Stop,
    /// QEMU is killed.
    Kill,
    /// A VM is forgotten.
    Remove,
    /// A daemon that comes back looks for a VM of the last one.
    Readopt,
}

impl Event {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Stop => "stop",
            Self::Kill => "kill",
            Self::Remove => "remove",
            Self::Readopt => "readopt",
        }
    }
}

/// The VM an operation turned out to be about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
    pub(crate) state: &'static str,
}

/// An operation under way.
#[derive(Debug)]
pub(crate) struct Operation(Option<Running>);

#[derive(Debug)]
struct Running {
    on: Arc<On>,
    context: Context,
    start: Instant,
}

impl Operation {
    /// Begins a part of the operation. `attributes` are asked for only if they are wanted.
    pub(crate) fn step<A>(&self, name: &'static str, attributes: impl FnOnce() -> A) -> Step
    where
        A: IntoIterator<Item = KeyValue>,
    {
        Step(self.0.as_ref().map(|running| {
            let span =
                SpanBuilder::from_name(name).with_kind(SpanKind::Internal).with_attributes(attributes());
            let span = running.on.tracer.build_with_context(span, &running.context);
            running.context.with_span(span)
        }))
    }

    /// The operation is over: says what it was about, if that was found, and how it ended.
    pub(crate) fn end<T>(
        self,
        subject: Option<Subject<'_>>,
        outcome: anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let Some(running) = self.0 else { return outcome };
        let span = running.context.span();
        if let Some(Subject { id, name, state }) = subject {
            span.set_attribute(KeyValue::new("vm.id", id.to_owned()));
            span.set_attribute(KeyValue::new("vm.name", name.to_owned()));
            span.set_attribute(KeyValue::new("vm.state", state));
        }
        span.set_attribute(KeyValue::new("vm.duration_seconds", running.start.elapsed().as_secs_f64()));
        close(&span, &outcome);
        outcome
    }
}

/// A part of an operation under way.
#[derive(Debug)]
pub(crate) struct Step(Option<Context>);

impl Step {
    /// The part is over.
    pub(crate) fn end<T>(self, outcome: anyhow::Result<T>) -> anyhow::Result<T> {
        if let Some(context) = self.0 {
            close(&context.span(), &outcome);
        }
        outcome
    }
}

fn close<T>(span: &SpanRef<'_>, outcome: &anyhow::Result<T>) {
    if let Err(error) = outcome {
        let message = format!("{error:#}");
        span.add_event("exception", vec![KeyValue::new("exception.message", message.clone())]);
        span.set_status(Status::error(message));
    }
    span.end();
}

/// The attributes of the parts that are about a VM there is.
pub(crate) fn of_vm(id: Option<&str>) -> Option<KeyValue> {
    id.map(|id| KeyValue::new("vm.id", id.to_owned()))
}

/// The attributes of `vm.create`: what was asked for, defaults filled in.
pub(crate) fn of_request(params: &RunParams) -> Vec<KeyValue> {
    let memory = match params.memory.as_str() {
        "" => format!("{}M", uni_vmm::spec::DEFAULT_MEMORY_MIB),
        given => given.to_owned(),
    };
    let mut all = vec![
        KeyValue::new("vm.image", params.image_path.clone()),
        KeyValue::new("vm.memory", memory),
        KeyValue::new("vm.cpus", i64::from(params.cpus.max(1))),
    ];
    if !params.name.is_empty() {
        all.push(KeyValue::new("vm.name", params.name.clone()));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    #[test]
    fn a_callers_context_is_taken_as_the_standard_says() {
        let context = span_context(&format!("00-{TRACE}-{SPAN}-01"), Some("a=1,b=2")).unwrap();
        assert_eq!(
            (context.trace_id().to_string(), context.span_id().to_string()),
            (TRACE.into(), SPAN.into())
        );
        assert!(context.is_sampled() && context.is_remote());
        assert_eq!(context.trace_state().header(), "a=1,b=2");
        assert!(!span_context(&format!("00-{TRACE}-{SPAN}-00"), None).unwrap().is_sampled());
        // a later version: more parts, other flags
        assert!(span_context(&format!("cc-{TRACE}-{SPAN}-09-more"), None).unwrap().is_sampled());
        // a state that is none costs the trace nothing
        let long = format!("a={}", "x".repeat(600));
        for state in ["nonsense", &long] {
            let context = span_context(&format!("00-{TRACE}-{SPAN}-01"), Some(state)).unwrap();
            assert_eq!(context.trace_state().header(), "", "{state}");
        }
    }

    #[test]
    fn a_context_against_the_rules_is_none() {
        for text in [
            String::new(),
            "nonsense".to_owned(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{}-{SPAN}-01", &TRACE[1..]),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{TRACE}-{SPAN}-+1"),
            format!("0-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-é1"),
        ] {
            assert_eq!(span_context(&text, None), None, "{text}");
        }
    }

    #[test]
    fn without_a_collector_nothing_is_made() {
        let tracing = Tracing::start(None).unwrap();
        let operation = tracing.begin(Event::Stop, &Caller::default());
        let step =
            operation.step("vm.stop", || -> Option<KeyValue> { panic!("attributes of a span that is not") });
        assert!(step.end(Ok(())).is_ok());
        assert!(operation.end(None, anyhow::Ok(())).is_ok());
        assert!(tracing.counters().is_none());
        tracing.finish();
    }
}
