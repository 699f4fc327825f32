//! Addresses of hosts outside the cluster, as this machine's resolver answers them.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, ToSocketAddrs as _},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

/// How long to wait for the resolver. Resolvers give up after 5 s for each server and attempt.
const PATIENCE: Duration = Duration::from_secs(5);

/// Returns the addresses of a host, sorted. Never empty.
///
/// # Errors
/// When the resolver has no answer, or none in time.
pub(crate) fn addresses(host: &str) -> Result<Vec<IpAddr>> {
    let name = host.to_owned();
    let ask = move || (&*name, 0).to_socket_addrs().map(|all| all.map(|address| address.ip()).collect());
    in_time(PATIENCE, ask).with_context(|| format!("can't resolve {host}"))
}

/// Runs a lookup on a thread of its own, since nothing can stop it. The thread ends with the process.
fn in_time(
    patience: Duration,
    ask: impl FnOnce() -> io::Result<BTreeSet<IpAddr>> + Send + 'static,
) -> Result<Vec<IpAddr>> {
    let (sender, receiver) = mpsc::channel();
    // The receiver is gone if the answer is late.
    thread::Builder::new().name("resolver".to_owned()).spawn(move || drop(sender.send(ask())))?;
    let Ok(answer) = receiver.recv_timeout(patience) else {
        bail!("the resolver of this machine has not answered within {} s", patience.as_secs_f32())
    };
    let found = answer.context("the resolver of this machine has no answer")?;
    if found.is_empty() {
        bail!("it has no addresses")
    }
    Ok(found.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_or_empty_answer_is_an_error() {
        let late = || {
            thread::sleep(Duration::from_secs(60));
            Ok(BTreeSet::new())
        };
        let error = in_time(Duration::from_millis(50), late).unwrap_err().to_string();
        assert_eq!(error, "the resolver of this machine has not answered within 0.05 s");
        assert!(in_time(PATIENCE, || Ok(BTreeSet::new())).unwrap_err().to_string().contains("no addresses"));
        let failed = in_time(PATIENCE, || Err(io::Error::other("no such host")));
        assert!(format!("{:#}", failed.unwrap_err()).ends_with("has no answer: no such host"));
        let two: BTreeSet<IpAddr> = ["2001:db8::1", "192.0.2.1"].map(|a| a.parse().unwrap()).into();
        let found = in_time(PATIENCE, || Ok(two)).unwrap();
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.1", "2001:db8::1"]);
    }
}
