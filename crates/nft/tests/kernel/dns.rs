//! DNS messages of pods wait for the agent: real packets over the loopback device.

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use libtest_mimic::Trial;
use palisade_nft::{
    Kernel,
    dns_table::{self, DnsTable},
    packet_queue::{Datagram, PacketQueue, QueuedPacket, Segment},
};

use crate::{
    other_tables::nft,
    revocation::{PATIENCE, SILENCE, address_on_loopback, loopback_up},
    sandbox::{trial, trial_with_nft},
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("dns_messages_wait_for_a_verdict", messages_wait),
        trial("dns_segments_wait_for_a_verdict_and_become_resets", segments_wait),
        trial("dns_messages_pass_without_a_reader_if_that_is_wanted", messages_pass_without_a_reader),
        trial("a_pod_that_floods_dns_leaves_the_queue_to_others", flood_leaves_the_queue),
        trial("the_table_of_dns_follows_its_pods", table_follows),
        trial_with_nft("a_table_of_dns_that_another_program_changed_is_replaced", table_comes_back),
    ]
}

fn addresses(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn servers(texts: &[&str]) -> BTreeSet<SocketAddr> {
    addresses(texts).into_iter().map(|address| SocketAddr::new(address, 53)).collect()
}

fn next(queue: &mut PacketQueue) -> QueuedPacket {
    assert!(queue.wait(PATIENCE).unwrap(), "no packet waits");
    let mut packets = queue.read().unwrap();
    assert_eq!(packets.len(), 1);
    packets.remove(0)
}

fn received(socket: &UdpSocket, patience: Duration) -> Option<Vec<u8>> {
    socket.set_read_timeout(Some(patience)).unwrap();
    let mut buffer = [0; 9000];
    socket.recv_from(&mut buffer).ok().map(|(length, _)| buffer[..length].to_vec())
}

fn messages_wait() {
    loopback_up();
    let mut kernel = Kernel::open().unwrap();
    for (pod, server, other) in [("127.0.0.2", "127.0.0.3", "127.0.0.4"), ("fd00::2", "fd00::3", "fd00::4")] {
        if pod.contains(':') {
            [pod, server, other].iter().for_each(|a| address_on_loopback(a.parse().unwrap()));
        }
        let mut table = DnsTable::default();
        table.set(&mut kernel, &addresses(&[pod]), &servers(&[server])).unwrap();
        let bind = |address: &str, port| UdpSocket::bind((address.parse::<IpAddr>().unwrap(), port)).unwrap();
        let (client, dns, untrusted) = (bind(pod, 0), bind(server, 53), bind(other, 53));
        let ask = |client: &UdpSocket, server: &UdpSocket, text: &[u8]| {
            client.send_to(text, server.local_addr().unwrap()).unwrap();
        };
        // Without a reader, nothing passes.
        ask(&client, &dns, b"lost");
        assert_eq!(received(&dns, SILENCE), None);

        let mut queue = PacketQueue::open(false).unwrap();
        let verdicts = queue.verdicts();
        assert!(PacketQueue::open(false).is_err(), "a queue has one reader");
        // Longer than one frame, so that fragments are put together.
        let (question, answer) = (vec![7; 3000], vec![8; 8000]);
        ask(&client, &dns, &question);
        let query = next(&mut queue);
        let datagram = Datagram::parse(&query.bytes).unwrap();
        assert!(query.arrives);
        assert_eq!((datagram.payload, datagram.source), (&question[..], client.local_addr().unwrap()));
        assert_eq!(received(&dns, SILENCE), None, "it waits");
        verdicts.decide(query.id, true).unwrap();
        assert_eq!(received(&dns, PATIENCE), Some(question));

        dns.send_to(&answer, client.local_addr().unwrap()).unwrap();
        let held = next(&mut queue);
        assert!(!held.arrives);
        assert_eq!(Datagram::parse(&held.bytes).unwrap().payload, answer);
        assert_eq!(received(&client, SILENCE), None, "it waits");
        verdicts.decide(held.id, true).unwrap();
        assert_eq!(received(&client, PATIENCE), Some(answer));

        dns.send_to(b"no", client.local_addr().unwrap()).unwrap();
        verdicts.decide(next(&mut queue).id, false).unwrap();
        assert_eq!(received(&client, SILENCE), None, "it was dropped");

        // Other servers, and what isn't a pod, are none of its business.
        ask(&client, &untrusted, b"other");
        assert_eq!(received(&untrusted, PATIENCE), Some(b"other".to_vec()));
        ask(&untrusted, &dns, b"no pod");
        assert_eq!(received(&dns, PATIENCE), Some(b"no pod".to_vec()));
        assert!(queue.read().unwrap().is_empty());

        // What waits is dropped with the reader.
        ask(&client, &dns, b"waits");
        next(&mut queue);
        drop((queue, verdicts));
        assert_eq!(received(&dns, SILENCE), None);
        table.set(&mut kernel, &BTreeSet::new(), &servers(&[server])).unwrap();
        ask(&client, &dns, b"free");
        assert_eq!(received(&dns, PATIENCE), Some(b"free".to_vec()));
    }
}

fn messages_pass_without_a_reader() {
    loopback_up();
    let mut kernel = Kernel::open().unwrap();
    let mut table = DnsTable::new(true);
    // Another port than that of DNS, too.
    let server: SocketAddr = "127.0.0.3:5353".parse().unwrap();
    let pods: BTreeSet<IpAddr> = (0..20).map(|pod| [127, 0, 1, pod].into()).chain([[127, 0, 0, 2].into()]).collect();
    table.set(&mut kernel, &pods, &[server].into()).unwrap();
    let (client, dns) = (UdpSocket::bind("127.0.0.2:0").unwrap(), UdpSocket::bind(server).unwrap());
    let others: Vec<UdpSocket> =
        (0..20).map(|pod| UdpSocket::bind((IpAddr::from([127, 0, 1, pod]), 0)).unwrap()).collect();
    client.send_to(b"away", server).unwrap();
    assert_eq!(received(&dns, PATIENCE), Some(b"away".to_vec()));

    // With a reader they wait, and pass once the queue is full.
    let mut queue = PacketQueue::open(true).unwrap();
    client.send_to(b"waits", server).unwrap();
    assert_eq!(received(&dns, SILENCE), None);
    let waits = next(&mut queue);
    flood(&others, server);
    let passed = received(&dns, PATIENCE).expect("the queue is full");
    assert!(u32::from_be_bytes(passed.try_into().unwrap()) >= 4000);
    queue.verdicts().decide(waits.id, true).unwrap();
    drop(queue);

    let mut table = DnsTable::new(false);
    table.set(&mut kernel, &pods, &[server].into()).unwrap();
    while received(&dns, SILENCE).is_some() {}
    client.send_to(b"away", server).unwrap();
    assert_eq!(received(&dns, SILENCE), None, "it is dropped again");
    let queue = PacketQueue::open(false).unwrap();
    flood(&others, server);
    assert_eq!(received(&dns, SILENCE), None, "the queue is full");
    drop(queue);
}

/// Sends more than the queue holds, none of the pods more than its share.
fn flood(pods: &[UdpSocket], server: SocketAddr) {
    for number in 1..5000_u32 {
        pods[number as usize % pods.len()].send_to(&number.to_be_bytes(), server).unwrap();
    }
}

/// Opens a socket beside others of the same address and port.
fn bind_beside(address: SocketAddr) -> UdpSocket {
    let socket =
        socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::DGRAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.into()
}

/// A pod that is flooded by its queries or by answers has a share of the queue. The rest is dropped, or passes unread.
fn flood_leaves_the_queue() {
    loopback_up();
    let mut kernel = Kernel::open().unwrap();
    for [flooding, calm, server] in
        [["127.0.0.2", "127.0.0.4", "127.0.0.3"], ["fd00::2", "fd00::4", "fd00::3"]]
    {
        if server.contains(':') {
            [flooding, calm, server].iter().for_each(|a| address_on_loopback(a.parse().unwrap()));
        }
        let bind = |address: &str| UdpSocket::bind((address.parse::<IpAddr>().unwrap(), 0)).unwrap();
        let (flooding_pod, calm_pod) = (bind(flooding), bind(calm));
        let dns = bind_beside(SocketAddr::new(server.parse().unwrap(), 53));
        for (is_open, is_answer) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut table = DnsTable::new(is_open);
            table.set(&mut kernel, &addresses(&[flooding, calm]), &servers(&[server])).unwrap();
            let mut queue = PacketQueue::open(is_open).unwrap();
            // What waits before it leaves counts for its socket, so there are many.
            let beside: Vec<UdpSocket> =
                (0..if is_answer { 20 } else { 0 }).map(|_| bind_beside(dns.local_addr().unwrap())).collect();
            // No verdict is given meanwhile.
            for number in 0..5000_u32 {
                let (from, to) = match &beside[..] {
                    [] => (&flooding_pod, &dns),
                    servers => (&servers[number as usize % servers.len()], &flooding_pod),
                };
                // The host that sends what is dropped before it leaves gets an error.
                _ = from.send_to(&number.to_be_bytes(), to.local_addr().unwrap());
            }
            let (from, to) = if is_answer { (&dns, &calm_pod) } else { (&calm_pod, &dns) };
            from.send_to(b"calm", to.local_addr().unwrap()).unwrap();
            let mut waiting = Vec::new();
            while queue.wait(SILENCE).unwrap() {
                waiting.extend(queue.read().unwrap());
            }
            let is_calm = |packet: &QueuedPacket| {
                Datagram::parse(&packet.bytes).is_some_and(|datagram| datagram.payload == b"calm")
            };
            assert!(waiting.iter().any(is_calm), "{} wait", waiting.len());
            assert!(waiting.len() < 2500, "{} wait", waiting.len());
            let over = table.over_share(&mut kernel).unwrap();
            assert_eq!(over as usize, 5001 - waiting.len(), "what is over is counted");
            let receiver = if is_answer { &flooding_pod } else { &dns };
            assert_eq!(received(receiver, SILENCE).is_some(), is_open, "answers: {is_answer}");
            while received(receiver, Duration::from_millis(5)).is_some() {}
        }
        let mut table = DnsTable::new(false);
        table.set(&mut kernel, &BTreeSet::new(), &servers(&[server])).unwrap();
    }
}

