//! A flood of denied packets by one pod: what it does to the connections of its neighbors, to changes of policies, to the agent's memory and to
//! its records.
//!
//! ```text
//!   pod flood ── UDP, a new port each time ─► pod server: denied ─► counted; few of them logged ─► records
//!   meanwhile, in turns: a policy is changed, and all connections beside the flood are probed
//! ```

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use palisade_nft::{
    Kernel,
    drops::{Counters, Counts, Tally},
};
use palisade_policy::{Change, Cluster, Labels, Name, Namespace, ObjectKey};
use serde::{Serialize, Serializer, ser::SerializeStruct};

use super::{CLIENT, NAMESPACE, PORT, SERVER, pod, pods, policy, some_block};
use crate::{
    error::{LabError, with_causes},
    lab::Lab,
    layout::{Layout, Place},
    options::{Families, LayoutOptions},
    probe::{self, Mismatch, Plan, ProbeOptions},
    records::{RecordingOptions, Recordings, Wording},
    sandbox::Sandbox,
    soak::resident,
};

const FLOOD: &str = "flood";
const NEIGHBOR: &str = "neighbor";
/// The pod whose policy changes.
const CHANGING: &str = "changing";
/// How many changes of a policy are measured before the flood.
const QUIET_CHANGES: usize = 40;
/// The most changes between two passes of probes.
const CHANGES_PER_PASS: usize = 4;
/// Packets are sent in bursts this far apart.
const BURST: Duration = Duration::from_millis(1);

/// The flood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloodOptions {
    /// How long it lasts.
    pub duration: Duration,
    /// Packets a second. If the machine can't send so many, it sends as many as it can.
    pub rate: u32,
}

/// The time from a change of a policy until the kernel of the flooded node has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// How many changes were measured.
    pub changes: usize,
    /// The median.
    pub median: Duration,
    /// The longest.
    pub longest: Duration,
}

impl Latency {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        Self { changes: times.len(), median, longest: times.last().copied().unwrap_or_default() }
    }
}

impl Serialize for Latency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Latency", 3)?;
        out.serialize_field("changes", &self.changes)?;
        out.serialize_field("median_ms", &(self.median.as_secs_f64() * 1000.0))?;
        out.serialize_field("longest_ms", &(self.longest.as_secs_f64() * 1000.0))?;
        out.end()
    }
}

/// What a flood did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flooded {
    /// Packets that were sent.
    pub sent: u64,
    /// The same for each second.
    pub sent_per_second: f64,
    /// Packets that the rules of the nodes have dropped, by the kernel's counters, with those of denied probes.
    pub dropped: u64,
    /// Dropped packets for which records stand.
    pub recorded: u64,
    /// Dropped packets that were counted as without a record.
    pub without_record: u64,
    /// The number of records.
    pub records: usize,
    /// Probes beside the flood.
    pub probed: usize,
    /// Those of them with another outcome than the policies demand.
    pub wrong: Vec<String>,
    /// Changes of a policy before the flood.
    pub quiet: Latency,
    /// The same during the flood.
    pub flooded: Latency,
    /// The resident memory of this process, which runs the nodes' agents, in KiB: before the flood, after a tenth of it, after half of it, and
    /// at its end.
    pub resident_kib: [u64; 4],
}

