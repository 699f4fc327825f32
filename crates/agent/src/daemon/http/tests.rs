use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream as Blocking},
    thread,
};

use super::*;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Serves all pages, and health alone, until the process ends. Nothing reads the inbox, as during a long
/// transaction.
fn start() -> (SocketAddr, SocketAddr, Arc<Health>) {
    let health = Arc::new(Health::default());
    let shown = Shown::new(Arc::new(Metrics::new("1.0", "n1")), Arc::clone(&health), Arc::default());
    let listener = |at: &str| {
        let listener = std::net::TcpListener::bind(at).unwrap();
        listener.set_nonblocking(true).unwrap();
        (listener.local_addr().unwrap(), listener)
    };
    // On every address, so that many peers can ask; not on loopback, which health has alone.
    let ((mut address, all), (health_address, alone)) = (listener("0.0.0.0:0"), listener("127.0.0.1:0"));
    address.set_ip(Ipv4Addr::LOCALHOST.into());
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = |l| TcpListener::from_std(l).unwrap();
            let alone = serve(listener(alone), Pages::Health, Arc::clone(&shown));
            tokio::join!(alone, serve(listener(all), Pages::All, shown));
        });
    });
    (address, health_address, health)
}

fn ask(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = Blocking::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The other side may have seen enough before everything is sent.
    _ = stream.write_all(request);
    let mut answer = Vec::new();
    _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn get(address: SocketAddr, path: &str) -> String {
    ask(address, format!("GET {path} HTTP/1.1\r\nHost: n1\r\n\r\n").as_bytes())
}

#[test]
fn health_and_metrics_are_told_also_while_a_transaction_runs() {
    let (address, alone, health) = start();
    for address in [address, alone] {
        health.set(Some("the agent is starting".to_owned()));
        assert!(get(address, "/healthz").starts_with("HTTP/1.1 200 "));
        let starting = get(address, "/readyz");
        assert!(starting.starts_with("HTTP/1.1 503 ") && starting.ends_with("the agent is starting\n"));
        health.set(None);
        assert!(get(address, "/readyz").starts_with("HTTP/1.1 200 "));
    }
    let metrics = get(address, "/metrics");
    assert!(metrics.contains("openmetrics-text") && metrics.ends_with("# EOF\n"), "{metrics}");
    assert!(metrics.contains("# HELP palisade_ready Whether "), "{metrics}");
    let elsewhere = get(alone, "/metrics");
    assert!(elsewhere.starts_with("HTTP/1.1 404 ") && elsewhere.contains("--listen"), "{elsewhere}");
}

#[test]
fn what_is_no_question_of_ours_is_refused() {
    let (address, ..) = start();
    assert!(get(address, "/").starts_with("HTTP/1.1 404 "));
    let post = ask(address, b"POST /metrics HTTP/1.1\r\nHost: n1\r\nContent-Length: 0\r\n\r\n");
    assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET, HEAD"), "{post}");
    assert!(ask(address, b"\x16\x03\x01\x02\x00 no http at all\r\n\r\n").starts_with("HTTP/1.1 400 "));
    let endless = [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'a'; 1 << 20]].concat();
    assert!(!ask(address, &endless).contains(" 200 "));
}

/// A connection from one of the addresses of the loopback network.
fn connect_from(peer: u8, to: SocketAddr) -> Blocking {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
    use std::os::fd::AsRawFd as _;
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 1, peer, 0)).unwrap();
    connect(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, to.port())).unwrap();
    socket.into()
}

fn is_open(stream: &Blocking) -> bool {
    stream.set_nonblocking(true).unwrap();
    matches!((&*stream).read(&mut [0]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
}

/// Silent connections, and heads of requests that come byte by byte: from one address, from many, and at the address of
/// health itself. Everybody else is answered meanwhile, and the process keeps few of them.
#[test]
fn a_thousand_connections_that_ask_nothing_keep_nobody_from_an_answer() {
    let (address, alone, _) = start();
    for (to, peers) in [(address, 1), (address, 250), (alone, 1)] {
        let mut held: Vec<Blocking> = Vec::new();
        for number in 0..1000_u32 {
            let mut stream = connect_from((number % peers) as u8, to);
            if number % 2 == 0 {
                stream.write_all(b"GET /healthz HTTP/1.1\r\nX: ").unwrap();
            }
            held.push(stream);
            if number % 100 == 99 {
                // The dribblers go on; those that were closed don't mind.
                held.iter().for_each(|mut stream| _ = stream.write_all(b"a"));
                for address in [address, alone] {
                    let answer = get(address, "/healthz");
                    assert!(answer.starts_with("HTTP/1.1 200 "), "{to} {peers} {number}: {answer:?}");
                }
            }
        }
        assert!(get(address, "/metrics").ends_with("# EOF\n"));
        let limits = if to == alone { Pages::Health.limits() } else { Pages::All.limits() };
        let most = if peers == 1 { limits.of_one } else { limits.overall };
        let begin = Instant::now();
        // Those that were given up are told so a moment later.
        while held.iter().filter(|stream| is_open(stream)).count() > most {
            assert!(begin.elapsed() < PATIENCE);
        }
    }
}

#[test]
fn a_connection_that_asks_nothing_is_closed_though_nobody_wants_its_place() {
    let (address, ..) = start();
    let silent = connect_from(1, address);
    let begin = Instant::now();
    while is_open(&silent) {
        assert!(begin.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(20));
    }
    assert!(begin.elapsed() < LONGEST, "{:?}", begin.elapsed());
}

/// Who has the port must not keep policies from being enforced; the address is taken once it is free.
#[test]
fn an_address_that_is_taken_is_tried_again() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let shown = Shown::new(Arc::new(Metrics::new("1.0", "n1")), Arc::default(), Arc::default());
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(address, Pages::Health, shown));
    });
    thread::sleep(Duration::from_millis(100));
    drop(taken);
    let begin = Instant::now();
    while Blocking::connect(address).is_err() {
        assert!(begin.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(20));
    }
    assert!(get(address, "/healthz").starts_with("HTTP/1.1 200 "));
}
