//! What must hold for any bytes: shared by the tests here and by the fuzz target in `fuzz/`.

use uni_memtrace::{Diff, FlameGraph, Grouping, Names, Options, Report, ShortLived, read};
use uni_wire::memtrace::{Locate, Position};

/// Any bytes have a report; its sums fit each other, and every form of it is well-formed.
pub(crate) fn check_report(bytes: &[u8]) {
    let small =
        Options { stacks: 50, live_blocks: 3, frames: 20, steps: 4, name_bytes: 200, ..Options::default() };
    let early = Options { at_micros: Some(3000), ..Options::default() };
    let of_all = ShortLived::find(bytes, 0, |_| {}).expect("memory is read");
    let of_long = ShortLived::find(bytes, 1000, |_| {}).expect("memory is read");
    let [all, long] = [of_all, of_long].map(|left_out| Options {
        short_lived: Some(left_out),
        names: Some(Names::new(Shouting)),
        ..Options::default()
    });
    let totals = |options| read(bytes, options, |_| {}).expect("memory is read").totals();
    assert_eq!(totals(&all), totals(&Options::default()), "nothing lives shorter than no time");
    for options in [Options::default(), small, early, long] {
        let analysis = read(bytes, &options, |_| {}).expect("memory is read");
        for grouping in [Grouping::Site, Grouping::Library, Grouping::Function] {
            check_sums(&analysis.report(grouping, usize::MAX));
        }
        let graph = FlameGraph::new(&analysis);
        let root = &graph.nodes[0];
        for node in &graph.nodes {
            let children: u64 = node.children.iter().map(|child| graph.nodes[*child].allocated).sum();
            // each part is rounded for itself
            assert!(
                children <= node.allocated.saturating_add(node.children.len() as u64)
                    || node.allocated > 1 << 52
            );
            assert!(node.live <= node.allocated && node.allocated <= root.allocated);
        }
        assert!(uni_memtrace::svg(&graph).expect("json").ends_with("</svg>\n"));
        assert!(uni_memtrace::html(&graph).expect("json").ends_with("</html>\n"));
        assert!(!uni_memtrace::pprof(&analysis).expect("memory").is_empty());
        assert!(
            analysis
                .folded(false)
                .lines()
                .all(|line| line.rsplit_once(' ').is_some_and(|(_, n)| n.parse::<u64>().is_ok()))
        );
        assert!(
            Diff::new(&analysis, &analysis, Grouping::Site, 9)
                .rows
                .iter()
                .all(|row| row.live_change_bytes == 0)
        );
    }
}

/// Knows every address.
struct Shouting;

impl Locate for Shouting {
    fn locate(&self, _code: u64, each: &mut dyn FnMut(Position<'_>)) {
        for name in [&b"a::main"[..], b"\xff;\n"] {
            each(Position { name, file: b"src/a.rs", line: -1, start_column: 0, end_column: 0 });
        }
    }
}

fn check_sums(report: &Report) {
    let totals = &report.totals;
    assert!(totals.live_bytes <= totals.peak_live_bytes && totals.peak_live_bytes <= totals.allocated_bytes);
    let allocations: u64 = report.rows.iter().map(|row| row.sampled_allocations).sum();
    assert_eq!(allocations, totals.sampled_allocations);
    for row in &report.rows {
        assert!(row.allocated_bytes <= row.cumulative_allocated_bytes, "{row:?}");
        assert!(row.live_bytes <= row.cumulative_live_bytes, "{row:?}");
        assert!(row.cumulative_allocated_bytes <= totals.allocated_bytes, "{row:?}");
    }
}
