//! Points of time as SAML writes them.

/// Milliseconds since 1970-01-01T00:00:00Z of an `xs:dateTime` in UTC (saml-core-2.0-os §1.3.3): four digits of year,
/// `Z` and no other zone, no leap second. Digits of seconds beyond the third are dropped.
pub fn unix_ms(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z')?.as_bytes();
    let (whole, fraction) = text.split_at_checked(19)?;
    let number = |from: usize, len: usize| {
        let digits = &whole[from..from + len];
        let digit = |sum: i64, digit: &u8| digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0'));
        digits.iter().try_fold(0, digit)
    };
    if [4, 7, 10, 13, 16].map(|at| whole[at]) != *b"--T::" {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if year == 0 || !(1..=days_in_month).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let milliseconds = match fraction {
        [] => 0,
        [b'.', digits @ ..] if (1..=12).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit) => {
            (0..3).fold(0, |sum, at| sum * 10 + i64::from(digits.get(at).map_or(0, |digit| digit - b'0')))
        }
        _ => return None,
    };
    // Days since 1970 of a year that begins in March, whose last month is the one with leap days.
    let (march_year, march_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days_before_year = march_year * 365 + march_year / 4 - march_year / 100 + march_year / 400;
    let days = days_before_year + (march_month * 153 + 2) / 5 + day - 1 - 719_468;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + milliseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_what_a_calendar_says() {
        assert_eq!(unix_ms("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(unix_ms("2000-02-29T12:34:56.789123Z"), Some(951_827_696_789));
        assert_eq!(unix_ms("2026-11-21T23:59:59.5Z"), Some(1_795_305_599_500));
        assert_eq!(unix_ms("1969-12-31T23:59:59Z"), Some(-1000));
    }

    #[test]
    fn what_is_no_instant_in_utc_is_none() {
        for text in [
            "",
            "Z",
            "2026-11-21T23:59:59",
            "2026-11-21T23:59:59+00:00",
            "2026-11-21 23:59:59Z",
            "2026-11-31T23:59:59Z",
            "2025-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T23:59:60Z",
            "2026-11-21T23:59:59.Z",
            "12026-11-21T23:59:59Z",
            "-026-11-21T23:59:59Z",
            "2026-11-21T23:59:5æZ",
        ] {
            assert_eq!(unix_ms(text), None, "{text}");
        }
    }
}
