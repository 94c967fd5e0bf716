//! Numbers, dates and durations as people read them. All dates are in UTC.

use time::OffsetDateTime;

use crate::message::UnixNs;

/// A number in groups of three: `1 204 903`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

/// A number and what it counts: `1 row`, `2 rows`.
#[must_use]
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// How long something took: `840 µs`, `3.1 ms`, `41.2 s`, `12 min`, `3 h 05 min`.
#[must_use]
pub fn duration(duration_us: u64) -> String {
    let tenths = |unit_us: u64, name: &str| {
        let tenths = duration_us / (unit_us / 10);
        if tenths < 100 {
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        } else {
            format!("{} {name}", tenths / 10)
        }
    };
    match duration_us {
        0..1_000 => format!("{duration_us} µs"),
        1_000..1_000_000 => tenths(1_000, "ms"),
        1_000_000..60_000_000 => tenths(1_000_000, "s"),
        _ => age(duration_us / 1_000_000),
    }
}

/// How long ago, or how long: `12 s`, `5 min`, `3 h 05 min`, `4 days`.
#[must_use]
pub fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h {:02} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} days", grouped(seconds / 86_400)),
    }
}

/// A place in a replay: `04:12`, `1:02:00`.
#[must_use]
pub fn play_time(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes:02}:{seconds:02}")
    }
}

/// A size: `840 B`, `3.1 kB`, `1.2 GB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0..1_000 => return format!("{bytes} B"),
        1_000..1_000_000 => (1_000, "kB"),
        1_000_000..1_000_000_000 => (1_000_000, "MB"),
        _ => (1_000_000_000, "GB"),
    };
    let tenths = bytes / (unit / 10);
    if tenths < 100 {
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    } else {
        format!("{} {name}", tenths / 10)
    }
}

/// The time of day: `14:02:07`, with milliseconds `14:02:07.113`.
#[must_use]
pub fn clock(at_ns: UnixNs, milliseconds: bool) -> String {
    let at = moment(at_ns);
    let (hour, minute, second) = at.to_hms();
    if milliseconds {
        format!("{hour:02}:{minute:02}:{second:02}.{:03}", at.millisecond())
    } else {
        format!("{hour:02}:{minute:02}:{second:02}")
    }
}

/// Day and minute: `22 Nov 14:02`, with the year instead of the time where it is not this year's: `22 Nov 2025`.
#[must_use]
pub fn day_and_minute(at_ns: UnixNs, now_ns: UnixNs) -> String {
    let at = moment(at_ns);
    if at.year() != moment(now_ns).year() {
        return format!("{:2} {} {}", at.day(), month(at), at.year());
    }
    format!("{:2} {} {:02}:{:02}", at.day(), month(at), at.hour(), at.minute())
}

/// In full: `22 Nov 2026 14:02:07.113402 UTC`.
#[must_use]
pub fn full_date(at_ns: UnixNs) -> String {
    let at = moment(at_ns);
    let (hour, minute, second, microsecond) = at.to_hms_micro();
    format!("{} {} {} {hour:02}:{minute:02}:{second:02}.{microsecond:06} UTC", at.day(), month(at), at.year())
}

/// As a machine reads it: `2026-11-22T14:02:07.113402000Z`.
#[must_use]
pub fn rfc3339(at_ns: UnixNs) -> String {
    let at = moment(at_ns);
    let (hour, minute, second, nanosecond) = at.to_hms_nano();
    let (year, month, day) = at.to_calendar_date();
    format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanosecond:09}Z", u8::from(month))
}

fn month(at: OffsetDateTime) -> &'static str {
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        [usize::from(u8::from(at.month()) - 1)]
}

/// Every 64-bit count of nanoseconds is a date before the year 2555.
fn moment(at_ns: UnixNs) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at_ns)).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_NS: u64 = 1_795_356_127_113_402_005;

    #[test]
    fn figures_read_well() {
        assert_eq!([0, 999, 1_000, 1_204_903].map(grouped), ["0", "999", "1 000", "1 204 903"]);
        assert_eq!(
            [7, 1_040, 3_100, 41_200, 999_999].map(duration),
            ["7 µs", "1.0 ms", "3.1 ms", "41 ms", "999 ms"]
        );
        assert_eq!([1_500_000, 41_000_000, 720_000_000].map(duration), ["1.5 s", "41 s", "12 min"]);
        assert_eq!([12, 300, 11_100, 400_000].map(age), ["12 s", "5 min", "3 h 05 min", "4 days"]);
        assert_eq!([0, 999, 3_140, 1_000_000_000].map(size), ["0 B", "999 B", "3.1 kB", "1.0 GB"]);
        assert_eq!(play_time(3_725_000_000_000), "1:02:05");
    }

    #[test]
    fn dates_are_utc_and_never_fail() {
        assert_eq!(clock(AT_NS, true), "14:02:07.113");
        assert_eq!(day_and_minute(AT_NS, AT_NS), "22 Nov 14:02");
        assert_eq!(day_and_minute(0, AT_NS), " 1 Jan 1970");
        assert_eq!(full_date(AT_NS), "22 Nov 2026 14:02:07.113402 UTC");
        assert_eq!(rfc3339(AT_NS), "2026-11-22T14:02:07.113402005Z");
        assert_eq!(rfc3339(u64::MAX).len(), 30);
    }
}
