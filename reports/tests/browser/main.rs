//! The page of a report in a real browser. Without one the tests are skipped, and say so.
#![expect(clippy::unwrap_used, reason = "a test that cannot set up its files has failed")]

mod chromium;
#[path = "../all/synthetic.rs"]
mod synthetic;
#[path = "../all/synthetic_tuning.rs"]
mod synthetic_tuning;

use std::path::Path;

use chromium::Browser;
use libtest_mimic::{Arguments, Trial};
use nabla_reports::{Collection, MaskPicture, Record, Run, write_report};
use serde_json::json;

type Check = fn(&mut Browser, &Path);

const CHECKS: [(&str, Check); 10] = [
    ("every_figure_is_drawn_and_nothing_complains", every_figure_is_drawn),
    ("filters_narrow_chart_table_and_count", filters_narrow),
    ("columns_sort_both_ways_and_pages_turn", columns_sort),
    ("everything_works_by_keyboard", works_by_keyboard),
    ("pointing_at_a_mark_shows_its_setting", pointing_shows),
    ("a_narrow_screen_holds_the_page", narrow_screen),
    ("dark_and_print_have_colours_of_their_own", dark_and_print),
    ("twenty_thousand_records_stay_usable", many_records),
    ("a_run_without_trials_opens_all_the_same", no_trials),
    ("without_the_means_to_unpack_the_figures_stay", no_unpacking),
];

