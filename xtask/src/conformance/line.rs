//! Recorded lines against Uni's writer of MirageOS's dialect.
//!
//! Owns the meaning of a case: `name`, `tags` and `fields` as `[key, type, text]`, and the `line` they became.

use anyhow::{Context as _, bail};
use serde_json::Value as Json;
use uni_wire::line::{MirageValue, write_mirage_line};

use super::recorded::stands_for;
use super::{Verdict, list, text};

pub(super) fn judge(case: &Json) -> anyhow::Result<Verdict> {
    let recorded = text(case, "line")?;
    let mut ours = String::new();
    write_mirage_line(&mut ours, text(case, "name")?, pairs(case, "tags")?, pairs(case, "fields")?)?;
    Ok(if stands_for(recorded, ours.as_bytes()) {
        Verdict::Passed
    } else {
        Verdict::Failed(format!("expected {recorded:?}, the line is {ours:?}"))
    })
}

fn pairs<'a>(case: &'a Json, key: &str) -> anyhow::Result<Vec<(&'a str, MirageValue<'a>)>> {
    list(case, key)?
        .iter()
        .map(|entry| {
            let parts: Vec<&str> = entry.as_array().into_iter().flatten().filter_map(Json::as_str).collect();
            let [name, kind, value] = parts[..] else { bail!("{entry} is not [name, type, value]") };
            Ok((name, value_of(kind, value).with_context(|| format!("{key}: {entry}"))?))
        })
        .collect()
}

/// Integers may be given with the sign of another type of the same width, as OCaml prints them: they are reduced to
/// the bits that their type has there.
fn value_of<'a>(kind: &str, value: &'a str) -> anyhow::Result<MirageValue<'a>> {
    Ok(match kind {
        "string" => MirageValue::String(value),
        "bool" => MirageValue::Bool(value.parse()?),
        "float" => MirageValue::Float(value.parse()?),
        "int" => MirageValue::Int(sign_extended(value, 63)?),
        "int32" => MirageValue::Int(sign_extended(value, 32)?),
        "int64" | "duration" => MirageValue::Int(sign_extended(value, 64)?),
        "uint" => MirageValue::Uint(low_bits(value, 63)?),
        "uint32" => MirageValue::Uint(low_bits(value, 32)?),
        "uint64" => MirageValue::Uint(low_bits(value, 64)?),
        "other" | "status" | "custom" => MirageValue::Other(value),
        _ => bail!("no such type: {kind}"),
    })
}

fn low_bits(value: &str, bits: u32) -> anyhow::Result<u64> {
    let low = value.parse::<i128>()?.rem_euclid(1 << bits);
    Ok(u64::try_from(low)?)
}

fn sign_extended(value: &str, bits: u32) -> anyhow::Result<i64> {
    let spare = 64 - bits;
    Ok((low_bits(value, bits)? << spare).cast_signed() >> spare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_the_bits_of_their_types() {
        let value = |kind, text| value_of(kind, text).expect("a good value");
        assert_eq!(value("uint32", "-1"), MirageValue::Uint(4_294_967_295));
        assert_eq!(value("uint", "-1"), MirageValue::Uint(i64::MAX.unsigned_abs()));
        assert_eq!(value("uint64", "-1"), MirageValue::Uint(u64::MAX));
        assert_eq!(value("int", "-4611686018427387904"), MirageValue::Int(-(1 << 62)));
        assert_eq!(value("int32", "-5"), MirageValue::Int(-5));
        assert_eq!(value("int64", "-9223372036854775808"), MirageValue::Int(i64::MIN));
        assert!(value_of("int", "x").is_err() && value_of("complex", "1").is_err());
    }
}