fn segments_wait() {
    loopback_up();
    let mut kernel = Kernel::open().unwrap();
    for (pod, server) in [("127.0.0.2", "127.0.0.3"), ("fd00::2", "fd00::3")] {
        if pod.contains(':') {
            [pod, server].iter().for_each(|a| address_on_loopback(a.parse().unwrap()));
        }
        let mut table = DnsTable::default();
        table.set(&mut kernel, &addresses(&[pod]), &servers(&[server])).unwrap();
        let listener = TcpListener::bind((server.parse::<IpAddr>().unwrap(), 53)).unwrap();
        let mut queue = PacketQueue::open(false).unwrap();
        let verdicts = queue.verdicts();
        // Bound to the pod's address.
        let (to, from) = (listener.local_addr().unwrap(), pod.parse::<IpAddr>().unwrap());
        let client = thread::spawn(move || {
            let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None);
            let socket = socket.unwrap();
            socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
            socket.connect(&to.into()).unwrap();
            let mut stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut seen = [0; 5];
            stream.read_exact(&mut seen).unwrap();
            (seen, stream.read(&mut [0]).map_err(|e| e.kind()))
        });
        let mut sent = false;
        let mut accepted: Option<TcpStream> = None;
        let begin = std::time::Instant::now();
        while !client.is_finished() {
            assert!(begin.elapsed() < PATIENCE, "the client hangs");
            if !queue.wait(Duration::from_millis(50)).unwrap() {
                if accepted.is_none() {
                    listener.set_nonblocking(true).unwrap();
                    accepted = listener.accept().ok().map(|(stream, _)| stream);
                }
                if let Some(stream) = &mut accepted {
                    stream.set_nonblocking(false).unwrap();
                    // The first is released, the second reset.
                    _ = stream.write_all(if sent { b"never" } else { b"first" });
                    sent = true;
                }
                continue;
            }
            for packet in queue.read().unwrap() {
                let segment = Segment::parse(&packet.bytes).unwrap();
                assert_eq!(segment.destination.port() == 53, packet.arrives);
                if segment.payload == b"never" {
                    verdicts.replace(packet.id, &segment.to_reset()).unwrap();
                } else {
                    verdicts.decide(packet.id, true).unwrap();
                }
            }
        }
        assert_eq!(client.join().unwrap(), (*b"first", Err(ErrorKind::ConnectionReset)));
        table.set(&mut kernel, &BTreeSet::new(), &servers(&[server])).unwrap();
    }
}

