//! A collector: a small HTTP server that keeps what it receives, and answers as a test wants, also as no server should.

use std::{
    io::{self, BufRead as _, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest},
    common::v1::KeyValue,
    logs::v1::LogRecord,
    metrics::v1::Metric,
};
use prost::Message as _;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// How requests are answered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// With a status, and more lines of headers.
    Status(u16, &'static str),
    /// Not at all, on a connection that stays open.
    Nothing,
    /// By closing the connection.
    Close,
    /// With a status and a body that never comes.
    HangingBody(u16),
    /// With a status and a body without an end.
    EndlessBody(u16),
    /// With headers without an end.
    EndlessHeaders,
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) path: String,
    /// Lines of the header, in lower case.
    pub(crate) headers: Vec<String>,
    body: Vec<u8>,
}

#[derive(Debug)]
struct Shared {
    answer: Mutex<Answer>,
    received: Mutex<Vec<Received>>,
    /// Connections whose TLS handshake failed, or that ended in the middle of a request.
    failed: AtomicU64,
    /// Bytes of endless answers that were taken.
    endless: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

impl Collector {
    /// Starts a collector that accepts what it gets; with a configuration, over TLS.
    pub(crate) fn start(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            answer: Mutex::new(Answer::Status(200, "")),
            received: Mutex::default(),
            failed: AtomicU64::new(0),
            endless: AtomicU64::new(0),
        });
        let of_thread = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (shared, tls) = (Arc::clone(&of_thread), tls.clone());
                thread::spawn(move || {
                    let stream = stream.unwrap();
                    let served = match tls {
                        None => shared.serve(&mut BufReader::new(stream)),
                        Some(config) => {
                            let connection = ServerConnection::new(config).unwrap();
                            shared.serve(&mut BufReader::new(StreamOwned::new(connection, stream)))
                        }
                    };
                    if served.is_err() {
                        shared.failed.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        Self { address, shared }
    }

    pub(crate) fn answer(&self, answer: Answer) {
        *self.shared.answer.lock().unwrap() = answer;
    }

    /// The requests for a path.
    pub(crate) fn received(&self, path: &str) -> Vec<Received> {
        let all = self.shared.received.lock().unwrap();
        all.iter().filter(|request| request.path == path).cloned().collect()
    }

    /// The attributes of the resource, and the records, of all requests so far.
    pub(crate) fn logs(&self, path: &str) -> (Vec<KeyValue>, Vec<LogRecord>) {
        let (mut resource, mut logs) = (Vec::new(), Vec::new());
        for request in self.received(path) {
            for one in ExportLogsServiceRequest::decode(&*request.body).unwrap().resource_logs {
                resource = one.resource.unwrap().attributes;
                logs.extend(one.scope_logs.into_iter().flat_map(|scope| scope.log_records));
            }
        }
        (resource, logs)
    }

    /// The latest metrics.
    pub(crate) fn metrics(&self, path: &str) -> Vec<Metric> {
        let Some(request) = self.received(path).pop() else { return Vec::new() };
        let found = ExportMetricsServiceRequest::decode(&*request.body).unwrap().resource_metrics;
        let scopes = found.into_iter().flat_map(|one| one.scope_metrics);
        scopes.flat_map(|scope| scope.metrics).collect()
    }

    pub(crate) fn failed(&self) -> u64 {
        self.shared.failed.load(Ordering::Relaxed)
    }

    pub(crate) fn endless(&self) -> u64 {
        self.shared.endless.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// Answers the requests of a connection until it ends.
    fn serve(&self, stream: &mut BufReader<impl Stream>) -> io::Result<()> {
        while let Some(request) = read(stream)? {
            self.received.lock().unwrap().push(request);
            let answer = *self.answer.lock().unwrap();
            self.respond(stream.get_mut(), answer)?;
            if !matches!(answer, Answer::Status(..)) {
                break;
            }
        }
        Ok(())
    }

    fn respond(&self, stream: &mut impl Stream, answer: Answer) -> io::Result<()> {
        match answer {
            Answer::Status(status, headers) => {
                stream.write_all(
                    format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n{headers}\r\n").as_bytes(),
                )?;
            }
            Answer::Close => {}
            Answer::Nothing => self.hang(stream),
            Answer::HangingBody(status) => {
                stream.write_all(format!("HTTP/1.1 {status} x\r\ncontent-length: 9\r\n\r\n").as_bytes())?;
                stream.flush()?;
                self.hang(stream);
            }
            Answer::EndlessBody(status) => {
                stream.write_all(format!("HTTP/1.1 {status} x\r\n\r\n").as_bytes())?;
                self.write_without_end(stream, &[0x55; 4096]);
            }
            Answer::EndlessHeaders => {
                stream.write_all(b"HTTP/1.1 200 x\r\n")?;
                self.write_without_end(stream, b"x-padding: 0123456789abcdef0123456789abcdef\r\n");
            }
        }
        stream.flush()
    }

    /// Waits until the other end closes the connection.
    fn hang(&self, stream: &mut impl Stream) {
        while matches!(stream.read(&mut [0; 64]), Ok(1..)) {}
    }

    /// Writes until the other end closes the connection.
    fn write_without_end(&self, stream: &mut impl Stream, part: &[u8]) {
        while stream.write_all(part).and_then(|()| stream.flush()).is_ok() {
            self.endless.fetch_add(part.len() as u64, Ordering::Relaxed);
        }
    }
}

/// Reads a request. `None` at the end of the connection.
fn read(stream: &mut BufReader<impl Stream>) -> io::Result<Option<Received>> {
    let (mut line, mut headers) = (String::new(), Vec::new());
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    loop {
        let mut header = String::new();
        stream.read_line(&mut header)?;
        match header.trim_end() {
            "" => break,
            header => headers.push(header.to_owned()),
        }
    }
    let length = headers.iter().find_map(|h| h.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body)?;
    Ok(Some(Received { path, headers, body }))
}
