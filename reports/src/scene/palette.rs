//! Colours that people with any kind of colour vision can tell apart.

/// Red, green, blue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Color(pub(crate) u8, pub(crate) u8, pub(crate) u8);

/// Text and axes. The page gives INK, MUTED, GRID, HATCH and PAPER other values in its dark scheme; no data colour may
/// equal one of them.
pub(crate) const INK: Color = Color(0x1c, 0x1f, 0x24);
/// Lesser text.
pub(crate) const MUTED: Color = Color(0x5b, 0x62, 0x6b);
/// Grid lines.
pub(crate) const GRID: Color = Color(0xe3, 0xe5, 0xe8);
/// Strokes in cells without a value.
pub(crate) const HATCH: Color = Color(0xb4, 0xb9, 0xc0);
/// Background.
pub(crate) const PAPER: Color = Color(0xff, 0xff, 0xff);
/// Text on a dark cell, in either scheme.
pub(crate) const ON_DARK: Color = Color(0xfe, 0xfe, 0xfe);
/// Text on a light cell, in either scheme.
pub(crate) const ON_LIGHT: Color = Color(0x00, 0x00, 0x00);

/// Okabe and Ito's palette (Color Universal Design, 2008) without black, which is INK, and without yellow, which is
/// too faint on white.
const SERIES: [Color; 6] = [
    Color(0x00, 0x72, 0xb2),
    Color(0xd5, 0x5e, 0x00),
    Color(0x00, 0x9e, 0x73),
    Color(0xcc, 0x79, 0xa7),
    Color(0xe6, 0x9f, 0x00),
    Color(0x56, 0xb4, 0xe9),
];

/// Returns the colour of the n-th series; they repeat after six, markers after five.
pub(crate) fn series(n: usize) -> Color {
    SERIES[n % SERIES.len()]
}

/// Cividis (Nuñez, Anderton, Renslow 2018) at even steps: perceptually uniform with any colour vision.
const SEQUENTIAL: [Color; 6] = [
    Color(0x00, 0x22, 0x4e),
    Color(0x35, 0x45, 0x6c),
    Color(0x66, 0x69, 0x70),
    Color(0x94, 0x8e, 0x77),
    Color(0xc8, 0xb8, 0x66),
    Color(0xfe, 0xe8, 0x38),
];

/// Returns the colour of a value from 0 (dark blue) to 1 (yellow).
pub(crate) fn sequential(value: f64) -> Color {
    let place = value.clamp(0.0, 1.0) * (SEQUENTIAL.len() - 1) as f64;
    let below = (place as usize).min(SEQUENTIAL.len() - 2);
    mix(SEQUENTIAL[below], SEQUENTIAL[below + 1], place - below as f64)
}

/// Returns the colour between two, `share` of the way to the second.
pub(crate) fn mix(a: Color, b: Color, share: f64) -> Color {
    let channel = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * share).round() as u8;
    Color(channel(a.0, b.0), channel(a.1, b.1), channel(a.2, b.2))
}

/// Returns the text colour that can be read on a cell of the given colour.
pub(crate) fn text_on(cell: Color) -> Color {
    if contrast(cell, ON_LIGHT) > contrast(cell, ON_DARK) { ON_LIGHT } else { ON_DARK }
}

/// Returns the contrast ratio as WCAG 2 defines it, 1 to 21.
fn contrast(a: Color, b: Color) -> f64 {
    let (a, b) = (luminance(a) + 0.05, luminance(b) + 0.05);
    a.max(b) / a.min(b)
}

/// Returns the relative luminance as WCAG 2 defines it, 0 to 1.
fn luminance(color: Color) -> f64 {
    let linear = |c: u8| {
        let c = f64::from(c) / 255.0;
        if c <= 0.040_45 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * linear(color.0) + 0.7152 * linear(color.1) + 0.0722 * linear(color.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_on_every_cell_colour_has_contrast_of_four_and_a_half() {
        for step in 0..=100 {
            let cell = sequential(f64::from(step) / 100.0);
            let contrast = contrast(cell, text_on(cell));
            assert!(contrast >= 4.5, "{cell:?}: {contrast}");
        }
    }

    #[test]
    fn data_colours_differ_from_those_the_dark_scheme_replaces() {
        let replaced = [INK, MUTED, GRID, HATCH, PAPER];
        assert!((0..SERIES.len()).all(|n| !replaced.contains(&series(n))));
        assert!((0..=1000).all(|n| !replaced.contains(&sequential(f64::from(n) / 1000.0))));
        assert!(!replaced.contains(&ON_DARK) && !replaced.contains(&ON_LIGHT));
    }
}
