//! Upgrades: the tables of released versions, as they stand in a kernel while connections run, are taken over in one transaction.
//!
//! `layouts/VERSION.batch` holds the netlink batches with which that version created its tables for [`image_plan`], as its enforcer
//! sent them. An image is recorded once, when a version is released, and never changed:
//!
//! ```text
//! PALISADE_RECORD_LAYOUT=0.2.0 cargo test -p palisade-nft --test kernel -- tables_of_released_versions
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::Trial;
use palisade_nft::{
    Enforcer, EnforcerOptions, Kernel, NetlinkSocket, NodeLinks, Transport,
    conntrack::{self, FiveTuple},
    survey::{Survey, TableName},
};
use palisade_policy::{
    Direction, NodePlan, PeerSet, PeerSetId, PolicyTable, PolicyTableId, PortSet, Protocol, Traffic,
};

use crate::{
    revocation::{PATIENCE, SILENCE, address_on_loopback, dial_from, loopback_up, passes},
    sandbox::trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("tables_of_released_versions_are_taken_over_without_a_gap", all_images),
        trial("this_version_writes_an_image_that_it_can_read", own_image),
    ]
}

/// May send nothing.
const SILENT: [&str; 2] = ["127.0.0.1", "fd00::1"];
/// May send to [`PEERS`], TCP to [`SERVER_PORT`] and UDP to any port.
const GUARDED: [&str; 2] = ["127.0.0.3", "fd00::3"];
const PEERS: [&str; 2] = ["127.0.0.4", "fd00::4"];
const SERVER_PORT: u16 = 5000;
/// The client port of the connection that is revoked in the image, and of the one that is not.
const REVOKED_PORT: u16 = 40_001;
const OPEN_PORT: u16 = 40_002;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The plan of every image. Packets of its pods pass the loopback device, so it is in terms of egress.
fn image_plan() -> NodePlan {
    let mut plan = NodePlan::default();
    let table = |exact| PolicyTable {
        direction: Direction::Egress,
        exact,
        ranges: BTreeMap::new(),
        rest: Traffic::none(),
    };
    let (silent, guarded) = (PolicyTableId([0x51; 16]), PolicyTableId([0x52; 16]));
    let peers = PeerSetId([0x53; 16]);
    let row = Traffic::of(Protocol::Tcp, PortSet::range(SERVER_PORT, SERVER_PORT))
        .union(&Traffic::of(Protocol::Udp, PortSet::all()));
    plan.tables.extend([(silent, table(BTreeMap::new())), (guarded, table([(peers, row)].into()))]);
    plan.peer_sets.insert(peers, PeerSet::Addresses(PEERS.map(address).into()));
    plan.egress.extend(SILENT.map(|pod| (address(pod), silent)));
    plan.egress.extend(GUARDED.map(|pod| (address(pod), guarded)));
    plan.local.extend(SILENT.iter().chain(&GUARDED).map(|pod| address(pod)));
    plan
}

/// Links that don't exist, so that the image has the rules and the table of the bridge family, and no packet of the test meets them.
fn links() -> NodeLinks {
    NodeLinks {
        pod_interfaces: [901, 902].into(),
        pod_bridges: [901].into(),
        pod_ports: [903, 904].into(),
        tunnel_ports: [4789].into(),
        ..NodeLinks::default()
    }
}

/// All tables with their chains. A chain that an old layout lacks is created after the others, which the kernel's list shows.
fn chains(kernel: &mut Kernel) -> BTreeMap<TableName, BTreeSet<String>> {
    let tables = Survey::read(kernel).unwrap().tables;
    tables.into_iter().map(|(table, chains)| (table, chains.into_iter().collect())).collect()
}

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernel/layouts"))
}

/// A transport that keeps what is sent.
struct Recorder {
    socket: NetlinkSocket,
    batches: Arc<Mutex<Vec<u8>>>,
}

impl Transport for Recorder {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        if kind(datagram) == NFNL_MSG_BATCH_BEGIN {
            self.batches.lock().unwrap().extend(datagram);
        }
        self.socket.send(datagram)
    }

    fn receive(&mut self, wait: bool) -> io::Result<Vec<u8>> {
        self.socket.receive(wait)
    }

    fn max_datagram(&self) -> usize {
        self.socket.max_datagram()
    }

    fn port(&self) -> u32 {
        self.socket.port()
    }
}

