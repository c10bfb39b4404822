//! Numbers as people read them.

/// Sends logs to stderr: errors, or what NABLA_LOG says (error, warn, info, debug, trace, off).
pub(crate) fn start_logs() {
    let level = std::env::var("NABLA_LOG").ok().and_then(|text| text.parse().ok());
    tracing_subscriber::fmt()
        .with_max_level(level.unwrap_or(tracing::level_filters::LevelFilter::ERROR))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
}

/// Writes microseconds with a fitting unit, three significant digits; NaN comes from a device without time.
pub(crate) fn time(us: f64) -> String {
    if us.is_nan() {
        return "not timed".to_owned();
    }
    let (value, unit) = match us {
        us if us < 1e3 => (us, "µs"),
        us if us < 1e6 => (us / 1e3, "ms"),
        us => (us / 1e6, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

/// Writes a ratio as a percentage.
pub(crate) fn percent(ratio: f64) -> String {
    format!("{:.1} %", ratio * 100.0)
}

/// Writes a small error in scientific notation.
pub(crate) fn error(value: f64) -> String {
    format!("{value:.2e}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_fitting_units() {
        assert_eq!(time(12.34), "12.3 µs");
        assert_eq!(time(1234.0), "1.23 ms");
        assert_eq!(time(123_456.0), "123 ms");
        assert_eq!(time(2_500_000.0), "2.50 s");
        assert_eq!(time(f64::NAN), "not timed");
    }
}
