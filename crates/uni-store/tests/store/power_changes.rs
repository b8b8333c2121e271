//! The power goes at every operation of a run that deletes rows, drops a policy and a database, and makes them anew.
//!
//! The rule that is checked: what was acknowledged holds, an append as well as a deletion; a change that was not is done
//! wholly or not at all; and what is gone does not come back.

use crate::common::{contents, integer, point};
use crate::power::{CUTS, Cut, FrailDisk};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use uni_store::{Doomed, Options, PolicySpec, Store};
use uni_wire::Timestamp;

const NOW: Timestamp = Timestamp::from_seconds(1_000_000);
const DB: &str = "uni";

/// A row: its space and its number.
type Row = (String, i64);

/// What the one who runs knows.
#[derive(Debug, Default)]
struct Told {
    present: BTreeSet<Row>,
    /// Rows that a change which was not acknowledged brings or takes: all or none.
    unsure: BTreeSet<Row>,
}

impl Told {
    /// A change begins that brings or takes these rows.
    fn begin(&mut self, rows: impl IntoIterator<Item = Row>) {
        self.unsure = rows.into_iter().collect();
    }

    /// It was acknowledged.
    fn brought(&mut self) {
        self.present.append(&mut self.unsure);
    }

    fn taken(&mut self) {
        for row in std::mem::take(&mut self.unsure) {
            self.present.remove(&row);
        }
    }
}

type Run = Result<(), Box<dyn std::error::Error>>;

fn options() -> Options {
    Options { partition_seconds: 60, wal_flush_bytes: 4096, ..Options::default() }
}

fn open(disk: &FrailDisk) -> Result<Store, uni_store::OpenError> {
    Store::open_on(Arc::new(disk.clone()), Path::new("/store"), options(), NOW)
}

fn append(store: &Store, told: &mut Told, space: &str, numbers: &[i64]) -> Run {
    told.begin(numbers.iter().map(|n| (space.to_owned(), *n)));
    let vm = |n: i64| if n % 3 == 0 { "a" } else { "b" };
    let one = |n: &i64| point("m", vm(*n), &[("x", integer(*n))], n * 1_000_000_000);
    let points: Vec<_> = numbers.iter().map(one).collect();
    assert_eq!(store.append_durable(space, &points)?.accepted, numbers.len());
    told.brought();
    Ok(())
}

/// Deletes what VM `a` has up to a time, or everything it has.
fn delete(store: &Store, told: &mut Told, last: i64) -> Run {
    let gone = |row: &&Row| row.0 == DB && row.1 % 3 == 0 && row.1 <= last;
    let rows: Vec<Row> = told.present.iter().filter(gone).cloned().collect();
    told.begin(rows);
    let all = store.series(DB, "m", &[]);
    let series = all.iter().filter(|info| &*info.tags[0].1 == "a").map(|info| info.id).collect();
    let doomed = Doomed { space: DB.to_owned(), measurement: "m".to_owned(), series: Some(series) };
    store.delete(Timestamp(i64::MIN), Timestamp(last * 1_000_000_000), &[doomed])?;
    told.taken();
    Ok(())
}

fn maintain(store: &Store) -> Run {
    while store.merge(Timestamp(NOW.nanos() * 2), &mut || {})? {}
    store.maintain(NOW)?;
    Ok(())
}

fn run(disk: &FrailDisk, told: &mut Told) -> Run {
    let store = open(disk)?;
    store.create_database(DB)?;
    store.create_policy(DB, "week", &PolicySpec::default(), false)?;
    let week = store.space(DB, Some("week"))?;
    append(&store, told, DB, &[0, 1, 3, 6, 100, 102])?;
    append(&store, told, &week, &[0, 2])?;
    store.flush()?;
    append(&store, told, DB, &[9, 2, 105])?;
    // In segments and in the log; one block is cut in two.
    delete(&store, told, 6)?;
    store.maintain(NOW)?;
    append(&store, told, DB, &[3])?;
    maintain(&store)?;
    delete(&store, told, 1000)?;
    append(&store, told, DB, &[6, 7])?;
    append(&store, told, &week, &[5])?;
    let of_week: Vec<Row> = told.present.iter().filter(|row| row.0 == week).cloned().collect();
    told.begin(of_week);
    store.drop_policy(DB, "week")?;
    told.taken();
    let spec = PolicySpec { duration: Some(Duration::from_secs(1_000_000_000)), ..PolicySpec::default() };
    store.create_policy(DB, "week", &spec, true)?;
    append(&store, told, &week, &[2, 8])?;
    maintain(&store)?;
    told.begin(told.present.clone());
    store.drop_database(DB)?;
    told.taken();
    store.create_database(DB)?;
    append(&store, told, DB, &[1, 3])?;
    store.flush()?;
    maintain(&store)
}

fn present(store: &Store) -> BTreeSet<Row> {
    let mut present = BTreeSet::new();
    for space in store.spaces(DB) {
        for (time, row) in contents(store, &space).into_values().flatten() {
            let number = time / 1_000_000_000;
            assert_eq!(row, BTreeMap::from([("x".to_owned(), integer(number))]));
            present.insert((space.clone(), number));
        }
    }
    present
}

fn check(disk: &FrailDisk, told: &Told, context: &str) {
    let store = open(disk).expect(context);
    assert_eq!(store.recovery().hidden_columns, 0, "{context}");
    let here = present(&store);
    let sure = |rows: &BTreeSet<Row>| -> BTreeSet<Row> { rows.difference(&told.unsure).cloned().collect() };
    assert_eq!(sure(&here), sure(&told.present), "{context}");
    let half: Vec<&Row> = here.intersection(&told.unsure).collect();
    // Of what is appended again, it does not matter which of the two is there.
    let new: Vec<&Row> = told.unsure.iter().filter(|row| !told.present.contains(*row)).collect();
    let taken = new.is_empty();
    let whole = if taken { told.unsure.len() } else { half.len() };
    assert!(half.is_empty() || half.len() == whole, "{context}: {half:?} of {:?}", told.unsure);
    // It goes on, and a second cut brings nothing back.
    if store.has_database(DB) && store.space(DB, Some("autogen")).is_ok() {
        store.append_durable(DB, &[point("m", "a", &[("x", integer(777))], 777_000_000_000)]).expect(context);
        maintain(&store).expect(context);
        drop(store);
        let store = open(&disk.after(Cut::Nothing)).expect(context);
        let mut expected = here;
        expected.insert((DB.to_owned(), 777));
        assert_eq!(present(&store), expected, "{context}: once more");
    }
}

#[test]
fn at_every_operation_the_power_may_go_and_nothing_that_is_gone_comes_back() {
    let whole = FrailDisk::new(usize::MAX);
    run(&whole, &mut Told::default()).expect("the power stays");
    let operations = whole.operations();
    assert!(operations > 100, "{operations} operations");
    for fail_after in 0..=operations {
        let (disk, mut told) = (FrailDisk::new(fail_after), Told::default());
        let outcome = run(&disk, &mut told);
        // What fails last may be the removal of a file that nothing needs any more: nobody is told.
        assert!(
            outcome.is_err() || fail_after + 20 > operations,
            "{outcome:?} after {fail_after} of {operations}"
        );
        for cut in CUTS {
            check(&disk.after(cut), &told, &format!("power gone at operation {fail_after}, {cut:?}"));
        }
    }
}
