//! Kubernetes' end-to-end suite.

use std::{fs, os::unix::fs::symlink, time::Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{folder, program, run_logged};
use crate::{
    Cluster, programs,
    results::{self, Outcome, Skipped},
};

/// Cases of the suite.
#[derive(Clone, Copy, Debug)]
pub struct Selection {
    /// The name of the suite here.
    pub suite: &'static str,
    /// What it is, in one line.
    pub about: &'static str,
    /// The cases whose names contain one of these.
    pub cases: &'static [&'static str],
    /// But not those whose names contain one of these: (text, reason).
    pub without: &'static [(&'static str, &'static str)],
    /// How many cases there are, so that a release with others is noticed.
    pub total: usize,
    /// How many run side by side.
    pub processes: usize,
}

/// All of NetworkPolicy.
pub const NETPOL: Selection = Selection {
    suite: "netpol",
    about: "Kubernetes' e2e suite: NetworkPolicy",
    cases: &["[sig-network] Netpol "],
    without: &[],
    total: 51,
    processes: 3,
};

/// A few cases of NetworkPolicy that between them use every part of it.
pub const NETPOL_SMOKE: Selection = Selection {
    suite: "netpol-smoke",
    about: "Kubernetes' e2e suite: NetworkPolicy, 8 cases",
    cases: &[
        "Netpol NetworkPolicy between server and client should support a 'default-deny-all' policy",
        "Netpol NetworkPolicy between server and client should enforce policy based on Multiple PodSelectors and NamespaceSelectors",
        "Netpol NetworkPolicy between server and client should allow ingress access from updated pod",
        "Netpol NetworkPolicy between server and client should allow ingress access on one named port",
        "Netpol NetworkPolicy between server and client should enforce except clause while egress access to server in CIDR block",
        "Netpol NetworkPolicy between server and client should stop enforcing policies after they are deleted",
        "Netpol [LinuxOnly] NetworkPolicy between server and client using UDP should enforce policy based on Ports",
        "Netpol [Feature:SCTPConnectivity] [LinuxOnly] NetworkPolicy between server and client using SCTP should enforce policy based on Ports",
    ],
    without: &[],
    total: 8,
    processes: 2,
};

/// Services, ports of nodes, and connection tracking.
pub const SERVICES: Selection = Selection {
    suite: "services",
    about: "Kubernetes' e2e suite: Services, host ports, connection tracking",
    cases: &[
        "[sig-network] Services ",
        "[sig-network] HostPort ",
        "[sig-network] Conntrack ",
        "[sig-network] Networking Granular Checks: Services ",
    ],
    without: &[
        ("[Disruptive]", "restarts programs of the cluster over SSH, as a cloud provider's nodes allow"),
        (
            "should be rejected for evicted pods",
            "has a pod evicted that uses too much of a disk, which the kubelets here don't measure",
        ),
    ],
    total: 79,
    processes: 4,
};

/// Runs cases, and records what they showed.
///
/// # Errors
/// If one has failed, or the program can't be run.
pub fn run(cluster: &Cluster, selection: &Selection) -> Result<()> {
    let start = Instant::now();
    let folder = folder(selection.suite)?;
    let report = folder.join("report.json");
    let _ = fs::remove_file(&report);
    // ginkgo writes its reports beside the program that it runs.
    let test = folder.join("e2e.test");
    let _ = fs::remove_file(&test);
    symlink(program("e2e.test")?, &test)?;
    let mut arguments = vec![
        format!("--procs={}", selection.processes),
        "--no-color".into(),
        "--timeout=3h".into(),
        "--json-report=report.json".into(),
    ];
    arguments.extend(selection.cases.iter().map(|case| format!("--focus={}", literal(case))));
    arguments.extend(selection.without.iter().map(|(text, _)| format!("--skip={}", literal(text))));
    arguments.extend([
        "./e2e.test".into(),
        "--".into(),
        "--provider=skeleton".into(),
        "--num-nodes=2".into(),
        "--disable-log-dump".into(),
        format!("--kubeconfig={}", cluster.control().admin().display()),
        format!("--kubectl-path={}", programs::control_program("kubectl").display()),
    ]);
    let log = run_logged(cluster, &folder, &program("ginkgo")?, &arguments)?;
    let _ = fs::remove_file(&test);
    let report =
        fs::read(&report).with_context(|| format!("{} says why there is no report", log.display()))?;
    let mut outcome = outcome(selection, &serde_json::from_slice(&report)?)?;
    outcome.seconds = start.elapsed().as_secs();
    if let Some(folder) = results::folder() {
        outcome.write(&folder)?;
    }
    outcome.verdict().with_context(|| format!("{} has the details", log.display()))
}

