//! Writes the report: figures, CSV and one HTML page that needs nothing else.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::collection::{Collection, DeviceRecords};
use crate::figures::{self, Draw, Figure};
use crate::page::{self, DeviceFigures, ShownFigure};
use crate::scene::Plotted;
use crate::scene::render::{self, DrawError};
use crate::table::write_csv;

/// What a report wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportFiles {
    /// The page: one file that opens anywhere, without a network.
    pub html: PathBuf,
    /// Every record as CSV.
    pub csv: PathBuf,
    /// The figures that were drawn.
    pub figures: Vec<FigureFiles>,
    /// Titles of figures that were not drawn, each with one sentence saying why.
    pub left_out: Vec<(String, String)>,
}

/// The files of a figure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FigureFiles {
    /// What it shows, in a few words.
    pub title: String,
    /// Pixels.
    pub png: PathBuf,
    /// Vectors.
    pub svg: PathBuf,
    /// Exactly the plotted numbers.
    pub csv: PathBuf,
}

/// Why a report could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The system refused.
    #[error("{path}: cannot write: {source}; check permissions and free space, or give another folder")]
    Io {
        /// What was being written.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A figure could not be drawn.
    #[error("{path}: cannot draw: {source}")]
    Draw {
        /// The file.
        path: PathBuf,
        /// What the drawing backend said.
        source: DrawError,
    },
    /// The CSV could not be written.
    #[error("{path}: cannot write: {source}; check permissions and free space, or give another folder")]
    Csv {
        /// The file.
        path: PathBuf,
        /// What the CSV writer said.
        source: csv::Error,
    },
    /// The page could not be filled in.
    #[error("{path}: cannot fill in the page: {source}")]
    Page {
        /// The file.
        path: PathBuf,
        /// What the template said.
        source: askama::Error,
    },
}

