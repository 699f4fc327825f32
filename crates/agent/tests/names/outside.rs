//! DNS servers, and a server at every address.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    thread,
};

use crate::{
    messages,
    topology::{Nodes, server},
};

/// The numbers of the addresses that are answered next, for each family.
pub(crate) type Next = Arc<[AtomicU16; 2]>;

/// Starts the DNS servers, which answer each query with another address, and a server at every address, which returns what it gets.
/// Returns the next addresses.
pub(crate) fn serve(nodes: &Nodes) -> Next {
    let next = Arc::new([AtomicU16::new(0), AtomicU16::new(0)]);
    for (namespace, address) in [
        (&nodes.outside, "203.0.113.2:53"),
        (&nodes.outside, "[2001:db8::2]:53"),
        (&nodes.node, "169.254.20.10:53"),
        (&nodes.node, "169.254.20.10:5353"),
    ] {
        let address: SocketAddr = address.parse().unwrap();
        let bind = || (UdpSocket::bind(address).unwrap(), TcpListener::bind(address).unwrap());
        let (udp, tcp) = namespace.run(bind).unwrap();
        let (for_udp, for_tcp) = (Arc::clone(&next), Arc::clone(&next));
        thread::spawn(move || answer_datagrams(&udp, &for_udp));
        thread::spawn(move || {
            for stream in tcp.incoming() {
                let next = Arc::clone(&for_tcp);
                thread::spawn(move || answer_stream(stream.unwrap(), &next));
            }
        });
    }
    // Of both families: mapped addresses are IPv4.
    let all = nodes.outside.run(|| TcpListener::bind("[::]:443").unwrap()).unwrap();
    thread::spawn(move || {
        for stream in all.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
            });
        }
    });
    next
}

fn answer(query: &[u8], next: &Next) -> Vec<u8> {
    let family = messages::family(query);
    messages::answer(query, server(family, next[family].fetch_add(1, Ordering::SeqCst).into()))
}

fn answer_datagrams(socket: &UdpSocket, next: &Next) {
    let mut buffer = [0; 512];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        let query = &buffer[..length];
        let answer = if messages::is_big(query) { messages::truncated(query) } else { answer(query, next) };
        _ = socket.send_to(&answer, from);
    }
}

fn answer_stream(mut stream: TcpStream, next: &Next) {
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut query = vec![0; u16::from_be_bytes(length).into()];
        if stream.read_exact(&mut query).is_err() {
            return;
        }
        let answer = answer(&query, next);
        if stream.write_all(&[&(answer.len() as u16).to_be_bytes()[..], &answer].concat()).is_err() {
            return;
        }
    }
}
