use std::net::Ipv4Addr;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::*;

/// In virtual time: longer than any timeout here.
const PATIENCE: Duration = Duration::from_secs(600);

/// Serves all pages at the first address and health at the second. Nothing reads the inbox, as during a long transaction.
async fn start() -> (SocketAddr, SocketAddr, Arc<Health>) {
    let health = Arc::new(Health::default());
    let state = HttpState::new(Arc::new(Metrics::new("1.0", "n1")), Arc::clone(&health), Arc::default());
    // The first is bound to every address, so that many peers can connect; the second to loopback, as for the kubelet.
    let all = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let health_only = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut address = all.local_addr().unwrap();
    address.set_ip(Ipv4Addr::LOCALHOST.into());
    let health_address = health_only.local_addr().unwrap();
    tokio::spawn(serve(all, Pages::All, Arc::clone(&state)));
    tokio::spawn(serve(health_only, Pages::Health, state));
    (address, health_address, health)
}

async fn send(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may close the connection before everything is sent.
    _ = stream.write_all(request).await;
    let mut response = Vec::new();
    _ = timeout(PATIENCE, stream.read_to_end(&mut response)).await.unwrap();
    String::from_utf8(response).unwrap()
}

async fn get(address: SocketAddr, path: &str) -> String {
    send(address, format!("GET {path} HTTP/1.1\r\nHost: n1\r\n\r\n").as_bytes()).await
}

#[tokio::test(start_paused = true)]
async fn health_and_metrics_are_served_while_a_transaction_runs() {
    let (address, health_address, health) = start().await;
    for address in [address, health_address] {
        health.set_not_ready(Some("the agent is starting".to_owned()));
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200 "));
        let starting = get(address, "/readyz").await;
        assert!(starting.starts_with("HTTP/1.1 503 ") && starting.ends_with("the agent is starting\n"));
        health.set_not_ready(None);
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200 "));
    }
    let metrics = get(address, "/metrics").await;
    assert!(metrics.contains("openmetrics-text") && metrics.ends_with("# EOF\n"), "{metrics}");
    assert!(metrics.contains("# HELP palisade_ready "), "{metrics}");
    let elsewhere = get(health_address, "/metrics").await;
    assert!(elsewhere.starts_with("HTTP/1.1 404 ") && elsewhere.contains("--listen"), "{elsewhere}");
}

#[tokio::test(start_paused = true)]
async fn invalid_requests_are_refused() {
    let (address, ..) = start().await;
    assert!(get(address, "/").await.starts_with("HTTP/1.1 404 "));
    let post = send(address, b"POST /metrics HTTP/1.1\r\nHost: n1\r\nContent-Length: 0\r\n\r\n").await;
    assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET, HEAD"), "{post}");
    assert!(send(address, b"\x16\x03\x01\x02\x00 not HTTP\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    let endless = [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'a'; 1 << 20]].concat();
    assert!(!send(address, &endless).await.contains(" 200 "));
}

/// Connects from an address of the loopback network.
fn connect_from(peer: u8, to: SocketAddr) -> TcpStream {
    use std::os::fd::AsRawFd as _;
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 1, peer, 0)).unwrap();
    connect(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, to.port())).unwrap();
    let stream = std::net::TcpStream::from(socket);
    stream.set_nonblocking(true).unwrap();
    TcpStream::from_std(stream).unwrap()
}

fn is_open(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
}

/// Idle connections, and request heads that arrive byte by byte: from one address, from many, and at the address for health.
/// Other clients still get responses, and the process keeps few of the connections.
#[tokio::test(start_paused = true)]
async fn a_thousand_idle_connections_do_not_keep_other_clients_from_a_response() {
    let (address, health_address, _) = start().await;
    for (to, peers) in [(address, 1), (address, 250), (health_address, 1)] {
        let mut held: Vec<TcpStream> = Vec::new();
        for number in 0..1000_u32 {
            let mut stream = connect_from((number % peers) as u8, to);
            if number % 2 == 0 {
                stream.write_all(b"GET /healthz HTTP/1.1\r\nX: ").await.unwrap();
            }
            held.push(stream);
            if number % 100 == 99 {
                // Slow clients continue; writes to closed connections fail, which is expected.
                for stream in &mut held {
                    _ = stream.write_all(b"a").await;
                }
                for address in [address, health_address] {
                    let response = get(address, "/healthz").await;
                    assert!(response.starts_with("HTTP/1.1 200 "), "{to} {peers} {number}: {response:?}");
                }
            }
        }
        assert!(get(address, "/metrics").await.ends_with("# EOF\n"));
        let limits = if to == health_address { Pages::Health.limits() } else { Pages::All.limits() };
        let most = if peers == 1 { limits.per_peer } else { limits.total };
        let open = held.iter().filter(|stream| is_open(stream)).count();
        assert!(open <= most, "{open} connections are open, of at most {most}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_although_no_other_client_needs_its_slot() {
    let (address, ..) = start().await;
    let begin = Instant::now();
    assert_eq!(send(address, b"").await, "");
    assert!(begin.elapsed() >= HEAD_TIMEOUT && begin.elapsed() < CONNECTION_TIMEOUT, "{:?}", begin.elapsed());
}

/// A program that uses the port must not keep policies from being enforced. The address is bound once it is free.
#[tokio::test(start_paused = true)]
async fn an_address_that_is_in_use_is_retried() {
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = other.local_addr().unwrap();
    let state = HttpState::new(Arc::new(Metrics::new("1.0", "n1")), Arc::default(), Arc::default());
    tokio::spawn(run(address, Pages::Health, state));
    sleep(BIND_RETRY / 2).await;
    drop(other);
    let begin = Instant::now();
    while TcpStream::connect(address).await.is_err() {
        assert!(begin.elapsed() < PATIENCE);
        sleep(BIND_RETRY / 10).await;
    }
    assert!(begin.elapsed() >= BIND_RETRY / 2, "{:?}", begin.elapsed());
    assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200 "));
}