/// Another program removes the table, or the rules of its chains.
fn table_comes_back() {
    let mut kernel = Kernel::open().unwrap();
    let mut table = DnsTable::default();
    let (pods, server) = (addresses(&["10.0.0.2"]), servers(&["10.96.0.10"]));
    table.set(&mut kernel, &pods, &server).unwrap();
    assert!(table.is_intact(&mut kernel).unwrap());
    for command in ["delete table inet palisade_dns", "flush table inet palisade_dns"] {
        nft(command);
        assert!(!table.is_intact(&mut kernel).unwrap(), "{command}");
        table.set(&mut kernel, &pods, &server).unwrap();
        assert!(table.is_intact(&mut kernel).unwrap(), "{command}");
    }
}

fn table_follows() {
    let mut kernel = Kernel::open().unwrap();
    let mut table = DnsTable::default();
    let server = servers(&["10.96.0.10", "fd00::a"]);
    assert!(!dns_table::remove(&mut kernel).unwrap());
    table.set(&mut kernel, &BTreeSet::new(), &server).unwrap();
    assert!(!dns_table::remove(&mut kernel).unwrap(), "no pods, no table");
    for pods in [&["10.0.0.1"][..], &["10.0.0.2", "fd00::1"], &["10.0.0.2"], &["10.0.0.2"]] {
        let before = kernel.kernel_generation().unwrap();
        table.set(&mut kernel, &addresses(pods), &server).unwrap();
        assert!(kernel.kernel_generation().unwrap() <= before + 1);
    }
    let before = kernel.kernel_generation().unwrap();
    table.set(&mut kernel, &addresses(&["10.0.0.2"]), &server).unwrap();
    assert_eq!(kernel.kernel_generation().unwrap(), before, "nothing has changed");
    // An addition fails then, and the next call replaces it.
    assert!(dns_table::remove(&mut kernel).unwrap());
    assert!(table.set(&mut kernel, &addresses(&["10.0.0.3"]), &server).is_err());
    table.set(&mut kernel, &addresses(&["10.0.0.3"]), &server).unwrap();
    table.set(&mut kernel, &addresses(&["10.0.0.3"]), &servers(&["10.96.0.11"])).unwrap();
    table.set(&mut kernel, &BTreeSet::new(), &server).unwrap();
    assert!(!dns_table::remove(&mut kernel).unwrap());
}