fn main() {
    let arguments = Arguments::from_args();
    let program = chromium::find();
    let trials = CHECKS.into_iter().map(|(name, check)| match program.clone() {
        Some(program) => Trial::test(name, move || {
            let folder = tempfile::tempdir().unwrap();
            check(&mut Browser::start(&program), folder.path());
            Ok(())
        }),
        None => Trial::test(name, || Ok(()))
            .with_ignored_flag(true)
            .with_kind("no Chromium: install one, or name it in the variable CHROMIUM"),
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

/// Writes a report of runs and opens it.
fn open(browser: &mut Browser, folder: &Path, runs: Vec<Run>) -> usize {
    let mut all = Collection::new(runs);
    let head = |n: usize| MaskPicture {
        title: format!("head {n}"),
        q_blocks: 32,
        kv_blocks: 32,
        density: 0.2,
        kept: (0..32 * 32).map(|i: usize| (i / 32).abs_diff(i % 32) <= n).collect(),
    };
    all.masks = (0..4).map(head).collect();
    let files = write_report(&all, folder).unwrap();
    browser.open(&files.html);
    assert_eq!(browser.text("document.documentElement.dataset.ready"), "yes", "{:?}", browser.complaints);
    files.figures.len()
}

fn no_complaints(browser: &mut Browser) {
    // One more call, so that every event before it has been heard.
    browser.value("1");
    assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
}

const EXPLORER: &str = "document.getElementById('explore').explorer";

fn every_figure_is_drawn(browser: &mut Browser, folder: &Path) {
    let figures = open(browser, folder, vec![synthetic_tuning::run()]);
    assert_eq!(figures, 13);
    let boxes = browser.value(
        "[...document.querySelectorAll('figure svg')].map(s => [s.getBoundingClientRect().width, \
         s.getBoundingClientRect().height, s.querySelectorAll('text').length])",
    );
    let boxes = boxes.as_array().unwrap();
    assert_eq!(boxes.len(), figures);
    for one in boxes {
        let [width, height, texts] = [0, 1, 2].map(|n| one[n].as_f64().unwrap());
        assert!(width > 600.0 && height > 150.0 && texts >= 8.0, "{one}");
    }
    // The chart has marks: pixels of many colours, not a blank canvas.
    let colours = browser.number(
        "(() => { const c = document.querySelector('#chart .area canvas'); \
         const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; const seen = new Set(); \
         for (let i = 0; i < d.length; i += 4) seen.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]); return seen.size })()",
    );
    assert!(colours > 30.0, "{colours} colours on the chart");
    assert!(browser.number("document.querySelectorAll('#tiles td').length") >= 9.0);
    browser.picture("light");
    no_complaints(browser);
}

fn choose(browser: &mut Browser, id: &str, value: &str) {
    let set = format!(
        "(() => {{ const s = document.getElementById('{id}'); s.value = '{value}'; \
         s.dispatchEvent(new Event('change')); return s.value }})()"
    );
    assert_eq!(browser.text(&set), value, "{id} has no {value}");
}

fn filters_narrow(browser: &mut Browser, folder: &Path) {
    open(browser, folder, vec![synthetic::Sweep::default().run()]);
    let count = "document.getElementById('count').textContent";
    let points = "Number(document.getElementById('chart').dataset.points)";
    assert_eq!(browser.text(count), "405 of 405 trials");
    assert_eq!(browser.number(points), 340.0);
    choose(browser, "filter-seqlen", "8192");
    assert_eq!(browser.text(count), "135 of 405 trials");
    choose(browser, "filter-policy", "nabla-0.7");
    assert_eq!(browser.text(count), "27 of 405 trials");
    choose(browser, "filter-status", "ok");
    let ok = browser.number("document.querySelectorAll('#records tbody tr').length");
    assert_eq!(browser.number(points), ok);
    let cells = browser.value(
        "[...new Set([...document.querySelectorAll('#records tbody tr')].map(tr => tr.innerText.match(/nabla-[0-9.]+/)[0]))]",
    );
    assert_eq!(cells, json!(["nabla-0.7"]));
    // A word of a reason that no trial of this choice has.
    browser.value(
        "(() => { const w = document.getElementById('words'); w.value = 'no divisor'; \
         w.dispatchEvent(new Event('input')) })()",
    );
    browser.wait_for("document.getElementById('count').textContent.startsWith('0 of')");
    assert!(browser.text("document.querySelector('#chart .note').textContent").contains("No trial"));
    browser.value("document.getElementById('reset').click()");
    assert_eq!(browser.text(count), "405 of 405 trials");
    no_complaints(browser);
}

/// Returns the numbers of a column on the page of the table that is shown.
fn column(browser: &mut Browser, name: &str) -> Vec<f64> {
    let values = browser.value(&format!(
        "[...document.querySelectorAll('#records tbody tr')].map(tr => \
         {EXPLORER}.records.named.get('{name}').values[Number(tr.dataset.row)])"
    ));
    values.as_array().unwrap().iter().map(|v| v.as_f64().unwrap_or(f64::INFINITY)).collect()
}

fn columns_sort(browser: &mut Browser, folder: &Path) {
    open(browser, folder, vec![synthetic::Sweep::default().run()]);
    let click = "document.querySelector('#records th[data-name=\"speedup\"] button').click()";
    let order = "document.querySelector('#records th[data-name=\"speedup\"]').getAttribute('aria-sort')";
    browser.value(click);
    assert_eq!(browser.text(order), "ascending");
    let up = column(browser, "speedup");
    assert!(up.len() == 50 && up.is_sorted(), "{up:?}");
    browser.value(click);
    assert_eq!(browser.text(order), "descending");
    let down = column(browser, "speedup");
    assert!(down.iter().rev().is_sorted() && down[0] > up[0], "{down:?}");
    browser.value("document.querySelector('button[data-go=next]').click()");
    assert_eq!(browser.text("document.querySelector('.place').textContent"), "51–100 of 405");
    assert!(column(browser, "speedup")[0] <= down[49]);
    browser.value("document.querySelector('button[data-go=last]').click()");
    // Trials without a time come last either way.
    assert!(column(browser, "speedup").iter().all(|v| v.is_infinite()));
    assert_eq!(browser.value("document.querySelector('button[data-go=next]').disabled"), json!(true));
    no_complaints(browser);
}

fn works_by_keyboard(browser: &mut Browser, folder: &Path) {
    open(browser, folder, vec![synthetic::Sweep::default().run()]);
    browser.key("Tab");
    assert_eq!(browser.text("document.activeElement.className"), "skip");
    let chosen = "document.querySelectorAll('#detail dt').length";
    browser.value("document.getElementById('chart').focus()");
    browser.key("ArrowRight");
    assert!(browser.number(chosen) > 10.0);
    assert_eq!(browser.value("document.querySelector('#chart .ring').hidden"), json!(false));
    let first = browser.text("document.getElementById('detail').textContent");
    browser.key("End");
    assert_ne!(browser.text("document.getElementById('detail').textContent"), first);
    browser.key("Home");
    assert_eq!(browser.text("document.getElementById('detail').textContent"), first);
    browser.key("Escape");
    assert_eq!(browser.number(chosen), 0.0);
    // A heading sorts, and a row is chosen, by the Enter key.
    browser.value("document.querySelector('#records th[data-name=\"time_us\"] button').focus()");
    browser.key("Enter");
    assert!(column(browser, "time_us").is_sorted());
    browser.value("document.querySelector('#records tbody tr').focus()");
    browser.key("ArrowDown");
    browser.key("Enter");
    let row = browser.text("document.activeElement.getAttribute('aria-selected')");
    assert_eq!(row, "true");
    assert!(browser.number(chosen) > 10.0);
    // Whatever can be pressed can be reached: nothing takes the focus away from the Tab key.
    let unreachable = browser.value(
        "[...document.querySelectorAll('button, select, input, summary, a')].filter(e => e.tabIndex < 0).length",
    );
    assert_eq!(unreachable, json!(0));
    no_complaints(browser);
}

fn pointing_shows(browser: &mut Browser, folder: &Path) {
    open(browser, folder, vec![synthetic::Sweep::default().run()]);
    browser.value("document.getElementById('chart').scrollIntoView({ block: 'center' })");
    let at = browser.value(&format!(
        "(() => {{ const c = {EXPLORER}.chart; const box = c.area.getBoundingClientRect(); \
         return [box.left + c.px[7], box.top + c.py[7]] }})()"
    ));
    let (x, y) = (at[0].as_f64().unwrap(), at[1].as_f64().unwrap());
    browser.point(x, y);
    browser.wait_for("!document.querySelector('#chart .tip').hidden");
    let tip = browser.text("document.querySelector('#chart .tip').innerText");
    for part in ["tokens", "policy nabla-", "BLOCK_M", "mask block", "mask + attention"] {
        assert!(tip.contains(part), "{part:?} is missing in {tip:?}");
    }
    browser.picture("pointing");
    no_complaints(browser);
}

fn narrow_screen(browser: &mut Browser, folder: &Path) {
    browser.size(400, 800);
    open(browser, folder, vec![synthetic::Sweep::default().run(), synthetic_tuning::run()]);
    let width = browser.number("document.documentElement.scrollWidth");
    assert!(width <= 400.0, "the page is {width} pixels wide");
    let outside = browser.value(
        "[...document.querySelectorAll('select, input, button, canvas, h1, h2, p')].filter(e => e.offsetParent && \
         !e.closest('.scroll') && e.getBoundingClientRect().right > 400.5).map(e => e.outerHTML.slice(0, 80))",
    );
    assert_eq!(outside, json!([]));
    // Both devices stand apart, and the page says so.
    assert_eq!(browser.number("document.querySelectorAll('#figures ~ h3').length"), 2.0);
    assert!(browser.text("document.querySelector('.warning').textContent").contains("2 devices"));
    choose(browser, "filter-device", "Example GPU 80GB (cuda)");
    assert_eq!(browser.text("document.getElementById('count').textContent"), "1,440 of 1,845 trials");
    browser.picture("narrow");
    no_complaints(browser);
}

fn dark_and_print(browser: &mut Browser, folder: &Path) {
    browser.medium("screen", "dark");
    open(browser, folder, vec![synthetic_tuning::run()]);
    let paper = "getComputedStyle(document.body).backgroundColor";
    assert_eq!(browser.text(paper), "rgb(20, 23, 27)");
    let figure = "getComputedStyle(document.querySelector('figure svg rect')).fill";
    assert_eq!(browser.text(figure), "rgb(20, 23, 27)");
    browser.picture("dark");
    browser.medium("print", "dark");
    assert_eq!(browser.text(paper), "rgb(255, 255, 255)");
    assert_eq!(browser.text(figure), "rgb(255, 255, 255)");
    assert_eq!(browser.text("getComputedStyle(document.getElementById('explore')).display"), "none");
    browser.picture("print");
    let pdf = browser.call("Page.printToPDF", json!({ "printBackground": true }));
    // "%PDF" in base64, and more than pictures of one sheet.
    assert!(pdf["data"].as_str().is_some_and(|data| data.starts_with("JVBER") && data.len() > 100_000));
    no_complaints(browser);
}

/// Makes a run of about twenty thousand trials.
fn large() -> Run {
    let mut run = synthetic::Sweep::default().run();
    let some = run.records.clone();
    let copy = |n: u64| some.iter().map(move |r| Record { heads: 2 + n, ..r.clone() });
    run.records = (0..50).flat_map(copy).collect();
    run
}

fn many_records(browser: &mut Browser, folder: &Path) {
    open(browser, folder, vec![large()]);
    assert_eq!(browser.text("document.getElementById('data').dataset.encoding"), "deflate");
    assert_eq!(browser.text("document.getElementById('count').textContent"), "20,250 of 20,250 trials");
    assert_eq!(browser.number("document.querySelectorAll('#records tbody tr').length"), 50.0);
    let took = browser.number(
        "(() => { const t = performance.now(); const s = document.getElementById('filter-policy'); \
         s.value = 'nabla-0.5'; s.dispatchEvent(new Event('change')); return performance.now() - t })()",
    );
    assert_eq!(browser.text("document.getElementById('count').textContent"), "4,050 of 20,250 trials");
    // A tenth of this on an idle machine.
    assert!(took < 3000.0, "a filter took {took} ms");
    no_complaints(browser);
}

fn no_trials(browser: &mut Browser, folder: &Path) {
    open(browser, folder, vec![synthetic::Sweep { grids: vec![], ..synthetic::Sweep::default() }.run()]);
    assert_eq!(browser.text("document.getElementById('count').textContent"), "0 of 0 trials");
    assert_eq!(browser.text("document.querySelector('.place').textContent"), "no trial");
    browser.value("document.getElementById('chart').focus()");
    browser.key("ArrowRight");
    no_complaints(browser);
}

fn no_unpacking(browser: &mut Browser, folder: &Path) {
    let source = json!({ "source": "delete window.DecompressionStream" });
    browser.call("Page.addScriptToEvaluateOnNewDocument", source);
    let files = write_report(&Collection::new(vec![large()]), folder).unwrap();
    browser.open(&files.html);
    assert_eq!(browser.text("document.documentElement.dataset.ready"), "failed");
    let said = browser.text("document.getElementById('trouble').textContent");
    assert!(said.contains("cannot unpack the records") && said.contains("records.csv"), "{said}");
    assert_eq!(browser.value("document.getElementById('explorer').hidden"), json!(true));
    assert_eq!(browser.number("document.querySelectorAll('figure svg').length"), files.figures.len() as f64);
    no_complaints(browser);
}
