//! What many points add up to: windows that a source has summed up before, in place of their points.
//!
//! Owns the types of [`crate::Source::scan_summed`]. What a window is good for, the functions decide (`select`).

use std::ops::ControlFlow;
use uni_wire::{FieldValue, Timestamp};

/// The windows of a query, in nanoseconds: they begin at multiples of `every`, moved by `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Length of a window, above zero.
    pub every: i64,
    /// What the windows are moved by.
    pub offset: i64,
}

/// A point, or a window of them.
#[derive(Clone, Copy, Debug)]
pub enum Summed<'a> {
    /// A point: its time and the values of the fields asked for.
    Point(Timestamp, &'a [Option<FieldValue>]),
    /// A window that lies in one window of the grid (if [`WindowSummary::is_all`], that begins in one).
    Window(&'a WindowSummary),
}

/// Gets points and windows; breaks to end the scan, and says of a window whether it took it. One that is not taken
/// comes again as points, unless it is all there is.
pub type SummedVisitor<'a> = &'a mut dyn FnMut(Summed<'_>) -> ControlFlow<(), bool>;

/// The points of one series in a window, summed up.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowSummary {
    /// Where the window begins.
    pub start: Timestamp,
    /// The times of its first and last point.
    pub span: (Timestamp, Timestamp),
    /// Its points are not there any more: there is nothing else to ask.
    pub is_all: bool,
    /// For each field asked for what it has; `None` where it has no number.
    pub fields: Vec<Option<FieldSummary>>,
}

/// What a window says of one field of numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldSummary {
    /// Values there are, at least one.
    pub count: u64,
    /// The least value.
    pub min: FieldValue,
    /// The greatest.
    pub max: FieldValue,
    /// The earliest, with its time.
    pub first: (Timestamp, FieldValue),
    /// The latest, with its time.
    pub last: (Timestamp, FieldValue),
    /// All values added.
    pub sum: WindowSum,
}

/// A sum of values.
#[derive(Clone, Debug, PartialEq)]
pub enum WindowSum {
    /// The same in whatever order they are added: of integers, and of whole floats that stay below 2^53.
    Exact(FieldValue),
    /// As it comes out in order of time; not a number where that is not known, which it is where points are gone.
    About(f64),
}