const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;

fn kind(message: &[u8]) -> u16 {
    u16::from_ne_bytes([message[4], message[5]])
}

/// Divides recorded bytes into batches.
fn batches(recorded: &[u8]) -> Vec<&[u8]> {
    let (mut out, mut begin, mut at) = (Vec::new(), 0, 0);
    while at < recorded.len() {
        let length = u32::from_ne_bytes(recorded[at..at + 4].try_into().unwrap()) as usize;
        let ends = kind(&recorded[at..]) == NFNL_MSG_BATCH_END;
        at += length.next_multiple_of(4);
        if ends {
            out.push(&recorded[begin..at]);
            begin = at;
        }
    }
    out
}

/// Creates the tables of an image in this network namespace. Kernel features that the recording version probed may be missing here, so
/// a batch may be refused; the tables must be there at the end.
fn load(recorded: &[u8]) {
    let mut socket = NetlinkSocket::open().unwrap();
    for batch in batches(recorded) {
        socket.send(batch).unwrap();
        while socket.receive(false).is_ok() {}
    }
    let survey = Survey::read(&mut Kernel::open().unwrap()).unwrap();
    let tables: Vec<String> = survey.tables.keys().map(ToString::to_string).collect();
    assert!(tables.iter().any(|table| table == "inet palisade"), "{tables:?}");
}

/// Returns the batches with which this version creates its tables, with one revoked connection.
fn record() -> Vec<u8> {
    let batches = Arc::new(Mutex::new(Vec::new()));
    let recorder = Recorder { socket: NetlinkSocket::open().unwrap(), batches: Arc::clone(&batches) };
    let kernel = Kernel::with_transport(Box::new(recorder)).unwrap();
    let (mut enforcer, _) =
        Enforcer::start_in(kernel, EnforcerOptions::default(), links(), &image_plan()).unwrap();
    let connection = Conversation::open(REVOKED_PORT);
    let ends = [address(GUARDED[0])].into();
    let entries = conntrack::list(enforcer.kernel(), &ends).unwrap();
    let entry = entries.iter().find(|entry| entry.source_port == REVOKED_PORT).unwrap();
    let revoked = enforcer.revoke(&[(FiveTuple::from(entry), entry)]).unwrap();
    assert_eq!(revoked.revoked, 1);
    drop(connection);
    enforcer.remove().unwrap();
    let recorded = batches.lock().unwrap().clone();
    // The removal is not part of the image.
    let all = self::batches(&recorded);
    let kept = all.iter().position(|batch| contains(batch, b"palisade_cut_off\0")).unwrap_or(all.len());
    all[..kept].concat()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn prepare() {
    loopback_up();
    for pod in SILENT.iter().chain(&GUARDED).chain(&PEERS) {
        if let IpAddr::V6(address) = address(pod) {
            address_on_loopback(address);
        }
    }
}

fn all_images() {
    prepare();
    if let Ok(version) = std::env::var("PALISADE_RECORD_LAYOUT") {
        let file = folder().join(format!("{version}.batch"));
        assert!(!file.exists(), "{} exists: the image of a release is never changed", file.display());
        fs::write(file, record()).unwrap();
    }
    let mut files: Vec<PathBuf> = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "batch"));
    files.sort();
    assert!(!files.is_empty(), "no image in {}", folder().display());
    for file in files {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        upgraded(&name, &fs::read(file).unwrap());
    }
}

/// The recording itself, so that it works on the day of a release.
fn own_image() {
    prepare();
    upgraded("this version", &record());
}

/// A TCP connection of a guarded pod.
struct Conversation {
    client: std::net::TcpStream,
    server: std::net::TcpStream,
}

