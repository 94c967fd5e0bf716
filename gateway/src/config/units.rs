//! How durations, sizes and shares are spelled: one whole number and one unit (`15m`, `64MiB`, `20%`).

use std::time::Duration;

const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZE_UNITS: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Reads `250ms`, `30s`, `15m`, `8h`, `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    scaled(text, &DURATION_UNITS)
        .map(Duration::from_millis)
        .ok_or_else(|| String::from("a whole number and a unit: 250ms, 30s, 15m, 8h, 7d"))
}

/// Reads `512B`, `64KiB`, `16MiB`, `1GiB` as bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    scaled(text, &SIZE_UNITS)
        .ok_or_else(|| String::from("a whole number and a unit: 512B, 64KiB, 16MiB, 1GiB"))
}

/// Reads `20%` as 20.
pub(super) fn percent(text: &str) -> Result<u8, String> {
    scaled(text, &[("%", 1)])
        .and_then(|value| u8::try_from(value).ok())
        .filter(|value| *value <= 100)
        .ok_or_else(|| String::from("a whole share from 0% to 100%"))
}

/// One spelling: digits without sign, blank or leading zero, then the unit; nothing that overflows.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.len() > 1 && number.starts_with('0') {
        return None;
    }
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_and_one_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(percent("20%"), Ok(20));
        for bad in
            ["", "15", "m", "1h30m", "15 m", "-1s", "+1s", "1.5h", "007s", "15M", "99999999999999999d", "1²s"]
        {
            assert!(duration(bad).is_err(), "{bad}");
        }
        for bad in ["64MB", "64M", "64mib", "64", "99999999999GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        for bad in ["101%", "20", "%", "2 %"] {
            assert!(percent(bad).is_err(), "{bad}");
        }
    }
}
