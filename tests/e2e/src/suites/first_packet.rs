//! Pods that start under a policy which denies them everything: what their first packets meet.
//!
//! The promise is that of docs/limits.md and docs/semantics.md (G-13), and no more: containers don't wait, so their first packets
//! may pass; as soon as the pod is isolated it stays so, and what was established before is ended.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{
    Cluster,
    cluster::SLOW,
    pods::{self, AGNHOST, PORT},
    probe,
    progress::say,
    suites,
};

const NAME: &str = "first";
const SERVER: &str = "first-server";
const PODS: usize = 8;

/// What a container does: one connection after the other until five in a row are denied, with the time at which each began. The first one that
/// is open is kept, and used when the pod is isolated. A denied attempt takes longer than TCP's first retransmission, so that a busy
/// machine doesn't look like a policy.
const SCRIPT: &str = r#"
keep() {
    exec 3<>"/dev/tcp/$1/$2" || exit
    echo kept
    while [ ! -e /tmp/isolated ]; do sleep 0.1; done
    printf 'GET /hostname HTTP/1.0\r\n\r\n' >&3
    if read -r -t 5 -u 3; then echo answered; else echo silent; fi
}
denied=0 keeping=
echo "begin $(date +%s%N)"
while [ $denied -lt 5 ]; do
    at=$(date +%s%N)
    if timeout 1.5 nc -n -z "$1" "$2"; then
        echo "open $at"
        denied=0
        [ -n "$keeping" ] || { keeping=1; keep "$1" "$2" & }
    else
        echo "denied $at"
        denied=$((denied + 1))
    fi
done
touch /tmp/isolated
if [ -n "$keeping" ]; then
    # A connection that was denied while it was opened would wait for minutes.
    ( sleep 15; kill $! ) 2>/dev/null &
    wait %1 2>/dev/null
fi
echo end
"#;

/// Runs the suite.
pub(super) fn run(cluster: &mut Cluster) -> Result<()> {
    suites::install_palisade(cluster)?;
    let others = [("server", "n1"), ("free", "n2")].map(|(name, node)| pods::server(SERVER, name, node, &[]));
    pods::apply(cluster, &[pods::namespace(SERVER)])?;
    pods::apply(cluster, &others)?;
    pods::wait_ready(cluster, SERVER)?;
    let addresses = pods::addresses(cluster, SERVER, "server")?;
    // An unreachable server would look the same as a policy that denies it.
    let free = cluster.pod_network(SERVER, "free")?;
    for address in addresses {
        let to = SocketAddr::new(address, PORT);
        free.run(|| probe::connect(to, None, SLOW))?
            .with_context(|| format!("a free pod can't reach {to}"))?;
    }
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "nothing", "namespace": NAME},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    });
    pods::apply(cluster, &[pods::namespace(NAME), policy])?;
    let names: Vec<String> = (0..PODS).map(|i| format!("pod-{i}")).collect();
    let starting: Vec<Value> = (0..PODS)
        .map(|i| starting(&names[i], ["n1", "n2"][i % 2], &addresses[i / 2 % 2].to_string()))
        .collect();
    pods::apply(cluster, &starting)?;
    let mut delays = Vec::new();
    let (mut open, mut kept) = (0, 0);
    for name in &names {
        let log = finished(cluster, name)?;
        let seen = Seen::parse(&log).with_context(|| format!("pod {name}:\n{log}"))?;
        delays.push(seen.isolated_after);
        open += seen.open;
        kept += usize::from(seen.kept);
    }
    delays.sort_unstable();
    say(&format!(
        "first packets of {PODS} pods: {open} connections were open before the pods were isolated, {kept} of them kept open and then \
         ended; the first denied one began {} ms (median) and {} ms (most) after the container",
        delays[PODS / 2].as_millis(),
        delays[PODS - 1].as_millis()
    ));
    cluster.delete_namespaces(&[NAME, SERVER])
}

fn starting(name: &str, node: &str, address: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAME},
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "first",
                "image": AGNHOST,
                "command": ["bash", "-c", SCRIPT, "first", address, PORT.to_string()],
            }],
        },
    })
}

/// The log of a pod that has ended by itself.
fn finished(cluster: &mut Cluster, name: &str) -> Result<String> {
    cluster.eventually(&format!("pod {name} is isolated"), |c| {
        let pod = c.get(&["pod", "-n", NAME, name])?;
        match pod["status"]["phase"].as_str().unwrap_or_default() {
            "Succeeded" => Ok(Ok(())),
            "Failed" => bail!("pod {name} has failed: {:#}", pod["status"]),
            phase => Ok(Err(format!(
                "{phase}; {}",
                c.kubectl(&["-n", NAME, "logs", "--tail=3", name]).unwrap_or_default()
            ))),
        }
    })?;
    cluster.kubectl(&["-n", NAME, "logs", name])
}

/// What a container has seen.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    open: usize,
    kept: bool,
    isolated_after: Duration,
}

impl Seen {
    /// Reads the output of [`SCRIPT`].
    fn parse(log: &str) -> Result<Self> {
        let time = |text: &str| Ok::<_, anyhow::Error>(Duration::from_nanos(text.trim().parse()?));
        let (mut begin, mut ended, mut first_denied) = (None, false, None);
        let (mut open, mut kept) = (0, false);
        for line in log.lines() {
            match line.split_once(' ').unwrap_or((line, "")) {
                ("begin", at) => begin = Some(time(at)?),
                ("open", at) => {
                    ensure!(
                        first_denied.is_none(),
                        "a connection was open at {at}, after another one was denied: the pod did not stay isolated"
                    );
                    open += 1;
                }
                ("denied", at) => first_denied = first_denied.or(Some(time(at)?)),
                ("silent", _) => kept = true,
                ("answered", _) => bail!("a connection from before the isolation still works after it"),
                ("end", _) => ended = true,
                // What bash says about a connection that was refused or ended.
                _ => {}
            }
        }
        ensure!(ended, "the container has not finished");
        let (Some(begin), Some(denied)) = (begin, first_denied) else { bail!("no denied connection") };
        Ok(Self { open, kept, isolated_after: denied.saturating_sub(begin) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read_and_a_pod_that_opens_again_is_an_error() -> Result<()> {
        let log =
            "begin 1000000000\nopen 1100000000\nkept\nopen 1200000000\ndenied 1400000000\nsilent\nend\n";
        let expected = Seen { open: 2, kept: true, isolated_after: Duration::from_millis(400) };
        assert_eq!(Seen::parse(log)?, expected);
        assert!(Seen::parse(&log.replace("silent", "answered")).is_err());
        assert!(Seen::parse(&log.replace("silent", "open 3000000000")).is_err());
        assert!(Seen::parse(&log.replace("end", "")).is_err());
        assert!(Seen::parse("begin 1\nopen 2\nend\n").is_err());
        Ok(())
    }
}
