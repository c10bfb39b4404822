//! The outcomes in the XML that continuous-integration servers read: a suite a device, a test case a check.

use std::fmt::Write as _;

use nabla_host::check::Verdict;

use super::Suite;

/// Writes all suites.
pub(super) fn text(suites: &[Suite]) -> String {
    let mut xml =
        String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"nabla check\">\n");
    for suite in suites {
        let [_, failed, skipped] = suite.counts();
        // Writing to a string does not fail.
        let _ = writeln!(
            xml,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failed}\" errors=\"0\" skipped=\"{skipped}\" time=\"{:.3}\">",
            escaped(&suite.name),
            suite.outcomes.len(),
            suite.seconds
        );
        for outcome in &suite.outcomes {
            let _ = write!(
                xml,
                "    <testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\"",
                escaped(&outcome.subject),
                escaped(&outcome.case),
                outcome.seconds
            );
            let _ = match &outcome.verdict {
                Verdict::Passed => writeln!(xml, "/>"),
                Verdict::Failed(reason) => {
                    let (first, all) = (escaped(reason.lines().next().unwrap_or_default()), escaped(reason));
                    writeln!(xml, ">\n      <failure message=\"{first}\">{all}</failure>\n    </testcase>")
                }
                Verdict::Skipped(reason) => {
                    writeln!(xml, ">\n      <skipped message=\"{}\"/>\n    </testcase>", escaped(reason))
                }
            };
        }
        xml.push_str("  </testsuite>\n");
    }
    xml + "</testsuites>\n"
}

/// Replaces what has a meaning in XML, and control characters, which it cannot hold.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nabla_host::check::Outcome;

    use super::*;

    #[test]
    fn reasons_are_escaped_and_counted() {
        let outcome = |verdict| Outcome {
            subject: "k".into(),
            case: "a<b".into(),
            verdict,
            accuracy: None,
            counts: BTreeMap::new(),
            seconds: 0.5,
        };
        let suite = Suite {
            backend: "emulator",
            device: "d".into(),
            driver: None,
            name: "emulator".into(),
            outcomes: vec![
                outcome(Verdict::Passed),
                outcome(Verdict::Failed("1 < 2 & \"3\"\nsecond line\u{1b}".into())),
                outcome(Verdict::Skipped("no room".into())),
            ],
            seconds: 1.5,
        };
        assert_eq!(
            text(&[suite]),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"nabla check\">\n  \
             <testsuite name=\"emulator\" tests=\"3\" failures=\"1\" errors=\"0\" skipped=\"1\" time=\"1.500\">\n    \
             <testcase classname=\"k\" name=\"a&lt;b\" time=\"0.500\"/>\n    \
             <testcase classname=\"k\" name=\"a&lt;b\" time=\"0.500\">\n      \
             <failure message=\"1 &lt; 2 &amp; &quot;3&quot;\">1 &lt; 2 &amp; &quot;3&quot;\nsecond line\u{fffd}</failure>\n    \
             </testcase>\n    \
             <testcase classname=\"k\" name=\"a&lt;b\" time=\"0.500\">\n      <skipped message=\"no room\"/>\n    \
             </testcase>\n  </testsuite>\n</testsuites>\n"
        );
    }
}
