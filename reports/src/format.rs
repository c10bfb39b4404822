//! Numbers for people.

/// Returns an integer with thousands separators: `67,200`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Returns a number with three significant digits, without an exponent where that stays short: `0.0123`, `1.23`,
/// `12.3`, `1,230`, `1.23·10⁻⁶`.
pub(crate) fn significant(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return if value == 0.0 { "0".to_owned() } else { format!("{value}") };
    }
    // Rounded first: 9.996 has one digit more before the point than its logarithm says.
    let rounded: f64 = format!("{value:.2e}").parse().unwrap_or(value);
    let exponent = rounded.abs().log10().floor() as i32;
    match exponent {
        -3..3 => format!("{rounded:.*}", (2 - exponent) as usize),
        3..7 => {
            let sign = if rounded < 0.0 { "−" } else { "" };
            format!("{sign}{}", count(rounded.abs() as u64))
        }
        _ => format!("{:.2}·{}", rounded / 10f64.powi(exponent), power_of_ten(exponent)),
    }
}

/// Returns a round number, such as a tick's, without needless digits: `0.2`, `30`, `10⁻⁶`, `5·10⁻⁶`.
pub(crate) fn round(value: f64) -> String {
    let text = significant(value);
    let (number, power) = match text.split_once('·') {
        Some((number, power)) => (number, Some(power)),
        None => (text.as_str(), None),
    };
    let number =
        if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number };
    match power {
        Some(power) if number == "1" => power.to_owned(),
        Some(power) => format!("{number}·{power}"),
        None => number.to_owned(),
    }
}

/// Returns `10⁻⁶` for -6.
pub(crate) fn power_of_ten(exponent: i32) -> String {
    const SUPERSCRIPTS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let digits = exponent.to_string();
    let raised = digits.chars().map(|c| match c.to_digit(10) {
        Some(digit) => SUPERSCRIPTS[digit as usize],
        None => '⁻',
    });
    "10".chars().chain(raised).collect()
}

/// Returns a time given in microseconds in the unit that keeps it short: `812 µs`, `12.3 ms`, `1.20 s`.
pub(crate) fn time(us: f64) -> String {
    if us < 999.5 {
        format!("{} µs", significant(us))
    } else if us < 999_500.0 {
        format!("{} ms", significant(us / 1e3))
    } else {
        format!("{} s", significant(us / 1e6))
    }
}

/// Returns an interval of times given in microseconds with one unit, that of its upper end: `11.9–12.8 ms`.
pub(crate) fn time_range(low_us: f64, high_us: f64) -> String {
    let high = time(high_us);
    let scale = match high.rsplit(' ').next() {
        Some("s") => 1e6,
        Some("ms") => 1e3,
        _ => 1.0,
    };
    format!("{}–{high}", significant(low_us / scale))
}

/// Returns a ratio as a percentage: `21.4 %`.
pub(crate) fn percent(ratio: f64) -> String {
    format!("{:.1} %", ratio * 100.0)
}

/// Returns `singular` or `plural` behind its number.
pub(crate) fn plural(n: usize, singular: &str, plural: &str) -> String {
    format!("{} {}", count(n as u64), if n == 1 { singular } else { plural })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits_and_short_forms() {
        let cases = [
            (0.0, "0"),
            (0.001234, "0.00123"),
            (0.9996, "1.00"),
            (1.0, "1.00"),
            (9.996, "10.0"),
            (12.34, "12.3"),
            (999.6, "1,000"),
            (1234.0, "1,230"),
            (-1234.0, "−1,230"),
            (1.234e-6, "1.23·10⁻⁶"),
            (1.5e9, "1.50·10⁹"),
        ];
        for (value, text) in cases {
            assert_eq!(significant(value), text);
        }
    }

    #[test]
    fn round_numbers_lose_their_zeros() {
        let cases =
            [(0.2, "0.2"), (30.0, "30"), (1.5, "1.5"), (1e-6, "10⁻⁶"), (5e-6, "5·10⁻⁶"), (2000.0, "2,000")];
        for (value, text) in cases {
            assert_eq!(round(value), text);
        }
    }

    #[test]
    fn times_choose_their_unit() {
        assert_eq!(time(0.51), "0.510 µs");
        assert_eq!(time(999.6), "1.00 ms");
        assert_eq!(time(12_345.0), "12.3 ms");
        assert_eq!(time(2_000_000.0), "2.00 s");
        assert_eq!(time_range(950.0, 1_050.0), "0.950–1.05 ms");
    }

    #[test]
    fn counts_are_grouped_by_three() {
        assert_eq!(
            [0, 999, 1_000, 67_200, 1_234_567].map(count),
            ["0", "999", "1,000", "67,200", "1,234,567"]
        );
        assert_eq!(plural(1, "row", "rows"), "1 row");
        assert_eq!(plural(2, "row", "rows"), "2 rows");
    }
}
