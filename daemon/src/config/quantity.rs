//! Durations and sizes as people write them, a whole number with its unit; moments as RFC 3339 has them.

use std::time::Duration;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// `250ms`, `5s`, `10m`, `2h`, `1d`, also `us`; one number, one unit.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let unit_us: u64 = match unit {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return None,
    };
    number.checked_mul(unit_us).map(Duration::from_micros)
}

/// `512B`, `64KiB`, `1MiB`, `2GiB`.
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let unit_bytes: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit_bytes)
}

/// A duration as [`duration`] reads it, in its largest whole unit.
pub(super) fn duration_text(duration: Duration) -> String {
    let us = duration.as_micros();
    let units = [(86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1_000, "ms")];
    let unit = units.into_iter().find(|(unit_us, _)| us != 0 && us.is_multiple_of(*unit_us));
    let (unit_us, unit) = unit.unwrap_or((1, "us"));
    format!("{}{unit}", us / unit_us)
}

/// A size as [`size`] reads it, in its largest whole unit.
pub(super) fn size_text(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units.into_iter().find(|(unit_bytes, _)| bytes != 0 && bytes.is_multiple_of(*unit_bytes));
    let (unit_bytes, unit) = unit.unwrap_or((1, "B"));
    format!("{}{unit}", bytes / unit_bytes)
}

/// `2027-01-01T00:00:00Z` (RFC 3339): in UTC and to the second, so that it means one thing to every reader. Seconds since
/// 1970.
pub(super) fn instant(text: &str) -> Option<i64> {
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    (moment.offset().is_utc() && moment.nanosecond() == 0).then(|| moment.unix_timestamp())
}

/// A moment as [`instant`] reads it.
pub(super) fn instant_text(unix_s: i64) -> String {
    let moment = OffsetDateTime::from_unix_timestamp(unix_s).ok();
    moment.and_then(|moment| moment.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{unix_s} s after 1970"))
}

fn split(text: &str) -> Option<(u64, &str)> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    Some((number.parse().ok()?, unit.strip_prefix(' ').unwrap_or(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read_with_their_unit_only() {
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("5 s"), Some(Duration::from_secs(5)));
        assert_eq!(duration("0s"), Some(Duration::ZERO));
        assert_eq!(duration("2d"), Some(Duration::from_secs(172_800)));
        assert_eq!(size("64KiB"), Some(65_536));
        assert_eq!(size("512 B"), Some(512));
        for wrong in
            ["", "5", "s", "-5s", "5.5s", "5sec", "5KB", "5 ", "99999999999999999999s", "18446744073709551615d"]
        {
            assert_eq!(duration(wrong), None, "{wrong}");
            assert_eq!(size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn moments_are_read_in_utc_and_to_the_second_only() {
        assert_eq!(instant("1970-01-01T00:00:01Z"), Some(1));
        assert_eq!(instant("2027-01-01T00:00:00Z"), Some(1_798_761_600));
        assert_eq!(instant_text(1_798_761_600), "2027-01-01T00:00:00Z");
        for wrong in [
            "",
            "2027-01-01",
            "2027-01-01T00:00:00",
            "2027-01-01T00:00:00.5Z",
            "2027-01-01T01:00:00+01:00",
            "2027-02-29T00:00:00Z",
            "2016-12-31T23:59:60Z",
        ] {
            assert_eq!(instant(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        for us in [0, 1, 999, 1_000, 250_000, 5_000_000, 90_000_000, 3_600_000_000, 172_800_000_000] {
            let value = Duration::from_micros(us);
            assert_eq!(duration(&duration_text(value)), Some(value));
        }
        for bytes in [0, 1, 1023, 1024, 1536, 1 << 20, 3 << 30] {
            assert_eq!(size(&size_text(bytes)), Some(bytes));
        }
    }
}
