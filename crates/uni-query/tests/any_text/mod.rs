//! What must hold for any text as a query: shared by the replay of seeds here and by the fuzz target in `fuzz/`.

use uni_query::memory::MemorySource;
use uni_query::{Changes, Epoch, Limits, Request, Timestamp, execute};

/// Enough for every clause to find something.
const POINTS: &str = "m,vm=a a=1i,f=1.5,s=\"x\",b=true 1000000000\nm,vm=b a=3i,f=-0.5 61000000000\n\
                      cpu,vm=a,host=h usage=10 120000000000\n";

/// An answer or an error, never a panic; and the same each time.
pub(crate) fn check_query(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut source = MemorySource::new();
    source.load("db", POINTS).expect("line protocol");
    let limits = Limits { max_buckets: 10_000, ..Limits::default() };
    let request =
        Request { text, db: Some("db"), now: Timestamp::from_seconds(200), limits, changes: Changes::None };
    let ask = || match execute(&source, &request) {
        Ok(response) => response.to_json(Some(Epoch::Seconds), false),
        Err(error) => error.to_string(),
    };
    let answer = ask();
    assert!(!answer.is_empty());
    assert_eq!(answer, ask());
}
