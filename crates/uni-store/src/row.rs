//! Rows as bytes: each against the row of its series before. The form that rows have in the log and in the head.
//!
//! Owns the layout of `docs/format/store.md`, section *Rows*, and the state that writing the next row needs. A row
//! that begins *anew* needs no row before it. Never owns names.

use crate::bytes::{Damaged, Reader, put_varint, put_zigzag, unzigzag, zigzag};
use crate::prefetch::prefetch;
use crate::table::{Table, Values};
use uni_wire::{FieldType, Value};

/// Beyond this magnitude a float is not written as a decimal: every whole number up to 2^53 is exact.
const MAX_MANTISSA: i64 = 1 << 53;
/// Powers of ten up to this one are exact as binary64, so that one division gives the nearest number.
pub(crate) const MAX_SCALE: u8 = 22;
/// A float that no short decimal gives is written as its bits.
const RAW: u8 = 63;
const MILLISECOND: i64 = 1_000_000;

/// 10^0 to 10^22.
pub(crate) const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// Numbers and types of the fields of a row, in order.
pub(crate) type ShapeFields = Box<[(u32, FieldType)]>;

/// The fields of a row, in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) measurement: u32,
    pub(crate) fields: ShapeFields,
    /// How many slots rows of this shape need: one a field, and one more for the scale of each float.
    slots: usize,
    /// For each field: where its scale (floats) or its text (strings) is.
    extra: Box<[u32]>,
    texts: usize,
}

impl Shape {
    pub(crate) fn new(measurement: u32, fields: ShapeFields) -> Self {
        let (mut slots, mut texts) = (fields.len(), 0);
        let extra = fields.iter().map(|(_, field_type)| match field_type {
            FieldType::Float => {
                slots += 1;
                slots as u32 - 1
            }
            FieldType::String => {
                texts += 1;
                texts as u32 - 1
            }
            _ => 0,
        });
        let extra = extra.collect();
        Self { measurement, fields, slots, extra, texts }
    }

    const fn bitmap_bytes(&self) -> usize {
        self.fields.len().div_ceil(8)
    }
}

/// What the next row of a series is written against.
#[derive(Clone, Debug, Default)]
pub(crate) struct Base {
    pub(crate) shape: u32,
    time: i64,
    step: i64,
    slots: Vec<i64>,
    texts: Vec<Box<str>>,
}

impl Base {
    fn clear(&mut self, shape: &Shape) {
        self.time = 0;
        self.step = 0;
        self.slots.clear();
        self.slots.resize(shape.slots, 0);
        self.texts.clear();
        self.texts.resize(shape.texts, "".into());
    }

    fn advance(&mut self, time: i64) {
        self.step = time.wrapping_sub(self.time);
        self.time = time;
    }

    /// Begins to load it: a row is written against it soon.
    #[inline]
    pub(crate) fn prefetch(&self) {
        prefetch(&self.slots);
    }

    /// The memory it takes beside itself.
    pub(crate) fn bytes(&self) -> usize {
        self.slots.capacity() * 8 + self.texts.iter().map(|text| text.len() + 16).sum::<usize>()
    }
}

/// Writes one row; the values of its fields are put in the order of the shape, each once.
///
/// The base changes with every value. Who gives up half-way must begin the next row anew.
#[derive(Debug)]
pub(crate) struct RowWriter<'a> {
    out: &'a mut Vec<u8>,
    base: &'a mut Base,
    shape: &'a Shape,
    bitmap: usize,
    field: usize,
    bits: u8,
}

impl<'a> RowWriter<'a> {
    /// A row after the one that `base` holds, or, `anew`, on its own.
    pub(crate) fn new(out: &'a mut Vec<u8>, base: &'a mut Base, shape: &'a Shape, anew: bool) -> Self {
        if anew {
            base.clear(shape);
        }
        let bitmap = out.len();
        out.resize(bitmap + shape.bitmap_bytes(), 0);
        Self { out, base, shape, bitmap, field: 0, bits: 0 }
    }

    #[inline]
    fn next(&mut self, changed: bool) {
        self.bits |= u8::from(changed) << (self.field & 7);
        self.field += 1;
        if self.field & 7 == 0 {
            self.out[self.bitmap + self.field / 8 - 1] = self.bits;
            self.bits = 0;
        }
    }

    #[inline]
    pub(crate) fn integer(&mut self, value: i64) {
        let slot = &mut self.base.slots[self.field];
        let change = value.wrapping_sub(*slot);
        *slot = value;
        if change != 0 {
            put_zigzag(self.out, change);
        }
        self.next(change != 0);
    }

