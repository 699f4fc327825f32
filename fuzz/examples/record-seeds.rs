//! Records the seeds of the netlink targets from the kernel: `fuzz/run --record-seeds`.

use std::{
    env, fs, io,
    net::{TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

// Instrumented code needs what libFuzzer defines.
use libfuzzer_sys as _;
use palisade_fuzz::nft::plan;
use palisade_nft::{Enforcer, Kernel, NetlinkSocket, Transport, conntrack, reader::Ruleset};
use palisade_policy::NodePlan;

/// A reply of the kernel, and the request that it answers.
#[derive(Default)]
struct Tape {
    first: u32,
    datagrams: Vec<Vec<u8>>,
}

struct Recorder {
    socket: NetlinkSocket,
    tape: Arc<Mutex<Tape>>,
}

impl Transport for Recorder {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        self.tape.lock().unwrap().first = number(datagram, 8);
        self.socket.send(datagram)
    }

    fn receive(&mut self, wait: bool) -> io::Result<Vec<u8>> {
        let mut datagram = self.socket.receive(wait)?;
        let received = datagram.clone();
        let mut tape = self.tape.lock().unwrap();
        // Numbered from the request, which any request can be.
        let mut at = 0;
        while at + 16 <= datagram.len() {
            let (length, sequence) = (number(&datagram, at) as usize, number(&datagram, at + 8));
            datagram[at + 8..at + 12].copy_from_slice(&sequence.wrapping_sub(tape.first).to_ne_bytes());
            datagram[at + 12..at + 16].fill(0);
            at += length.max(16).next_multiple_of(4);
        }
        tape.datagrams.push(datagram);
        Ok(received)
    }

    fn max_datagram(&self) -> usize {
        self.socket.max_datagram()
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// The messages of the tape, at most so many of a kind, without those that end a listing or acknowledge, and without the number of the
/// last transaction.
fn objects(tape: &Tape, most: usize) -> Vec<u8> {
    let mut out: Vec<Vec<u8>> = Vec::new();
    for datagram in &tape.datagrams {
        let mut at = 0;
        while at + 16 <= datagram.len() {
            let length = number(datagram, at) as usize;
            let message = &datagram[at..at + length];
            let kind = u16::from_ne_bytes([message[4], message[5]]);
            let mut message = message.to_vec();
            message[8..12].fill(0);
            message.resize(length.next_multiple_of(4), 0);
            let of_kind = out.iter().filter(|other| other[4..6] == message[4..6]).count();
            if kind > 3 && kind != 0xa0f && of_kind < most && !out.contains(&message) {
                out.push(message);
            }
            at += length.next_multiple_of(4);
        }
    }
    out.concat()
}

fn main() {
    let seeds = env::args().nth(1).expect("the folder of the seeds");
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let folder = Path::new(&seeds).join(target);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), bytes).unwrap();
    };
    assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
    let tape = Arc::new(Mutex::new(Tape::default()));
    let open = || {
        let recorder = Recorder { socket: NetlinkSocket::open().unwrap(), tape: Arc::clone(&tape) };
        Kernel::with_transport(Box::new(recorder)).unwrap()
    };
    let take = || std::mem::take(&mut *tape.lock().unwrap());
    let replies = |what: u8, tape: &Tape| [&[what][..], &tape.datagrams.concat()].concat();

    for (name, plan) in [("empty", NodePlan::default()), ("plan", plan())] {
        take();
        let (mut enforcer, _) = Enforcer::start(open(), &plan).unwrap();
        let answers = take();
        write("nft-replies", &format!("start-{name}"), &replies(1, &answers));
        Ruleset::read(enforcer.kernel()).unwrap().unwrap();
        let answers = take();
        if name == "plan" {
            write("nft-dump", "whole", &objects(&answers, usize::MAX));
            write("nft-dump", "small", &objects(&answers, 3));
        } else {
            write("nft-replies", "read", &replies(0, &answers));
        }
        // Notifications about a transaction have the form of a listing, and end with NFT_MSG_NEWGEN.
        let end =
            [0, 0, 0, 0, 8, 0, 1, 0, 0, 0, 0, 9, 8, 0, 2, 0, 0, 0, 0, 7, 8, 0, 3, 0, b'n', b'f', b't', 0];
        let notifications = [objects(&answers, 3), message(0xa0f, &end)].concat();
        write("nft-drift", name, &notifications);
        // While the table exists, connections are tracked.
        let (listener, udp) =
            (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("[::1]:0").unwrap());
        let _stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        udp.send_to(b"x", udp.local_addr().unwrap()).unwrap();
        take();
        let ends = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()].into();
        let entries = conntrack::list(enforcer.kernel(), &ends).unwrap();
        assert!(!entries.is_empty(), "nothing is tracked");
        let answers = take();
        // The target requests other ends: 127.0.0.1 becomes 10.0.0.1, ::1 becomes fd00::1.
        let answers = Tape {
            datagrams: answers.datagrams.iter().map(|datagram| renamed(datagram)).collect(),
            ..answers
        };
        write("nft-conntrack", name, &objects(&answers, usize::MAX));
        write("nft-replies", &format!("conntrack-{name}"), &replies(4, &answers));
        drop(enforcer);
        take();
        palisade_nft::remove(&mut open()).unwrap();
        write("nft-replies", &format!("remove-{name}"), &replies(2, &take()));
    }

    let v4 = [0x45, 0, 0, 24, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x82, 0x35, 0, 80];
    let mut v6 = vec![0x60, 0, 0, 0, 0, 12, 44, 64];
    v6.extend([0xfd; 16].iter().chain(&[0xfc; 16]));
    // A fragment, then UDP.
    v6.extend([17, 0, 0, 1, 0, 0, 0, 9, 0x82, 0x35, 0, 53]);
    for (name, prefix, packet) in
        [("v4", palisade_nft::LOG_INGRESS, &v4[..]), ("v6", palisade_nft::LOG_EGRESS, &v6)]
    {
        // NFULA_PACKET_HDR, NFULA_IFINDEX_INDEV, NFULA_PAYLOAD, NFULA_PREFIX, NFULA_SEQ.
        let prefix = [prefix.as_bytes(), &[0]].concat();
        let attributes =
            [(1, &[8, 0, 2, 0][..]), (4, &[0, 0, 0, 7]), (9, packet), (10, &prefix), (12, &[0; 4])];
        let attributes: Vec<u8> =
            attributes.iter().flat_map(|(kind, payload)| attribute(*kind, payload)).collect();
        write("nft-drops", name, &message(4 << 8, &[&[2, 0, 0, 0][..], &attributes].concat()));
    }
}

fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = (16 + payload.len() as u32).to_ne_bytes().to_vec();
    out.extend(kind.to_ne_bytes());
    out.extend([0; 10]);
    out.extend(payload);
    out
}

fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = (4 + payload.len() as u16).to_ne_bytes().to_vec();
    out.extend(kind.to_ne_bytes());
    out.extend(payload);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

fn renamed(datagram: &[u8]) -> Vec<u8> {
    let mut out = datagram.to_vec();
    for (from, to) in [
        (&[127, 0, 0, 1][..], &[10, 0, 0, 1][..]),
        (
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        ),
    ] {
        for at in 0..out.len().saturating_sub(from.len()) {
            if out[at..].starts_with(from) {
                out[at..at + to.len()].copy_from_slice(to);
            }
        }
    }
    out
}