/// Runs a flood. `progress` receives the time since its beginning.
///
/// # Errors
/// Fails if the lab can't be built or changed, or the kernel can't be read.
pub fn flood(
    sandbox: &Sandbox,
    options: &FloodOptions,
    wording: &Wording,
    mut progress: impl FnMut(Duration),
) -> Result<Flooded, LabError> {
    let recordings = Arc::new(Recordings::default());
    let recording = RecordingOptions { wording: Arc::clone(wording), connections: false };
    let layout =
        Layout::of(&cluster(), &LayoutOptions { families: Families::V4, ..LayoutOptions::default() })?;
    let mut lab = Lab::build(sandbox, layout, recordings.enforcers(recording))?;
    let mut state = State::new(&recordings);
    // The first probes fill what grows once: caches, sockets, arenas.
    let mut quiet = Vec::new();
    while quiet.len() < QUIET_CHANGES {
        state.round(&mut lab, &mut quiet)?;
    }
    state.begin(&lab)?;

    let mut resident_kib = [resident(), 0, 0, 0];
    let sender = Sender::start(&lab, options.rate)?;
    let (begin, mut flooded) = (Instant::now(), Vec::new());
    while begin.elapsed() < options.duration {
        state.round(&mut lab, &mut flooded)?;
        let past = begin.elapsed();
        progress(past);
        for (at, share) in [(1, 0.1), (2, 0.5)] {
            if resident_kib[at] == 0 && past >= options.duration.mul_f64(share) {
                resident_kib[at] = resident();
            }
        }
    }
    let (sent, lasted) = (sender.stop(), begin.elapsed());
    resident_kib[3] = resident();
    state.finish()?;
    Ok(Flooded {
        sent,
        sent_per_second: sent as f64 / lasted.as_secs_f64(),
        dropped: state.dropped(&lab)?,
        recorded: state.recorded,
        without_record: recordings.losses().packets - state.lost_before,
        records: state.records,
        probed: state.probed,
        wrong: state.wrong,
        quiet: Latency::of(quiet),
        flooded: Latency::of(flooded),
        resident_kib,
    })
}

/// The server lets only the client connect, so the flood is denied. All but the neighbor are on the node of the flood.
fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    cluster.apply(Change::SetNamespace(Namespace::new(NAMESPACE, &Labels::default())));
    for (name, node) in [(FLOOD, "n1"), (CLIENT, "n1"), (SERVER, "n1"), (CHANGING, "n1"), (NEIGHBOR, "n2")] {
        cluster.apply(Change::SetPod(pod(name, node)));
    }
    cluster.apply(Change::SetPolicy(policy("server", SERVER, pods(CLIENT), PORT - 1)));
    cluster
}

/// What was measured so far.
struct State<'a> {
    recordings: &'a Recordings,
    tallies: BTreeMap<Name, (Tally, Counts)>,
    /// How often the policy was changed.
    turns: usize,
    records: usize,
    recorded: u64,
    lost_before: u64,
    probed: usize,
    wrong: Vec<String>,
}

impl<'a> State<'a> {
    fn new(recordings: &'a Recordings) -> Self {
        Self {
            recordings,
            tallies: BTreeMap::new(),
            turns: 0,
            records: 0,
            recorded: 0,
            lost_before: 0,
            probed: 0,
            wrong: Vec::new(),
        }
    }

    /// Changes a policy some times, then probes all connections but those of the flooding pod.
    fn round(&mut self, lab: &mut Lab, times: &mut Vec<Duration>) -> Result<(), LabError> {
        for _ in 0..CHANGES_PER_PASS {
            self.turns += 1;
            let mut next = lab.layout().cluster.clone();
            next.apply(Change::SetPolicy(policy("changing", CHANGING, some_block(self.turns), PORT - 1)));
            lab.update(&next)?;
            times.extend(self.recordings.take_commits());
        }
        let options = ProbeOptions::default();
        let mut plan = Plan::of(lab.layout(), &options);
        let floods = ObjectKey::new(NAMESPACE, FLOOD);
        plan.probes.retain(|probe| Place::of(&probe.source) != Place::Pod(floods.clone()));
        let report = probe::run(lab, &plan, &options, |_, _| {})?;
        self.probed += report.counts.probed;
        self.wrong.extend(report.mismatches.iter().map(Mismatch::summary));
        self.read()
    }

    fn read(&mut self) -> Result<(), LabError> {
        for record in self.recordings.take().map_err(|e| LabError::Records(e.into()))? {
            self.records += 1;
            self.recorded += record.count;
        }
        Ok(())
    }

    /// Begins to count.
    fn begin(&mut self, lab: &Lab) -> Result<(), LabError> {
        self.finish()?;
        for (node, counters) in counters(lab)? {
            let mut tally = Tally::default();
            let before = tally.add(counters);
            self.tallies.insert(node, (tally, before));
        }
        (self.records, self.recorded, self.probed) = (0, 0, 0);
        self.lost_before = self.recordings.losses().packets;
        Ok(())
    }