impl Conversation {
    fn open(client_port: u16) -> Self {
        let listener = TcpListener::bind((address(PEERS[0]), SERVER_PORT)).unwrap();
        let from = SocketAddr::new(address(GUARDED[0]), client_port);
        let client = dial_from(from, listener.local_addr().unwrap(), PATIENCE).unwrap();
        let server = listener.accept().unwrap().0;
        // No TIME-WAIT: the port is used again.
        for stream in [&client, &server] {
            socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
        Self { client, server }
    }

    fn passes(&mut self, patience: Duration) -> bool {
        passes(&mut self.client, &mut self.server, patience).is_ok()
    }
}

/// Sends datagrams from one address to another without a pause, and counts those that arrive.
struct Stream {
    sent: Arc<AtomicUsize>,
    arrived: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Stream {
    fn start(from: &str, to: &str) -> Self {
        let server = UdpSocket::bind((address(to), 0)).unwrap();
        let client = UdpSocket::bind((address(from), 0)).unwrap();
        server.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let to = server.local_addr().unwrap();
        let [sent, arrived]: [Arc<AtomicUsize>; 2] = Default::default();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let counted = Arc::clone(&sent);
        let sender = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // Refused by the node's own output if the packet is dropped.
                _ = client.send_to(b"x", to);
                counted.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_micros(20));
            }
        });
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&arrived));
        let receiver = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if server.recv(&mut [0; 8]).is_ok() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { sent, arrived, stop, threads: vec![sender, receiver] }
    }

    /// Waits until so many more were sent, and returns how many arrived in all.
    fn after(&self, more: usize) -> usize {
        let until = self.sent.load(Ordering::Relaxed) + more;
        let begin = Instant::now();
        while self.sent.load(Ordering::Relaxed) < until {
            assert!(begin.elapsed() < PATIENCE);
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(10));
        self.arrived.load(Ordering::Relaxed)
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

fn upgraded(version: &str, image: &[u8]) {
    // What runs before: a connection that the image has revoked, and one that it allows.
    let mut cut = Conversation::open(REVOKED_PORT);
    load(image);
    let mut open = Conversation::open(OPEN_PORT);
    assert!(open.passes(PATIENCE), "{version}: allowed by the old table");
    crate::revocation::flush();
    let is_cut = !cut.passes(SILENCE);

    let denied: Vec<Stream> = SILENT.iter().zip(PEERS).map(|(from, to)| Stream::start(from, to)).collect();
    let allowed: Vec<Stream> = GUARDED.iter().zip(PEERS).map(|(from, to)| Stream::start(from, to)).collect();
    for (index, stream) in allowed.iter().enumerate() {
        assert!(stream.after(20) > 0, "{version}: {} sends under the old table", GUARDED[index]);
    }

    let (mut enforcer, commit) =
        Enforcer::start_in(Kernel::open().unwrap(), EnforcerOptions::default(), links(), &image_plan())
            .unwrap();
    // Two if the chains of pods have other rules: new chains are sent before the elements that lead to them.
    assert!(commit.transactions <= 2, "{version}: {commit:?}");
    for (index, stream) in denied.iter().enumerate() {
        assert_eq!(stream.after(100), 0, "{version}: packets of {} during the takeover", SILENT[index]);
    }
    for (index, stream) in allowed.iter().enumerate() {
        let before = stream.arrived.load(Ordering::Relaxed);
        assert!(stream.after(20) > before, "{version}: {} sends under the new table", GUARDED[index]);
    }
    denied.into_iter().chain(allowed).for_each(Stream::end);
    assert!(open.passes(PATIENCE), "{version}: the established connection continues");
    if is_cut {
        assert!(!cut.passes(SILENCE), "{version}: the revoked connection stays revoked");
    }
    assert_eq!(enforcer.verify().unwrap().differences, [], "{version}");
    drop((cut, open));

    // Nothing is left of the old layout: the tables and chains are those of a fresh start, and go with it.
    let tables = chains(enforcer.kernel());
    let revoked: Vec<FiveTuple> = enforcer.revoked().collect();
    assert_eq!(revoked.len(), usize::from(is_cut), "{version}: {revoked:?}");
    enforcer.restore(&revoked, &[]).unwrap();
    enforcer.remove().unwrap();
    let left = Survey::read(&mut Kernel::open().unwrap()).unwrap().tables;
    assert_eq!(left, BTreeMap::new(), "{version}");
    let (mut fresh, _) =
        Enforcer::start_in(Kernel::open().unwrap(), EnforcerOptions::default(), links(), &image_plan())
            .unwrap();
    assert_eq!(chains(fresh.kernel()), tables, "{version}");
    fresh.remove().unwrap();
    // The packets that were denied do arrive where no table is.
    let unprotected = Stream::start(SILENT[0], PEERS[0]);
    assert!(unprotected.after(20) > 0, "{version}: the test sees packets");
    unprotected.end();
}