/// A regular expression that matches this text.
fn literal(text: &str) -> String {
    text.chars().fold(String::new(), |mut pattern, c| {
        if !c.is_alphanumeric() && c != ' ' {
            pattern.push('\\');
        }
        pattern.push(c);
        pattern
    })
}

/// Reads a report of ginkgo.
fn outcome(selection: &Selection, report: &Value) -> Result<Outcome> {
    let mut outcome =
        Outcome { suite: selection.suite.into(), about: selection.about.into(), ..Outcome::default() };
    let specs = report[0]["SpecReports"].as_array().context("a report without cases")?;
    for spec in specs {
        let state = spec["State"].as_str().unwrap_or_default();
        let message = || first_line(spec["Failure"]["Message"].as_str().unwrap_or_default());
        if spec["LeafNodeType"] != "It" {
            // What runs before or after all cases: if it fails, they were not run.
            if !["passed", "skipped", "pending"].contains(&state) {
                let what = spec["LeafNodeType"].as_str().unwrap_or_default();
                outcome.failed.push(format!("{what}: {}", message()));
            }
            continue;
        }
        let case = name(spec);
        if !selection.cases.iter().any(|text| case.contains(text)) {
            continue;
        }
        match state {
            "passed" => outcome.passed += 1,
            "skipped" | "pending" => {
                let without = selection.without.iter().find(|(text, _)| case.contains(text));
                let reason = without.map_or_else(message, |(_, reason)| (*reason).to_owned());
                if reason.is_empty() {
                    outcome.failed.push(format!("{case}: not run"));
                } else {
                    outcome.skipped.push(Skipped { reason, case });
                }
            }
            _ => outcome.failed.push(format!("{case}: {state}: {}", message())),
        }
    }
    let seen = outcome.passed + outcome.failed.len() + outcome.skipped.len();
    if seen != selection.total {
        outcome.failed.push(format!("{} cases were expected, and there are {seen}", selection.total));
    }
    outcome.failed.sort();
    outcome.skipped.sort();
    Ok(outcome)
}

/// The first line of a message, which may go on with whole objects. The report has the rest.
fn first_line(message: &str) -> String {
    message.trim().lines().next().unwrap_or_default().to_owned()
}

/// The name of a case, as ginkgo matches it.
fn name(spec: &Value) -> String {
    let texts =
        spec["ContainerHierarchyTexts"].as_array().into_iter().flatten().chain([&spec["LeafNodeText"]]);
    texts.filter_map(Value::as_str).filter(|t| !t.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SELECTION: Selection = Selection {
        suite: "s",
        about: "",
        cases: &["[sig] A "],
        without: &[("[Disruptive]", "disrupts")],
        total: 4,
        processes: 1,
    };

    fn spec(texts: &[&str], text: &str, state: &str, message: &str) -> Value {
        json!({
            "ContainerHierarchyTexts": texts, "LeafNodeText": text, "LeafNodeType": "It", "State": state,
            "Failure": {"Message": message},
        })
    }

    #[test]
    fn every_case_is_accounted_for() {
        let cases = vec![
            spec(&["[sig] A", "part"], "one", "passed", ""),
            spec(&["[sig] A"], "two [Disruptive]", "skipped", ""),
            spec(&["[sig] A"], "three", "skipped", "needs a load balancer"),
            spec(&["[sig] A"], "four", "timedout", "too long\n  metadata:\n    name: four"),
            spec(&["[sig] B"], "five", "failed", "not asked for"),
        ];
        let outcome = outcome(&SELECTION, &json!([{"SpecReports": cases}])).expect("an outcome");
        assert_eq!(outcome.passed, 1);
        assert_eq!(outcome.failed, ["[sig] A four: timedout: too long"]);
        let skipped: Vec<_> = outcome.skipped.iter().map(|s| (s.case.as_str(), s.reason.as_str())).collect();
        assert_eq!(
            skipped,
            [("[sig] A two [Disruptive]", "disrupts"), ("[sig] A three", "needs a load balancer")]
        );
    }

    #[test]
    fn what_was_not_run_without_a_reason_has_failed() {
        let before = json!({"LeafNodeType": "SynchronizedBeforeSuite", "State": "failed",
                            "Failure": {"Message": "no nodes"}});
        let cases = vec![before, spec(&["[sig] A"], "one", "skipped", "")];
        let outcome = outcome(&SELECTION, &json!([{"SpecReports": cases}])).expect("an outcome");
        assert_eq!(
            outcome.failed,
            [
                "4 cases were expected, and there are 2",
                "SynchronizedBeforeSuite: no nodes",
                "[sig] A one: not run",
            ]
        );
        assert!(outcome.verdict().is_err());
    }

    #[test]
    fn names_are_matched_literally() {
        assert_eq!(literal("[sig-network] A 'b'"), r"\[sig\-network\] A \'b\'");
    }
}
