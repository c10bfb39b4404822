//! `cargo xtask headline`: README's table and picture, made from a results folder and never copied by hand.
//!
//! README.md says between two markers which folder it shows; a test holds what stands there against that folder.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::context::Context;

const README: &str = "README.md";
/// The picture that README shows.
const PICTURE: &str = "docs/images/speedup.png";
const BEGIN: &str = "<!-- headline: ";
const END: &str = "<!-- /headline -->";
/// The shape a campaign's table is about, and the policies it shows.
const SHAPE: &str = "wan-720p";
const POLICIES: [&str; 4] = ["dense", "nabla-0.4", "nabla-0.7", "nabla-0.9"];
/// No peer but a bound: bench/peers compares our sparse with our dense attention.
const BOUND: &str = "our dense x density";

/// Options of the chore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Headline {
    /// The results folder, from the root of the workspace.
    pub(crate) results: PathBuf,
    /// Whether to print the table and leave README alone.
    pub(crate) print: bool,
}

impl Headline {
    /// Reads the options after the chore's name.
    ///
    /// Errors: a sentence that says what is missing or not understood.
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut results, mut print) = (None, false);
        for argument in arguments {
            match argument.as_str() {
                "--print" => print = true,
                flag if flag.starts_with('-') => return Err(format!("unknown option `{flag}` of headline")),
                folder if results.is_none() => results = Some(PathBuf::from(folder)),
                extra => return Err(format!("expected one results folder, got `{extra}` as well")),
            }
        }
        let results = results.ok_or("expected a results folder, such as results/GPU/DATE")?;
        Ok(Self { results, print })
    }

    /// Writes table and picture into README and its images, or prints the table.
    ///
    /// Errors: what cannot be read or written.
    pub(crate) fn write(&self, context: &Context) -> Result<()> {
        let folder = context.root.join(&self.results);
        let table = table_of(&folder)?;
        if self.print {
            print!("{table}");
            return Ok(());
        }
        let readme = context.root.join(README);
        let text =
            fs::read_to_string(&readme).with_context(|| format!("{} cannot be read", readme.display()))?;
        let shown = self.results.to_string_lossy();
        fs::write(&readme, replaced(&text, &shown, &table)?)?;
        println!("{README} shows {shown}");
        match picture_below(&folder) {
            Some(picture) => {
                fs::copy(&picture, context.root.join(PICTURE))?;
                println!("{PICTURE} is {}", picture.display());
            }
            None => println!("{PICTURE} stays: the folder has no figures/speedup_over_sparsity.png"),
        }
        Ok(())
    }
}

/// Makes the table of a results folder from its `peers.csv`.
///
/// Errors: a file that is missing or has no rows to show, or results of a test of the way.
fn table_of(folder: &Path) -> Result<String> {
    let path = folder.join("peers.csv");
    let text = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let environment = fs::read_to_string(folder.join("environment.json")).unwrap_or_default();
    if environment.contains("\"smoke\": true") {
        bail!("{} holds a test of the way on tiny inputs: nothing to show", folder.display());
    }
    let table =
        Table::read(&text).with_context(|| format!("{} is no table of comparisons", path.display()))?;
    let date = folder.file_name().unwrap_or_default().to_string_lossy();
    let rows: Vec<&Vec<String>> = table.rows.iter().filter(|row| table.is_shown(row)).collect();
    let Some(first) = rows.first() else { bail!("{} has no row to show", path.display()) };
    let device = match table.cell(first, "device") {
        "" => format!("{} threads of an {}", table.cell(first, "threads"), table.cell(first, "cpu")),
        device => device.to_owned(),
    };
    let torch = table.cell(first, "torch").split('+').next().unwrap_or_default();
    let mut out =
        format!("| {device}, PyTorch {torch}, {date} | ours | PyTorch | ratio |\n|---|---|---|---|\n");
    for row in rows {
        let number = |name: &str| -> Result<f64> {
            let cell = table.cell(row, name);
            cell.parse().with_context(|| format!("{name}: expected a number, got `{cell}`"))
        };
        let (ours, theirs, ratio) = (number("ours_us_median")?, number("peer_us_median")?, number("ratio")?);
        let interval = match (number("ratio_low"), number("ratio_high")) {
            (Ok(low), Ok(high)) => format!(" ({low:.2}-{high:.2})"),
            _ => String::new(),
        };
        let padded = if table.cell(row, "padded") == "True" { ", on padded blocks" } else { "" };
        out += &format!(
            "| {}, against {}{padded} | {} | {} | {ratio:.2}x{interval} |\n",
            table.cell(row, "comparison"),
            table.cell(row, "peer"),
            milliseconds(ours),
            milliseconds(theirs)
        );
    }
    Ok(out)
}

/// Writes microseconds as milliseconds with three figures.
fn milliseconds(us: f64) -> String {
    let ms = us / 1e3;
    let digits = if ms >= 100.0 {
        0
    } else if ms >= 10.0 {
        1
    } else {
        2
    };
    format!("{ms:.digits$} ms")
}

