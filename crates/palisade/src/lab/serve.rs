//! Serves the requests of other processes to a running lab.

use std::{
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::net::{UnixListener, UnixStream},
    },
    sync::mpsc::Sender,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use palisade_lab::{Lab, Place, probe::ProbeOptions};

use super::{
    connections::{connect, outside},
    control::{self, ProbeAnswer, Reply, Request},
    event::Event,
    probe_by_name,
};
use crate::can::{EndpointSpec, Spec, ends, question};

/// Clients that send nothing for this long are disconnected.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Receives requests on a new thread.
pub(crate) fn listen(listener: UnixListener, events: Sender<Event>) -> Result<()> {
    let serve = move || {
        for stream in listener.incoming().flatten() {
            if stream.set_read_timeout(Some(TIMEOUT)).is_err() {
                continue;
            }
            // Invalid requests get no reply.
            if let Ok(Some(request)) = control::receive::<Request>(&stream)
                && events.send(Event::Request(request, stream)).is_err()
            {
                return;
            }
        }
    };
    thread::Builder::new().name("lab-control".into()).spawn(serve).context("can't start a thread")?;
    Ok(())
}

/// Replies to a request. Errors of the connection are ignored: the client is gone.
pub(crate) fn answer(lab: &Lab, request: &Request, stream: &mut UnixStream) {
    let reply = match request {
        Request::Probe { source, destination, namespace, timeout } => {
            probe(lab, source, destination, namespace, &options(*timeout)).map(Reply::ProbeAnswer)
        }
        Request::Locate { place, namespace } => locate(lab, place, namespace),
        Request::Down => Ok(Reply::Ending),
    };
    let reply = reply.unwrap_or_else(|error| Reply::Error(format!("{error:#}")));
    _ = control::send(stream, &reply);
}

fn locate(lab: &Lab, place: &str, namespace: &str) -> Result<Reply> {
    let found = if place == "outside" { Place::Outside } else { place_of(lab, place, namespace)? };
    let fd = lab.namespace(&found).with_context(|| format!("{found} has no network in this lab"))?;
    let dns = lab.names().map_or_else(Vec::new, |(_, servers)| servers.ask.iter().map(|s| s.ip()).collect());
    Ok(Reply::Located { pid: std::process::id(), fd: fd.as_fd().as_raw_fd(), place: found.to_string(), dns })
}

fn place_of(lab: &Lab, text: &str, namespace: &str) -> Result<Place> {
    let spec: Spec = text.parse().with_context(|| format!("`{text}`"))?;
    if spec.port.is_some() || spec.protocol.is_some() {
        bail!("`{text}`: omit the port");
    }
    let ends = ends::endpoints(&lab.layout().cluster, &spec.endpoint, namespace)?;
    let first = ends.first().with_context(|| format!("`{text}` has no network"))?;
    Ok(Place::of(first))
}

/// With a timeout, one attempt that takes at most as long.
fn options(timeout: Option<u64>) -> ProbeOptions {
    let mut options = ProbeOptions::default();
    if let Some(milliseconds) = timeout {
        options.first.whole = Duration::from_millis(milliseconds);
        options.retries = Vec::new();
    }
    options
}

fn probe(
    lab: &Lab,
    source: &str,
    destination: &str,
    namespace: &str,
    options: &ProbeOptions,
) -> Result<Vec<ProbeAnswer>> {
    let parse = |text: &str| text.parse::<Spec>().with_context(|| format!("`{text}`"));
    let (source, destination) = (parse(source)?, parse(destination)?);
    if source.endpoint == EndpointSpec::Internet || destination.endpoint == EndpointSpec::Internet {
        bail!("the lab has no internet; use an external address of the lab: {}", outside(lab));
    }
    let cluster = &lab.layout().cluster;
    match probe_by_name::host(lab, &destination, namespace)? {
        Some(name) => probe_by_name::probe(lab, &source, (&destination, &name), namespace, options),
        None => {
            let flows = question::resolve_each(cluster, &source, &destination, namespace)?.flows;
            connect(lab, cluster, flows, options)
        }
    }
}
