//! Which fields of a series a scan wants, and where they go in its rows.

use uni_wire::FieldValue;

/// Where the wanted fields of a series go in the caller's row.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// Slot by field number; `None` where the field is not wanted.
    slots: Vec<Option<usize>>,
    /// Slots that repeat another one, because a name was asked for twice.
    copies: Vec<(usize, usize)>,
    width: usize,
}

impl Selection {
    /// `wanted[slot]` is the field to put there; `None` leaves the slot empty in every row.
    pub(crate) fn new(wanted: &[Option<u32>]) -> Self {
        let mut selection = Self { width: wanted.len(), ..Self::default() };
        for (slot, field) in wanted.iter().enumerate() {
            if let Some(field) = field {
                selection.add(*field as usize, slot);
            }
        }
        selection
    }

    fn add(&mut self, field: usize, slot: usize) {
        if self.slots.len() <= field {
            self.slots.resize(field + 1, None);
        }
        match self.slots[field] {
            Some(first) => self.copies.push((first, slot)),
            None => self.slots[field] = Some(slot),
        }
    }

    pub(crate) fn slot(&self, field: u32) -> Option<usize> {
        self.slots.get(field as usize).copied().flatten()
    }

    pub(crate) const fn width(&self) -> usize {
        self.width
    }

    /// Fills the slots that repeat another one.
    pub(crate) fn copy_repeats(&self, row: &mut [Option<FieldValue>]) {
        for &(from, to) in &self.copies {
            row[to] = row[from].clone();
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_field_asked_for_twice_fills_both_slots() {
        let selection = Selection::new(&[Some(3), None, Some(3)]);
        let mut row = vec![Some(FieldValue::Boolean(true)), None, None];
        selection.copy_repeats(&mut row);
        assert_eq!((selection.slot(3), selection.slot(2), selection.width()), (Some(0), None, 3));
        assert_eq!(row[2], Some(FieldValue::Boolean(true)));
    }
}
