//! Other users of the machine open connections without end.

use std::{
    collections::VecDeque,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use super::client::{Answer, Server};

/// How many connections each thread of the flood keeps open: together more than the server does.
const KEPT: usize = 290;
/// The pause of a browser between a connection and its request.
const PAUSE: Duration = Duration::from_millis(10);
/// How many requests a page sends during the flood.
const REQUESTS: usize = 8;

/// Opens connections until the flood is over, the oldest of which are closed. They send `bytes`, and read nothing.
fn flood(address: SocketAddr, bytes: &str, (is_over, opened): (&AtomicBool, &AtomicUsize)) {
    let mut kept = VecDeque::new();
    while !is_over.load(Ordering::Relaxed) {
        let Ok(mut stream) = TcpStream::connect(address) else { continue };
        _ = stream.write_all(bytes.as_bytes());
        opened.fetch_add(1, Ordering::Relaxed);
        kept.push_back(stream);
        if kept.len() > KEPT {
            kept.pop_front();
        }
    }
}

/// Sends a request as a browser does, a moment after it has connected.
fn browse(server: &Server, path: &str) -> Answer {
    let mut stream = TcpStream::connect(server.address).unwrap();
    thread::sleep(PAUSE);
    let (host, token) = (server.address, &server.token);
    _ = write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n");
    let mut bytes = Vec::new();
    _ = stream.read_to_end(&mut bytes);
    Answer::of(&String::from_utf8(bytes).unwrap())
}

/// Returns how many requests of a page got an answer at once during a flood of connections that send `bytes`.
fn answered_during(server: &Server, bytes: &str) -> usize {
    let (is_over, opened) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| flood(server.address, bytes, (&is_over, &opened)));
        }
        while opened.load(Ordering::Relaxed) < 3 * KEPT {
            thread::sleep(PAUSE);
        }
        let answered = (0..REQUESTS).filter(|_| browse(server, "/api/v1/state").status == 200).count();
        is_over.store(true, Ordering::Relaxed);
        answered
    })
}

#[test]
fn a_flood_of_connections_closes_neither_pages_that_wait_nor_new_requests() {
    let server = Server::start(&["-f", "examples/shop"]);
    let (host, token) = (server.address, &server.token);
    let mut page = TcpStream::connect(server.address).unwrap();
    let head = format!("Host: {host}\r\nAuthorization: Bearer {token}");
    write!(page, "GET /api/v1/state?after=1 HTTP/1.1\r\n{head}\r\n\r\n").unwrap();
    page.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    // Answered after the request of the page was read.
    assert_eq!(server.get("/api/v1/state").status, 200);
    let long = "x".repeat(20_000);
    for (flood, bytes) in [
        ("of connections that send nothing", String::new()),
        ("of unfinished requests", format!("GET /{long} HTTP/1.1\r\n")),
        ("of requests without the token", format!("GET /app.js HTTP/1.1\r\nHost: {host}\r\n\r\n")),
    ] {
        let answered = answered_during(&server, &bytes);
        // A machine without a free processor may start the page late.
        assert!(answered >= REQUESTS - 1, "{answered} of {REQUESTS} requests in a flood {flood}");
    }
    let mut waited = String::new();
    page.read_to_string(&mut waited).unwrap();
    assert_eq!(Answer::of(&waited).status, 200, "answered after it has waited");
    assert_eq!(server.get("/api/v1/state").status, 200);
}

/// A browser's connection waits for its request while others are opened, as many as a flood opens within some milliseconds.
#[test]
fn a_connection_is_not_closed_for_some_hundred_others() {
    let server = Server::start(&["-f", "examples/shop"]);
    let mut page = TcpStream::connect(server.address).unwrap();
    let others: Vec<TcpStream> = (0..400).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    // Answered after all of them were accepted.
    assert_eq!(server.get("/api/v1/state").status, 200);
    let (host, token) = (server.address, &server.token);
    write!(page, "GET /api/v1/state HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    page.read_to_string(&mut answer).unwrap();
    assert_eq!(Answer::of(&answer).status, 200);
    drop(others);
}

/// Clients that load the pages and read nothing take the places of each other, and of no one who reads.
#[test]
fn slow_readers_keep_no_one_from_loading_the_pages() {
    let server = Server::start(&["-f", "examples/shop"]);
    let request = format!(
        "GET /app.js HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        server.address
    );
    let whole = browse(&server, "/app.js").body;
    let slow: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            stream
        })
        .collect();
    assert!(browse(&server, "/app.js").body == whole);
    assert_eq!(server.send(&request).status, 200);
    assert_eq!(server.get("/api/v1/report").status, 200);
    drop(slow);
}
