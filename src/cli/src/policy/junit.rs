//! JUnit XML, as CI systems read it.

use std::fmt::Write;

use dayfly_policy::Problem;
use dayfly_policy::table::{Ran, Table};

/// A suite for each table, a case for each of its cases; one more suite with what keeps tables from being run.
pub(super) fn report(ran: &[(&Table, Vec<Ran<'_>>)], problems: &[&Problem]) -> String {
    let failures = |ran: &[Ran<'_>]| ran.iter().filter(|ran| !ran.differences.is_empty()).count();
    let (all, failed) = ran.iter().fold((problems.len(), problems.len()), |(all, failed), (_, ran)| {
        (all + ran.len(), failed + failures(ran))
    });
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(xml, "<testsuites name=\"dayfly policy test\" tests=\"{all}\" failures=\"{failed}\">");
    for (table, ran) in ran {
        let name = escaped(&table.name);
        let (tests, failed) = (ran.len(), failures(ran));
        let file = escaped(&table.file);
        let _ = writeln!(
            xml,
            "  <testsuite name=\"{name}\" file=\"{file}\" tests=\"{tests}\" failures=\"{failed}\">"
        );
        for Ran { case, differences, explanation } in ran {
            let case = escaped(&case.name);
            if differences.is_empty() {
                let _ = writeln!(xml, "    <testcase classname=\"{name}\" name=\"{case}\"/>");
                continue;
            }
            let differs = |d: &dayfly_policy::table::Difference| {
                format!("{}: expected {}, got {}", d.field, d.expected, d.got)
            };
            let message = differences.iter().map(differs).collect::<Vec<_>>().join("; ");
            failure(&mut xml, &name, &case, &message, &explanation.to_string());
        }
        xml.push_str("  </testsuite>\n");
    }
    if !problems.is_empty() {
        let count = problems.len();
        let _ = writeln!(xml, "  <testsuite name=\"problems\" tests=\"{count}\" failures=\"{count}\">");
        for problem in problems {
            let name = escaped(&format!("{}:{}:{}", problem.file, problem.line, problem.column));
            failure(&mut xml, "problems", &name, &problem.to_string(), "");
        }
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

/// A case that failed; the names are escaped already.
fn failure(xml: &mut String, class: &str, case: &str, message: &str, text: &str) {
    let (message, text) = (escaped(message), escaped(text));
    let _ = writeln!(xml, "    <testcase classname=\"{class}\" name=\"{case}\">");
    let _ = writeln!(xml, "      <failure message=\"{message}\">{text}</failure>\n    </testcase>");
}

/// Text for attributes and elements (XML 1.0, section 2.4); what XML cannot say is replaced.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out_of_an_attribute() {
        assert_eq!(escaped("a\"<b>&\u{1b}\n"), "a&quot;&lt;b&gt;&amp;\u{fffd}\n");
    }
}