/// Replaces what stands between the markers.
fn replaced(readme: &str, results: &str, table: &str) -> Result<String> {
    let (before, rest) = readme.split_once(BEGIN).with_context(|| format!("{README} has no `{BEGIN}...`"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("{README} has no `{END}`"))?;
    Ok(format!("{before}{BEGIN}{results} -->\n{table}{END}{after}"))
}

/// Finds the picture of the sweeps.
fn picture_below(folder: &Path) -> Option<PathBuf> {
    let mut entries: Vec<_> =
        fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    entries.sort();
    entries.into_iter().find_map(|path| {
        if path.is_dir() {
            picture_below(&path)
        } else {
            path.ends_with("speedup_over_sparsity.png").then_some(path)
        }
    })
}

/// A CSV file with a header.
struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn read(text: &str) -> Option<Self> {
        let mut lines = text.lines().map(cells);
        let columns = lines.next()?;
        let rows: Vec<Vec<String>> = lines.collect();
        rows.iter().all(|row| row.len() == columns.len()).then_some(Self { columns, rows })
    }

    /// Returns a cell, empty where the file has no such column.
    fn cell<'a>(&self, row: &'a [String], name: &str) -> &'a str {
        self.columns.iter().position(|column| column == name).map_or("", |i| &row[i])
    }

    fn is_shown(&self, row: &[String]) -> bool {
        let is_peer = self.cell(row, "peer") != BOUND;
        // bench/peers has no shapes: all it has is shown.
        let shape = self.cell(row, "shape");
        is_peer && (shape.is_empty() || shape == SHAPE && POLICIES.contains(&self.cell(row, "policy")))
    }
}

/// Splits a line of CSV; quoted cells may hold commas, and quotes twice. No cell of ours holds a line break.
fn cells(line: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                cells.last_mut().expect("one from the start").push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            c => cells.last_mut().expect("one from the start").push(c),
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_understood_and_what_is_missing_is_named() {
        let parsed = |line: &str| Headline::parse(line.split_whitespace().map(str::to_owned));
        assert_eq!(
            parsed("results/a/b --print"),
            Ok(Headline { results: "results/a/b".into(), print: true })
        );
        assert!(parsed("").expect_err("no folder").contains("results folder"));
        assert!(parsed("a b").expect_err("two folders").contains("`b`"));
        assert!(parsed("a --hide").expect_err("no such option").contains("`--hide`"));
    }

    #[test]
    fn the_readme_shows_what_its_folder_holds() {
        let context = Context::of_this_workspace(false);
        let readme = fs::read_to_string(context.root.join(README)).expect("there is a README");
        let (_, rest) = readme.split_once(BEGIN).expect("it names the folder it shows");
        let (results, _) = rest.split_once(" -->").expect("the marker ends");
        let table = table_of(&context.root.join(results)).expect("the folder is there");
        let again = replaced(&readme, results, &table).expect("both markers are there");
        assert!(again == readme, "README differs from {results}: run `cargo xtask headline {results}`");
    }

    #[test]
    fn cells_may_be_quoted() {
        assert_eq!(cells(r#"a,"b, c","say ""d""",,e"#), ["a", "b, c", "say \"d\"", "", "e"]);
    }

    #[test]
    fn a_campaign_shows_its_headline_shape_with_intervals() {
        let folder = std::env::temp_dir().join(format!("nabla-xtask-{}-headline", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder for temporary files");
        let csv = "comparison,peer,ours_us_median,peer_us_median,ratio,ratio_low,ratio_high,shape,policy,padded,device,torch\n\
                   Wan,Flex,1000,2500.4,2.5,2.4,2.6,wan-720p,nabla-0.7,True,GPU,2.11.0+cu130\n\
                   Wan,Flex,1,2,2,,,wan-720p,nabla-0.5,False,GPU,2.11.0\n\
                   Cog,Flex,1,2,2,,,cogvideox,nabla-0.7,False,GPU,2.11.0\n";
        fs::write(folder.join("peers.csv"), csv).expect("a writable folder");
        let table = table_of(&folder).expect("a row is shown");
        let row = "| Wan, against Flex, on padded blocks | 1.00 ms | 2.50 ms | 2.50x (2.40-2.60) |\n";
        assert!(table.starts_with("| GPU, PyTorch 2.11.0, nabla-xtask") && table.ends_with(row), "{table}");
        assert_eq!(table.lines().count(), 3, "{table}");

        fs::write(folder.join("environment.json"), "{\"pack\": {\"smoke\": true}}")
            .expect("a writable folder");
        let message = table_of(&folder).expect_err("a test of the way").to_string();
        assert!(message.contains("tiny inputs"), "{message}");
        fs::remove_dir_all(folder).expect("it is ours");
    }
}