    /// Waits until the last records are made and the last losses are counted.
    fn finish(&mut self) -> Result<(), LabError> {
        for _ in 0..30 {
            thread::sleep(Duration::from_millis(100));
            self.read()?;
        }
        Ok(())
    }

    /// Returns how many packets the nodes have dropped since the beginning.
    fn dropped(&mut self, lab: &Lab) -> Result<u64, LabError> {
        let mut dropped = 0;
        for (node, counters) in counters(lab)? {
            if let Some((tally, before)) = self.tallies.get_mut(&node) {
                let now = tally.add(counters);
                dropped += (now.egress - before.egress) + (now.ingress - before.ingress);
            }
        }
        Ok(dropped)
    }
}

fn counters(lab: &Lab) -> Result<BTreeMap<Name, Counters>, LabError> {
    let read = |node: &Name| {
        let read = || Kernel::open().and_then(|mut kernel| Counters::read(&mut kernel));
        let read = lab.run_in(&Place::Node(node.clone()), read)?;
        read.map_err(|e| LabError::Records(with_causes(&e).into()))
    };
    lab.nodes().map(|(node, _)| Ok((node.clone(), read(node)?))).collect()
}

/// A thread that sends packets.
struct Sender {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: thread::JoinHandle<io::Result<()>>,
}

impl Sender {
    fn start(lab: &Lab, rate: u32) -> Result<Self, LabError> {
        let place = Place::Pod(ObjectKey::new(NAMESPACE, FLOOD));
        let failed = |source| LabError::Namespace { place: place.to_string(), source };
        let namespace = lab.namespace(&place).ok_or_else(|| LabError::NoSuchPlace(place.to_string()))?;
        let namespace = namespace.try_clone().map_err(failed)?;
        let server = lab.layout().pods[&ObjectKey::new(NAMESPACE, SERVER)].addresses[0];
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let run = move || {
            namespace.enter()?;
            send(server, rate, &stopped, &count)
        };
        let thread = thread::Builder::new().name("lab-flood".into()).spawn(run).map_err(failed)?;
        Ok(Self { stop, sent, thread })
    }

    /// Stops, and returns how many packets were sent.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        // What it could not send is missing in the number.
        _ = self.thread.join();
        self.sent.load(Ordering::Relaxed)
    }
}

/// Sends datagrams to each port in turn, so that nearly each is a flow of its own.
fn send(to: IpAddr, rate: u32, stop: &AtomicBool, sent: &AtomicU64) -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let begin = Instant::now();
    let mut ports = (1..=u16::MAX).cycle();
    let mut count = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let due = (begin.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        if count >= due {
            thread::sleep(BURST);
            continue;
        }
        // A machine that can't keep up does not make up for it later.
        for port in ports.by_ref().take((due - count).min(u64::from(rate) / 10) as usize) {
            if socket.send_to(b"x", SocketAddr::new(to, port)).is_ok() {
                sent.fetch_add(1, Ordering::Relaxed);
            }
        }
        count = due;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use palisade_policy::{Endpoint, Flow, Protocol, reference};

    use super::*;

    #[test]
    fn the_flood_is_denied_and_the_client_is_not() {
        let layout = Layout::of(&cluster(), &LayoutOptions::default()).unwrap();
        let endpoint = |name: &str| {
            let key = ObjectKey::new(NAMESPACE, name);
            Endpoint::Pod { address: layout.pods[&key].addresses[0], key }
        };
        let allowed = |from: &str, protocol| {
            let (source, destination) = (endpoint(from), endpoint(SERVER));
            let flow = Flow { source, destination, protocol, port: PORT, through_service: false };
            reference::decide(&layout.cluster, &flow).verdict().is_allow()
        };
        assert!(allowed(CLIENT, Protocol::Tcp));
        assert!(!allowed(FLOOD, Protocol::Udp) && !allowed(NEIGHBOR, Protocol::Tcp));
    }

    #[test]
    fn latencies_are_medians() {
        let ms = Duration::from_millis;
        let expected = Latency { changes: 3, median: ms(2), longest: ms(9) };
        assert_eq!(Latency::of(vec![ms(9), ms(1), ms(2)]), expected);
        assert_eq!(Latency::of(Vec::new()), Latency::default());
    }
}