    /// The float `mantissa / 10^scale`; scale up to [`MAX_SCALE`], magnitude of the mantissa up to 2^53.
    #[inline]
    pub(crate) fn decimal(&mut self, mantissa: i64, scale: u8) {
        let at = self.shape.extra[self.field] as usize;
        let before = (self.base.slots[self.field], self.base.slots[at]);
        let changed = before != (mantissa, i64::from(scale));
        if changed {
            if before.1 == i64::from(scale) {
                put_varint(self.out, zigzag(mantissa - before.0) << 1);
            } else {
                put_varint(self.out, u64::from(scale) << 1 | 1);
                put_zigzag(self.out, mantissa);
                self.base.slots[at] = i64::from(scale);
            }
            self.base.slots[self.field] = mantissa;
        }
        self.next(changed);
    }

    fn raw_float(&mut self, bits: i64) {
        let at = self.shape.extra[self.field] as usize;
        let changed = (self.base.slots[self.field], self.base.slots[at]) != (bits, i64::from(RAW));
        if changed {
            put_varint(self.out, u64::from(RAW) << 1 | 1);
            self.out.extend_from_slice(&bits.to_le_bytes());
            self.base.slots[self.field] = bits;
            self.base.slots[at] = i64::from(RAW);
        }
        self.next(changed);
    }

    fn float(&mut self, value: f64) {
        let hint = self.base.slots[self.shape.extra[self.field] as usize];
        match decimal_of(value, u8::try_from(hint).unwrap_or(0)) {
            Some((mantissa, scale)) => self.decimal(mantissa, scale),
            None => self.raw_float(value.to_bits().cast_signed()),
        }
    }

    pub(crate) fn text(&mut self, text: &str) {
        let at = self.shape.extra[self.field] as usize;
        let changed = *self.base.texts[at] != *text;
        if changed {
            put_varint(self.out, text.len() as u64);
            self.out.extend_from_slice(text.as_bytes());
            self.base.texts[at] = text.into();
        }
        self.next(changed);
    }

    /// Any value, of the type that the shape says.
    pub(crate) fn value(&mut self, value: Value<'_>) {
        match value {
            Value::Float(value) => self.float(value),
            Value::Integer(value) => self.integer(value),
            Value::Unsigned(value) => self.integer(value.cast_signed()),
            Value::Boolean(value) => self.integer(i64::from(value)),
            Value::String(value) => self.text(value),
        }
    }

    /// After the last field.
    pub(crate) fn finish(self) {
        if self.field & 7 != 0 {
            self.out[self.bitmap + self.field / 8] = self.bits;
        }
    }
}

/// Writes the head of a row, its time, to `out`; the values were written by a [`RowWriter`] to another place, because
/// in a line the time comes last. Answers false where the row cannot follow the one before it: it must then be
/// written anew.
pub(crate) fn put_time(out: &mut Vec<u8>, base: &mut Base, time: i64, anew: Option<u32>) -> bool {
    if let Some(shape) = anew {
        put_varint(out, u64::from(shape) << 1 | 1);
        put_zigzag(out, time);
        base.shape = shape;
        base.time = time;
        base.step = 0;
        return true;
    }
    let change = time.wrapping_sub(base.time).wrapping_sub(base.step);
    let (unit, change) =
        if change % MILLISECOND == 0 { (1, zigzag(change / MILLISECOND)) } else { (0, zigzag(change)) };
    if change >= 1 << 62 {
        return false;
    }
    put_varint(out, change << 2 | unit << 1);
    base.advance(time);
    true
}

/// A float as a decimal of at most nine places, where no bit is lost; `hint` is the scale to be tried first.
pub(crate) fn decimal_of(value: f64, hint: u8) -> Option<(i64, u8)> {
    const PLACES: u8 = 9;
    let exact = |scale: u8| {
        let mantissa = (value * POWERS[usize::from(scale)]).round();
        let fits = mantissa.abs() <= MAX_MANTISSA as f64;
        let bits = (mantissa / POWERS[usize::from(scale)]).to_bits();
        (fits && bits == value.to_bits()).then_some((mantissa as i64, scale))
    };
    if value == 0.0 && value.is_sign_negative() {
        return None;
    }
    let hint = if hint <= MAX_SCALE { exact(hint) } else { None };
    hint.or_else(|| (0..=PLACES).find_map(exact))
}

/// Reads the rows of a piece, front to back.
#[derive(Debug)]
pub(crate) struct RowReader<'a> {
    reader: Reader<'a>,
    base: Base,
}