/// Writes `report.html`, `records.csv` and `figures/*.png|svg|csv` into the folder, which is made if need be.
///
/// Figures of several devices get a folder each under `figures/`. Files of an earlier report are replaced; those of a
/// figure that is no longer drawn are removed. The page has the figures and the records inside and loads nothing.
pub fn write_report(all: &Collection, out: &Path) -> Result<ReportFiles, ReportError> {
    let folder = out.join("figures");
    fs::create_dir_all(&folder).map_err(io(&folder))?;

    let csv = out.join("records.csv");
    let file = File::create(&csv).map_err(io(&csv))?;
    write_csv(all.records(), BufWriter::new(file))
        .map_err(|source| ReportError::Csv { path: csv.clone(), source })?;

    let (drawn, mask_figure) = draw_all(all, &folder)?;
    let mut files = Vec::new();
    let mut left_out = Vec::new();
    let mut sections = Vec::new();
    let several = all.devices.len() > 1;
    let mut sort = |figures: Vec<Drawn>, device: Option<&DeviceRecords>| {
        let mut shown = Vec::new();
        for Drawn { figure, files: written, svg } in figures {
            let title = match device.filter(|_| several) {
                Some(device) => format!("{} on {}", figure.title, device.device),
                None => figure.title.to_owned(),
            };
            if let Err(why_not) = &figure.why_not {
                left_out.push((title.clone(), why_not.clone()));
            }
            files.extend(written.map(|files| FigureFiles { title, ..files }));
            let why_not = figure.why_not.err().unwrap_or_default();
            let file = figure.name;
            shown.push(ShownFigure { title: figure.title, caption: figure.caption, svg, why_not, file });
        }
        shown
    };
    for (device, figures) in all.devices.iter().zip(drawn) {
        let name = several.then(|| format!("{} ({})", device.device, device.backend));
        sections.push(DeviceFigures { name, figures: sort(figures, Some(device)) });
    }
    if let Some(drawn) = mask_figure {
        sections.push(DeviceFigures { name: None, figures: sort(vec![drawn], None) });
    }
    remove_stale(&folder, &files)?;

    let html = out.join("report.html");
    let page =
        page::render(all, sections).map_err(|source| ReportError::Page { path: html.clone(), source })?;
    fs::write(&html, page).map_err(io(&html))?;
    Ok(ReportFiles { html, csv, figures: files, left_out })
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> ReportError {
    let path = path.to_owned();
    move |source| ReportError::Io { path, source }
}

/// A figure without its picture, which is written already.
struct Facts {
    name: &'static str,
    title: &'static str,
    caption: String,
    why_not: Result<(), String>,
}

struct Drawn {
    figure: Facts,
    files: Option<FigureFiles>,
    svg: Option<String>,
}

type AllDrawn = (Vec<Vec<Drawn>>, Option<Drawn>);

/// Draws every figure of every device, on as many threads as there are cores.
fn draw_all(all: &Collection, folder: &Path) -> Result<AllDrawn, ReportError> {
    let mut jobs: Vec<(usize, PathBuf, Draw)> = Vec::new();
    let mut taken = BTreeSet::new();
    for (n, device) in all.devices.iter().enumerate() {
        let mut own = folder.to_owned();
        if all.devices.len() > 1 {
            own.push(folder_name(device, &mut taken));
            fs::create_dir_all(&own).map_err(io(&own))?;
        }
        jobs.extend(figures::called_for(device).into_iter().map(|draw| (n, own.clone(), draw)));
    }
    let results: Vec<Mutex<Option<Result<Drawn, ReportError>>>> =
        jobs.iter().map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((n, (device, folder, draw))) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|n| Some((n, jobs.get(n)?)))
        {
            let device = &all.devices[*device];
            let drawn = write_figure(draw(device), &device.foot, folder);
            // Nothing panics while it holds this lock.
            *results[n].lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(drawn);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let mut drawn: Vec<Vec<Drawn>> = all.devices.iter().map(|_| Vec::new()).collect();
    for ((device, ..), result) in jobs.iter().zip(results) {
        let result = result.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        drawn[*device].extend(result.transpose()?);
    }
    let masks = match all.masks.is_empty() {
        true => None,
        false => Some(write_figure(figures::block_masks(&all.masks), "", folder)?),
    };
    Ok((drawn, masks))
}

/// Returns the folder of a device's figures: letters, digits and dashes of its name.
fn folder_name(device: &DeviceRecords, taken: &mut BTreeSet<String>) -> String {
    let name = format!("{} {}", device.device, device.backend).to_lowercase();
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let name: String = words.collect::<Vec<_>>().join("-").chars().take(60).collect();
    let mut unique = name.clone();
    let mut n = 1;
    while !taken.insert(unique.clone()) {
        n += 1;
        unique = format!("{name}-{n}");
    }
    unique
}

/// Writes the files of a figure, if it has a picture.
fn write_figure(figure: Figure, foot: &str, folder: &Path) -> Result<Drawn, ReportError> {
    let Figure { name, title, caption, picture } = figure;
    let facts = |why_not| Facts { name, title, caption, why_not };
    let mut scene = match picture {
        Ok(scene) => scene,
        Err(why_not) => return Ok(Drawn { figure: facts(Err(why_not)), files: None, svg: None }),
    };
    if !foot.is_empty() {
        scene.foot(foot);
    }
    let [png, svg, csv] = ["png", "svg", "csv"].map(|end| folder.join(name).with_extension(end));
    let draw = |path: &Path| {
        let path = path.to_owned();
        move |source| ReportError::Draw { path, source }
    };
    let text = render::svg(&scene).map_err(draw(&svg))?;
    fs::write(&svg, &text).map_err(io(&svg))?;
    render::png(&scene, &png).map_err(draw(&png))?;
    write_plotted(&scene.plotted, &csv)?;
    let files = FigureFiles { title: title.to_owned(), png, svg, csv };
    Ok(Drawn { figure: facts(Ok(())), files: Some(files), svg: Some(text) })
}

fn write_plotted(plotted: &Plotted, path: &Path) -> Result<(), ReportError> {
    let write = || -> Result<(), csv::Error> {
        let mut writer = csv::Writer::from_path(path)?;
        writer.write_record(&plotted.columns)?;
        for row in &plotted.rows {
            writer.write_record(row)?;
        }
        Ok(writer.flush()?)
    };
    write().map_err(|source| ReportError::Csv { path: path.to_owned(), source })
}

/// Removes the files of figures that an earlier report drew and this one does not.
fn remove_stale(folder: &Path, written: &[FigureFiles]) -> Result<(), ReportError> {
    let kept: BTreeSet<&Path> =
        written.iter().flat_map(|f| [f.png.as_path(), f.svg.as_path(), f.csv.as_path()]).collect();
    let entries = |folder: &Path| -> Result<Vec<PathBuf>, ReportError> {
        let found = fs::read_dir(folder).map_err(io(folder))?;
        Ok(found.filter_map(|entry| Some(entry.ok()?.path())).collect())
    };
    let mut files = entries(folder)?;
    for own in files.clone().iter().filter(|path| path.is_dir()) {
        files.extend(entries(own)?);
    }
    for path in files {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let ours = figures::NAMES.contains(&stem)
            && path.extension().is_some_and(|end| ["png", "svg", "csv"].iter().any(|ours| end == *ours));
        if ours && !kept.contains(path.as_path()) {
            fs::remove_file(&path).map_err(io(&path))?;
        }
    }
    Ok(())
}
