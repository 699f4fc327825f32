//! JUnit XML, in which CI systems show the results of tests.

use std::fmt::Write as _;

use crate::escape;

/// One test.
pub(crate) struct Case<'a> {
    pub(crate) class: &'a str,
    pub(crate) name: String,
    /// The file and the line, for systems that link to it.
    pub(crate) place: Option<(&'a str, usize)>,
    /// Why it is not passed; `None` if it is.
    pub(crate) problem: Option<Problem>,
}

/// Why a test is not passed.
pub(crate) struct Problem {
    /// Whether it could not be decided, which is not the same as a failure.
    pub(crate) is_error: bool,
    /// A word for the kind of problem.
    pub(crate) kind: &'static str,
    pub(crate) message: String,
    /// Lines with more about it.
    pub(crate) details: String,
}

/// Writes a suite of tests.
pub(crate) fn suite(name: &str, cases: &[Case<'_>]) -> String {
    let problems = |is_error| {
        cases.iter().filter_map(|case| case.problem.as_ref()).filter(|p| p.is_error == is_error).count()
    };
    let (tests, failures, errors) = (cases.len(), problems(false), problems(true));
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\">\n"
    );
    for case in cases {
        _ = write!(out, "    <testcase classname=\"{}\" name=\"{}\"", xml(case.class), xml(&case.name));
        if let Some((file, line)) = case.place {
            _ = write!(out, " file=\"{}\" line=\"{line}\"", xml(file));
        }
        let Some(problem) = &case.problem else {
            out.push_str("/>\n");
            continue;
        };
        let element = if problem.is_error { "error" } else { "failure" };
        let details: Vec<String> = problem.details.lines().map(xml).collect();
        _ = writeln!(
            out,
            ">\n      <{element} type=\"{}\" message=\"{}\">{}</{element}>\n    </testcase>",
            problem.kind,
            xml(&problem.message),
            details.join("\n")
        );
    }
    out.push_str("  </testsuite>\n</testsuites>\n");
    out
}

fn xml(text: &str) -> String {
    escape::markup(&escape::plain(text)).into_owned()
}
