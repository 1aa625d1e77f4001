//! Durations and sizes as people write them: a whole number with its unit.

use std::time::Duration;

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
