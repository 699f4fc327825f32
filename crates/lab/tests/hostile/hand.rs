//! The hands of others on a node: `nft` and `conntrack`, as an operator or another agent would run them.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use libtest_mimic::Failed;

use crate::world::World;

/// The programs, with the Debian packages that have them.
const PROGRAMS: [(&str, &str); 2] = [("nft", "nftables"), ("conntrack", "conntrack")];

/// Fails, with what to do, where a program is missing.
pub(crate) fn check() -> Result<(), Failed> {
    for (program, package) in PROGRAMS {
        let found =
            Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if found.is_err() {
            return Err(format!(
                "the program {program} is missing, which plays a foreign hand here: install the Debian package {package}"
            )
            .into());
        }
    }
    Ok(())
}

/// Runs `nft` with a script on a node.
pub(crate) fn nft(world: &World, node: &str, script: &str) -> Result<String, Failed> {
    run(world, node, "nft", &["-f", "-"], script)
}

/// Runs `conntrack` on a node. That there was no such entry is no error.
pub(crate) fn conntrack(world: &World, node: &str, arguments: &str) -> Result<String, Failed> {
    let words: Vec<&str> = arguments.split_whitespace().collect();
    match run(world, node, "conntrack", &words, "") {
        Err(e) if e.message().is_some_and(|m| m.contains("0 flow entries")) => Ok(String::new()),
        other => other,
    }
}

fn run(world: &World, node: &str, program: &str, words: &[&str], input: &str) -> Result<String, Failed> {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = world.within(node, || command.spawn())??;
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

/// What a node has besides: connection tracking is on because of a rule of somebody else, as with kube-proxy.
pub(crate) fn kube_proxy(world: &World, node: &str) -> Result<(), Failed> {
    nft(
        world,
        node,
        "table inet other {
             chain nat { type nat hook prerouting priority dstnat; policy accept; }
             chain forward { type filter hook forward priority filter - 10; policy accept; ct state established counter; }
         }",
    )?;
    Ok(())
}

/// Sets a kernel setting of a node's or pod's network, below `/proc/sys/net`.
pub(crate) fn sysctl(world: &World, name: &str, setting: &str, value: &str) -> Result<(), Failed> {
    Ok(world.within(name, || palisade_lab::namespace::set_sysctls(&[(setting, value)]))??)
}
