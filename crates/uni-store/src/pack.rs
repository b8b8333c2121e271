//! Whole numbers in few bits.
//!
//! Owns the encodings of `docs/format/store.md`, section *Numbers in blocks*. Encoders take anything; decoders take any
//! bytes and answer [`Damaged`]. Never knows what the numbers mean.

use crate::bytes::{Damaged, Reader, put_varint, put_zigzag};

const CONSTANT: u8 = 0;
const LINEAR: u8 = 1;
const PLAIN: u8 = 2;
const DELTA: u8 = 3;
const DELTA_OF_DELTA: u8 = 4;

/// So many numbers share a width: fewer follow changes of magnitude better, more have fewer headers.
const GROUP: usize = 64;
/// What a group's header takes, about, in bits.
const HEADER_BITS: usize = 24;

/// Packs numbers in the way that takes the fewest bits. The reader must know how many there are.
pub(crate) fn put_numbers(out: &mut Vec<u8>, numbers: &[i64]) {
    let Some(&first) = numbers.first() else { return };
    let step = numbers.get(1).map_or(0, |second| second.wrapping_sub(first));
    if numbers.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == step) {
        out.push(if step == 0 { CONSTANT } else { LINEAR });
        put_zigzag(out, first);
        if step != 0 {
            put_zigzag(out, step);
        }
        return;
    }
    let deltas: Vec<i64> = differences(numbers);
    let (plain, delta, second) = (cost(numbers), cost(&deltas), cost_of_differences(&deltas));
    if plain <= delta && plain <= second {
        out.push(PLAIN);
        put_groups(out, numbers);
    } else if delta <= second {
        out.push(DELTA);
        put_zigzag(out, first);
        put_groups(out, &deltas);
    } else {
        out.push(DELTA_OF_DELTA);
        put_zigzag(out, first);
        put_zigzag(out, step);
        put_groups(out, &differences(&deltas));
    }
}

/// How many bits [`put_numbers`] takes at most, about.
pub(crate) fn estimate_bits(numbers: &[i64]) -> usize {
    cost(numbers).min(cost_of_differences(numbers))
}

fn differences(numbers: &[i64]) -> Vec<i64> {
    numbers.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect()
}

/// The least of a group, and the bits that the others need above it.
fn frame(group: &[i64]) -> (i64, u32) {
    let (min, max) = group.iter().fold((i64::MAX, i64::MIN), |(min, max), n| (min.min(*n), max.max(*n)));
    (min, 64 - max.wrapping_sub(min).cast_unsigned().leading_zeros())
}

fn cost(numbers: &[i64]) -> usize {
    numbers.chunks(GROUP).map(|group| HEADER_BITS + frame(group).1 as usize * group.len()).sum()
}

/// As [`cost`] of [`differences`], without making them.
fn cost_of_differences(numbers: &[i64]) -> usize {
    let mut bits = 0;
    let mut start = 0;
    while start + 1 < numbers.len() {
        let end = numbers.len().min(start + GROUP + 1);
        let (mut min, mut max) = (i64::MAX, i64::MIN);
        for pair in numbers[start..end].windows(2) {
            let change = pair[1].wrapping_sub(pair[0]);
            (min, max) = (min.min(change), max.max(change));
        }
        let width = 64 - max.wrapping_sub(min).cast_unsigned().leading_zeros();
        bits += HEADER_BITS + width as usize * (end - start - 1);
        start = end - 1;
    }
    bits
}

fn put_groups(out: &mut Vec<u8>, numbers: &[i64]) {
    for group in numbers.chunks(GROUP) {
        let (min, width) = frame(group);
        out.push(width as u8);
        put_zigzag(out, min);
        let mut bits = 0u128;
        let mut filled = 0;
        for number in group {
            bits |= u128::from(number.wrapping_sub(min).cast_unsigned()) << filled;
            filled += width;
            if filled >= 64 {
                out.extend_from_slice(&(bits as u64).to_le_bytes());
                bits >>= 64;
                filled -= 64;
            }
        }
        out.extend_from_slice(&(bits as u64).to_le_bytes()[..filled.div_ceil(8) as usize]);
    }
}

/// Unpacks `count` numbers.
pub(crate) fn numbers(reader: &mut Reader<'_>, count: usize) -> Result<Vec<i64>, Damaged> {
    if count == 0 {
        return Ok(Vec::new());
    }
    match reader.u8()? {
        CONSTANT => Ok(vec![reader.zigzag()?; count]),
        LINEAR => {
            let (first, step) = (reader.zigzag()?, reader.zigzag()?);
            Ok((0..).take(count).map(|n| first.wrapping_add(step.wrapping_mul(n))).collect())
        }
        PLAIN => groups(reader, Vec::with_capacity(count), count),
        DELTA => {
            let first = reader.zigzag()?;
            let mut numbers = groups(reader, vec![first], count)?;
            sum_up(&mut numbers);
            Ok(numbers)
        }
        DELTA_OF_DELTA => {
            let (first, step) = (reader.zigzag()?, reader.zigzag()?);
            let mut numbers = groups(reader, vec![first, step], count)?;
            if let Some(deltas) = numbers.get_mut(1..) {
                sum_up(deltas);
            }
            sum_up(&mut numbers);
            Ok(numbers)
        }
        _ => Err(Damaged("an unknown encoding of numbers")),
    }
}

