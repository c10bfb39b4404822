//! The embedded font: figures look the same on every machine and need no system fonts.

use std::sync::LazyLock;

use plotters::style::{FontDesc, FontFamily, FontStyle, register_font};

/// The name it is registered under. SVG files carry this name, so that a viewer takes its own sans-serif.
pub(super) const FAMILY: FontFamily<'static> = FontFamily::SansSerif;

/// Whether both faces could be registered: they are part of the program, so only a broken build can fail.
static REGISTERED: LazyLock<bool> = LazyLock::new(|| {
    let regular = include_bytes!("../../assets/DejaVuSans-subset.ttf");
    let bold = include_bytes!("../../assets/DejaVuSans-Bold-subset.ttf");
    register_font(FAMILY.as_str(), FontStyle::Normal, regular).is_ok()
        && register_font(FAMILY.as_str(), FontStyle::Bold, bold).is_ok()
});

/// Makes the font known to the drawing backends; returns whether that worked.
pub(super) fn register() -> bool {
    *REGISTERED
}

/// Ascent plus descent of DejaVu Sans in em: (1901 + 483) / 2048. The rasteriser's sizes are heights of a line.
pub(super) const LINE_HEIGHT_EM: f64 = 2384.0 / 2048.0;

/// Returns the width of a text whose em is `size` pixels.
pub(crate) fn width(text: &str, size: f64, bold: bool) -> f64 {
    // Layout boxes are whole pixels: measure large.
    const ZOOM: f64 = 16.0;
    let style = if bold { FontStyle::Bold } else { FontStyle::Normal };
    let font = FontDesc::new(FAMILY, size * LINE_HEIGHT_EM * ZOOM, style);
    match register().then(|| font.layout_box(text)) {
        Some(Ok((_, (right, _)))) => f64::from(right) / ZOOM,
        // No letter of a sans-serif is much wider than its average of 0.6 em.
        _ => text.chars().count() as f64 * size * 0.6,
    }
}

/// Returns the text, cut and ended with an ellipsis if it is wider than `room`.
pub(crate) fn shorten(text: &str, size: f64, bold: bool, room: f64) -> String {
    if width(text, size, bold) <= room {
        return text.to_owned();
    }
    let mut kept: Vec<char> = text.chars().take(400).collect();
    while kept.pop().is_some() {
        let cut: String = kept.iter().collect::<String>().trim_end().to_owned() + "…";
        if width(&cut, size, bold) <= room {
            return cut;
        }
    }
    "…".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_measured_in_the_embedded_font() {
        assert!(register());
        // DejaVu Sans' digits are 1303 of 2048 units wide.
        assert!((width("0000", 16.0, false) - 4.0 * 16.0 * 1303.0 / 2048.0).abs() < 0.1);
        assert!(width("0000", 16.0, true) > width("0000", 16.0, false));
    }

    #[test]
    fn every_sign_the_figures_use_is_in_both_faces() {
        // A missing glyph is drawn as a box, as wide as that of a private-use character.
        let missing = |bold| width("\u{e000}", 100.0, bold);
        for bold in [false, true] {
            for sign in "×·–−≤≥±µ…⁻⁰¹²³⁴⁵⁶⁷⁸⁹Θαβ→".chars() {
                assert_ne!(width(&sign.to_string(), 100.0, bold), missing(bold), "{sign}");
            }
        }
    }

    #[test]
    fn long_texts_end_in_an_ellipsis_within_the_room() {
        let long = "a device name that goes on and on and on";
        let cut = shorten(long, 12.0, false, 100.0);
        assert!(cut.ends_with('…') && width(&cut, 12.0, false) <= 100.0, "{cut}");
        assert_eq!(shorten("short", 12.0, false, 100.0), "short");
    }
}
