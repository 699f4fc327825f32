//! A minimal API server for the agent's watches: streamed lists, then pod events at a fixed rate. It runs in its own process, so
//! that its resources don't count for the agent.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use palisade_policy::{Change, Cluster, Interner, ObjectKey, Pod};

use crate::{
    json,
    stream::{Events, Size, frame, pods},
};

/// The prefix of pod names that contain the time at which they were sent.
pub(crate) const MARKER: &str = "marker-";

/// What the server sends.
#[derive(Clone, Copy)]
pub(crate) struct Script {
    pub(crate) size: Size,
    pub(crate) seconds: usize,
    pub(crate) rate: usize,
}

/// Prints its port and serves until its process is killed. Events begin after a line on standard input.
pub(crate) fn serve(script: Script) -> ! {
    // Before the port is printed, so that generating the objects is not measured.
    let lists: Arc<[List]> = COLLECTIONS.iter().map(|name| List::render(name, &script.size)).collect();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("{}", listener.local_addr().expect("an address").port());
    loop {
        let (stream, _) = listener.accept().expect("a connection");
        let lists = lists.clone();
        // Each thread ends when the client closes the connection.
        thread::spawn(move || drop(respond(stream, script, &lists)));
    }
}

fn respond(stream: TcpStream, script: Script, lists: &[List]) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut requests = BufReader::new(stream.try_clone()?);
    let mut out = Chunks(stream);
    loop {
        let (mut line, mut header) = (String::new(), String::new());
        if requests.read_line(&mut line)? == 0 {
            return Ok(());
        }
        while requests.read_line(&mut header)? > 2 {
            header.clear();
        }
        let path = line.split_whitespace().nth(1).unwrap_or_default();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let is_watch = query.split('&').any(|pair| pair == "watch=true" || pair == "watch=1");
        match path.rsplit('/').next().unwrap_or_default() {
            "readyz" => out.whole(200, "ok")?,
            collection => match lists.iter().find(|list| list.collection == collection && is_watch) {
                Some(list) => {
                    out.begin()?;
                    return list.stream(&mut out, script);
                }
                None => out.whole(404, "404 page not found\n")?,
            },
        }
    }
}

/// The collections that are served.
const COLLECTIONS: [&str; 4] = ["namespaces", "nodes", "networkpolicies", "pods"];

/// A list in the format of a watch.
struct List {
    collection: &'static str,
    chunks: Vec<String>,
}

impl List {
    fn render(collection: &'static str, size: &Size) -> Self {
        let frame = frame(size);
        let (kind, version) = match collection {
            "pods" => ("Pod", "v1"),
            "nodes" => ("Node", "v1"),
            "namespaces" => ("Namespace", "v1"),
            _ => ("NetworkPolicy", "networking.k8s.io/v1"),
        };
        let interner = Interner::default();
        let objects: Box<dyn Iterator<Item = serde_json::Value>> = match collection {
            "pods" => Box::new(pods(&frame, size, &interner).map(|pod| json::pod(&pod))),
            "nodes" => Box::new(frame.nodes.values().map(json::node)),
            "namespaces" => Box::new(frame.namespaces.values().map(json::namespace)),
            _ => Box::new(frame.policies.values().map(|policy| json::policy(policy))),
        };
        let (mut chunks, mut chunk) = (Vec::new(), String::new());
        for object in objects {
            chunk.push_str(&json::line("ADDED", &object));
            if chunk.len() > 1 << 16 {
                chunks.push(std::mem::take(&mut chunk));
            }
        }
        chunks.push(chunk + &json::end_of_list(kind, version));
        Self { collection, chunks }
    }

    /// Sends the list, then the events.
    fn stream(&self, out: &mut Chunks, script: Script) -> std::io::Result<()> {
        for chunk in &self.chunks {
            out.chunk(chunk)?;
        }
        if self.collection == "pods" {
            std::io::stdin().read_line(&mut String::new())?;
            events(&frame(&script.size), out, script)?;
        }
        // A watch without events stays open.
        loop {
            thread::park();
        }
    }
}

/// Sends events at the given rate. One in a hundred is a pod whose name contains the time.
fn events(frame: &Cluster, out: &mut Chunks, script: Script) -> std::io::Result<()> {
    let interner = Interner::default();
    let some_pod = pods(frame, &script.size, &interner).next().expect("a pod");
    let mut events = Events::new(frame, script.size, interner);
    let interval = Duration::from_secs(1) / script.rate as u32;
    let begin = Instant::now();
    for number in 0..script.seconds * script.rate {
        let due = begin + interval * number as u32;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let change = if number % 100 == 99 {
            marker(&some_pod)
        } else {
            events.next().expect("the iterator is infinite")
        };
        if let Some(line) = json::pod_line(&change) {
            out.chunk(&line)?;
        }
    }
    Ok(())
}

fn marker(pod: &Pod) -> Change {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_micros();
    let key = ObjectKey::new(pod.key.namespace.clone(), format!("{MARKER}{now}"));
    Change::SetPod(Pod { key, addresses: Vec::new(), ..pod.clone() })
}

/// A minimal HTTP/1.1 writer.
struct Chunks(TcpStream);

impl Chunks {
    fn whole(&mut self, code: u16, text: &str) -> std::io::Result<()> {
        let length = text.len();
        write!(
            self.0,
            "HTTP/1.1 {code} x\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n{text}"
        )
    }

    fn begin(&mut self) -> std::io::Result<()> {
        write!(
            self.0,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        )
    }

    fn chunk(&mut self, text: &str) -> std::io::Result<()> {
        self.0.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes())
    }
}