fn sum_up(numbers: &mut [i64]) {
    let mut sum = 0i64;
    for number in numbers {
        sum = sum.wrapping_add(*number);
        *number = sum;
    }
}

fn groups(reader: &mut Reader<'_>, mut numbers: Vec<i64>, count: usize) -> Result<Vec<i64>, Damaged> {
    numbers.reserve(count.saturating_sub(numbers.len()));
    while numbers.len() < count {
        let group = GROUP.min(count - numbers.len());
        let width = u32::from(reader.u8()?);
        if width > 64 {
            return Err(Damaged("numbers of more than 64 bits"));
        }
        let min = reader.zigzag()?;
        let bytes = reader.take((width as usize * group).div_ceil(8))?;
        unpack(bytes, width, group, |number| numbers.push(min.wrapping_add(number.cast_signed())));
    }
    Ok(numbers)
}

#[inline]
fn unpack(bytes: &[u8], width: u32, count: usize, mut each: impl FnMut(u64)) {
    if width == 0 {
        (0..count).for_each(|_| each(0));
        return;
    }
    let mask = u64::MAX >> (64 - width);
    let (mut bits, mut filled) = (0u128, 0);
    let mut words = bytes.chunks(8);
    for _ in 0..count {
        if filled < width {
            let mut word = [0; 8];
            let chunk = words.next().unwrap_or_default();
            word[..chunk.len()].copy_from_slice(chunk);
            bits |= u128::from(u64::from_le_bytes(word)) << filled;
            filled += 64;
        }
        each(bits as u64 & mask);
        bits >>= width;
        filled -= width;
    }
}

/// Packs times, strictly ascending: their steps, divided by their common factor.
pub(crate) fn put_times(out: &mut Vec<u8>, times: &[i64]) {
    let Some(&first) = times.first() else { return };
    let steps: Vec<u64> = differences(times).into_iter().map(i64::cast_unsigned).collect();
    let factor = steps.iter().copied().fold(0, gcd).max(1);
    put_zigzag(out, first);
    put_varint(out, factor);
    let steps: Vec<i64> = steps.into_iter().map(|step| (step / factor).cast_signed()).collect();
    put_numbers(out, &steps);
}

const fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Unpacks `rows` times; refuses times that do not ascend.
pub(crate) fn times(reader: &mut Reader<'_>, rows: usize) -> Result<Vec<i64>, Damaged> {
    let first = reader.zigzag()?;
    let factor = reader.varint()?;
    let steps = numbers(reader, rows.saturating_sub(1))?;
    let mut times = Vec::with_capacity(rows);
    times.push(first);
    let mut time = first;
    for step in steps {
        let next = time.wrapping_add(step.cast_unsigned().wrapping_mul(factor).cast_signed());
        if next <= time {
            return Err(Damaged("times that do not ascend"));
        }
        time = next;
        times.push(time);
    }
    Ok(times)
}

#[cfg(test)]
mod test {
    use super::*;
    use proptest::prelude::*;

    fn packed(numbers: &[i64]) -> Vec<u8> {
        let mut out = Vec::new();
        put_numbers(&mut out, numbers);
        out
    }

    #[test]
    fn what_is_regular_takes_a_few_bytes() {
        assert!(packed(&vec![123_456_789; 1000]).len() <= 6);
        assert!(packed(&(0..1000).map(|n| n * 77).collect::<Vec<_>>()).len() <= 6);
        let mut times = Vec::new();
        put_times(
            &mut times,
            &(0..1000).map(|n| 1_700_000_000_000_000_000 + n * 1_000_000_000).collect::<Vec<_>>(),
        );
        assert!(times.len() < 20);
        let jitter = |n: i64| 1_700_000_000_000_000_000 + n * 10_000_000_000 + n * 7 % 3 * 1_000_000;
        let mut times = Vec::new();
        put_times(&mut times, &(0..360).map(jitter).collect::<Vec<_>>());
        assert!(times.len() < 360 / 2, "a jitter of some milliseconds takes some bits a row, not bytes");
    }

    fn sequence() -> impl Strategy<Value = Vec<i64>> {
        prop_oneof![
            prop::collection::vec(any::<i64>(), 0..200),
            prop::collection::vec(-5i64..5, 0..300),
            (any::<i64>(), any::<i64>(), 0usize..300).prop_map(|(first, step, count)| {
                (0..).take(count).map(|n| first.wrapping_add(step.wrapping_mul(n))).collect()
            }),
            prop::collection::vec(0i64..1000, 0..300).prop_map(|steps| {
                let mut sum = 0;
                steps
                    .into_iter()
                    .map(|step| {
                        sum += step;
                        sum
                    })
                    .collect()
            }),
        ]
    }

    proptest! {
        #[test]
        fn numbers_are_read_back(numbers in sequence()) {
            let bytes = packed(&numbers);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(super::numbers(&mut reader, numbers.len()), Ok(numbers));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn times_are_read_back(times in prop::collection::btree_set(any::<i64>(), 1..200)) {
            let times: Vec<i64> = times.into_iter().collect();
            let mut bytes = Vec::new();
            put_times(&mut bytes, &times);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(super::times(&mut reader, times.len()), Ok(times));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn any_bytes_are_refused_or_read_without_panic(bytes: Vec<u8>, count in 0usize..300) {
            let _ = numbers(&mut Reader::new(&bytes), count);
            let _ = times(&mut Reader::new(&bytes), count);
        }
    }
}
