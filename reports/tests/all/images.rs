//! Figures against pictures of them that someone has looked at, small and with room for other rounding.
//!
//! After a change that is meant, write the pictures anew with `NABLA_UPDATE_IMAGES=1` and look at them.

use std::path::Path;

use image::GrayImage;
use image::imageops::{FilterType, resize};
use nabla_reports::{Collection, write_report};

use crate::synthetic_tuning;

/// Width of a kept picture.
const WIDTH: u32 = 320;
/// Mean difference of a pixel, of 255, that is no change: a moved label is several times that.
const TOLERANCE: f64 = 1.0;

fn small(path: &Path) -> GrayImage {
    let full = image::open(path).unwrap().to_luma8();
    let height = (u64::from(full.height()) * u64::from(WIDTH) / u64::from(full.width())) as u32;
    resize(&full, WIDTH, height, FilterType::Triangle)
}

fn difference(a: &GrayImage, b: &GrayImage) -> f64 {
    if a.dimensions() != b.dimensions() {
        return 255.0;
    }
    let sum: u64 = a.pixels().zip(b.pixels()).map(|(a, b)| u64::from(a.0[0].abs_diff(b.0[0]))).sum();
    sum as f64 / f64::from(a.width() * a.height())
}

#[test]
fn figures_look_as_they_did() {
    let out = tempfile::tempdir().unwrap();
    write_report(&Collection::new(vec![synthetic_tuning::run()]), out.path()).unwrap();
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images");
    for name in ["comparisons", "main_effects", "roofline", "tiles_by_problem", "tuning_convergence"] {
        let drawn = small(&out.path().join("figures").join(name).with_extension("png"));
        let kept = kept.join(name).with_extension("png");
        if std::env::var_os("NABLA_UPDATE_IMAGES").is_some() {
            drawn.save(&kept).unwrap();
        }
        let known = image::open(&kept).unwrap().to_luma8();
        let difference = difference(&drawn, &known);
        assert!(
            difference <= TOLERANCE,
            "{name} differs by {difference:.2} of 255 from tests/images/{name}.png"
        );
    }
}

#[test]
fn a_moved_label_is_a_difference() {
    let mut one = GrayImage::from_pixel(WIDTH, 200, image::Luma([255]));
    let mut other = one.clone();
    // A word of ten letters at this size.
    for (x, y) in (0..60).flat_map(|x| (0..6).map(move |y| (x, y))) {
        one.put_pixel(20 + x, 20 + y, image::Luma([60]));
        other.put_pixel(20 + x, 40 + y, image::Luma([60]));
    }
    assert!(difference(&one, &other) > 2.0 * TOLERANCE);
}
