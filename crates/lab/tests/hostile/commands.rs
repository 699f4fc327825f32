//! Changes that an operator or another program makes on a node, with `nft`, `conntrack` and sysctls.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use libtest_mimic::Failed;

use crate::testbed::Testbed;

/// The required programs and their Debian packages.
const PROGRAMS: [(&str, &str); 2] = [("nft", "nftables"), ("conntrack", "conntrack")];

/// Fails if a program is missing. The error names the package to install.
pub(crate) fn check() -> Result<(), Failed> {
    for (program, package) in PROGRAMS {
        let found =
            Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if found.is_err() {
            return Err(
                format!("the program {program} is missing: install the Debian package {package}").into()
            );
        }
    }
    Ok(())
}

/// Runs `nft` with a script on a node.
pub(crate) fn nft(testbed: &Testbed, node: &str, script: &str) -> Result<String, Failed> {
    run(testbed, node, "nft", &["-f", "-"], script)
}

/// Runs `conntrack` on a node. It is no error if no entry matches.
pub(crate) fn conntrack(testbed: &Testbed, node: &str, arguments: &str) -> Result<String, Failed> {
    let words: Vec<&str> = arguments.split_whitespace().collect();
    match run(testbed, node, "conntrack", &words, "") {
        Err(e) if e.message().is_some_and(|m| m.contains("0 flow entries")) => Ok(String::new()),
        other => other,
    }
}

fn run(testbed: &Testbed, node: &str, program: &str, words: &[&str], input: &str) -> Result<String, Failed> {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = testbed.within(node, || command.spawn())??;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {} on {node}: {}\n{input}\n{text}{why}", words.join(" "), output.status).into())
}

/// Adds a table of another program, as kube-proxy has it: its rules enable connection tracking.
pub(crate) fn kube_proxy(testbed: &Testbed, node: &str) -> Result<(), Failed> {
    nft(
        testbed,
        node,
        "table inet other {
             chain nat { type nat hook prerouting priority dstnat; policy accept; }
             chain forward { type filter hook forward priority filter - 10; policy accept; ct state established counter; }
         }",
    )?;
    Ok(())
}

/// Sets a sysctl of a node's or pod's network namespace, below `/proc/sys/net`.
pub(crate) fn sysctl(testbed: &Testbed, name: &str, setting: &str, value: &str) -> Result<(), Failed> {
    Ok(testbed.within(name, || palisade_lab::namespace::set_sysctls(&[(setting, value)]))??)
}