impl<'a> RowReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { reader: Reader::new(bytes), base: Base::default() }
    }

    /// Reads the next row into the base; `None` at the end. `shape` finds a shape by its number.
    pub(crate) fn next<'s>(
        &mut self,
        shape: impl Fn(u32) -> Option<&'s Shape>,
    ) -> Result<Option<(i64, &'s Shape)>, Damaged> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let control = self.reader.varint()?;
        if control & 1 == 1 {
            let number = u32::try_from(control >> 1).map_err(|_| Damaged("a shape out of range"))?;
            let time = self.reader.zigzag()?;
            let known = shape(number).ok_or(Damaged("a shape that is not defined"))?;
            self.base.clear(known);
            (self.base.shape, self.base.time) = (number, time);
        } else {
            let change = unzigzag(control >> 2);
            let change = if control & 2 == 2 { change.wrapping_mul(MILLISECOND) } else { change };
            let time = self.base.time.wrapping_add(self.base.step).wrapping_add(change);
            self.base.advance(time);
        }
        let known = shape(self.base.shape).ok_or(Damaged("a shape that is not defined"))?;
        if known.slots != self.base.slots.len() {
            return Err(Damaged("a row without a row before it"));
        }
        self.values(known)?;
        Ok(Some((self.base.time, known)))
    }

    fn values(&mut self, shape: &Shape) -> Result<(), Damaged> {
        let bitmap = self.reader.take(shape.bitmap_bytes())?;
        for (byte, bits) in bitmap.iter().enumerate() {
            let mut bits = *bits;
            while bits != 0 {
                let field = byte * 8 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let (_, field_type) = *shape.fields.get(field).ok_or(Damaged("a field past the shape"))?;
                self.value(field, field_type, shape.extra[field] as usize)?;
            }
        }
        Ok(())
    }

    #[inline]
    fn value(&mut self, field: usize, field_type: FieldType, extra: usize) -> Result<(), Damaged> {
        match field_type {
            FieldType::Integer | FieldType::Unsigned | FieldType::Boolean => {
                let slot = &mut self.base.slots[field];
                *slot = slot.wrapping_add(self.reader.zigzag()?);
            }
            FieldType::Float => self.float(field, extra)?,
            FieldType::String => self.base.texts[extra] = self.reader.text()?.into(),
        }
        Ok(())
    }

    fn float(&mut self, field: usize, extra: usize) -> Result<(), Damaged> {
        let token = self.reader.varint()?;
        let slots = &mut self.base.slots;
        if token & 1 == 0 {
            slots[field] = slots[field].wrapping_add(unzigzag(token >> 1));
            return Ok(());
        }
        match u8::try_from(token >> 1) {
            Ok(RAW) => {
                slots[extra] = RAW.into();
                slots[field] = self.reader.u64()?.cast_signed();
            }
            Ok(scale @ 0..=MAX_SCALE) => {
                slots[extra] = scale.into();
                slots[field] = self.reader.zigzag()?;
            }
            _ => return Err(Damaged("a scale out of range")),
        }
        Ok(())
    }

    #[inline]
    fn push(&self, shape: &Shape, field: usize, values: &mut Values) {
        let slot = self.base.slots[field];
        match values {
            Values::Integer(values) => values.push(slot),
            Values::Unsigned(values) => values.push(slot.cast_unsigned()),
            Values::Boolean(values) => values.push(slot != 0),
            Values::Text(values) => values.push(self.base.texts[shape.extra[field] as usize].clone()),
            Values::Float(values) => {
                let scale = self.base.slots[shape.extra[field] as usize];
                values.push(match usize::try_from(scale).ok().and_then(|scale| POWERS.get(scale)) {
                    Some(power) => slot as f64 / power,
                    None => f64::from_bits(slot.cast_unsigned()),
                });
            }
        }
    }
}

/// Reads all rows of a piece into a table, in their order, with the fields that are `wanted`. `rows`: how many there are,
/// about.
pub(crate) fn read_rows<'s>(
    (bytes, rows): (&[u8], usize),
    table: &mut Table,
    shape: impl Fn(u32) -> Option<&'s Shape>,
    wanted: impl Fn(u32) -> bool,
) -> Result<(), Damaged> {
    let mut reader = RowReader::new(bytes);
    let mut places: Vec<(usize, usize)> = Vec::new();
    let mut known: Option<u32> = None;
    table.times.reserve(rows);
    while let Some((time, shape)) = reader.next(&shape)? {
        if known != Some(reader.base.shape) {
            known = Some(reader.base.shape);
            // From here on, as long as the shape stays, each of these columns gets a value with every row.
            places.clear();
            for (at, (field, field_type)) in shape.fields.iter().enumerate() {
                if wanted(*field) {
                    let column = table.column(*field, *field_type);
                    table.columns[column].skip_to(table.times.len());
                    table.columns[column].values.reserve(rows);
                    places.push((at, column));
                }
            }
            // A shape names each field once; of one that does not (in a log that is not ours) the first counts.
            places.sort_by_key(|(_, column)| *column);
            places.dedup_by_key(|(_, column)| *column);
        }
        for &(field, at) in &places {
            let column = &mut table.columns[at];
            reader.push(shape, field, &mut column.values);
            column.mark_present();
        }
        table.times.push(time);
    }
    table.level();
    Ok(())
}
