//! What no container runtime sends: the agent says so, stays as it is, and isolates the next pod.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    time::{Duration, Instant},
};

use palisade_testkit::runtime::{Connected, Offered, Sandbox, field};

use crate::stage::{PATIENCE, Running, Stage, policy};

const UID: &str = "0e5f0d7c-5b43-4d3c-9f2c-0123456789ab";
const DB: &str = "10.244.7.1";

fn offer(stage: &Stage) -> Offered {
    let path = stage.dir.path().join("nri.sock");
    _ = fs::remove_file(&path);
    Offered::at(&path).unwrap()
}

/// A stage whose policy selects the database, which the API server doesn't know.
fn stage() -> Stage {
    let stage = Stage::new();
    let pods = fs::read_to_string(stage.manifests().join("pods.yaml")).unwrap();
    let others = pods.split("---\n").filter(|document| !document.contains("name: db,"));
    stage.write("pods.yaml", &others.collect::<Vec<_>>().join("---\n"));
    stage.write("policy.yaml", &policy("web"));
    stage
}

fn agent(stage: &Stage, runtime: &Offered) -> (Running, Connected) {
    let agent = stage.agent(&["--nri=on", &runtime.option(), "--log-level=debug"]);
    let connected = runtime.accept(&[], PATIENCE).unwrap();
    agent.until("agent is ready");
    (agent, connected)
}

fn database(namespace: &Path) -> Vec<u8> {
    let network_namespace = namespace.to_str().unwrap();
    let (labels, addresses) = (&[("app", "db")][..], &[DB][..]);
    Sandbox { pod: ("shop", "db"), uid: UID, labels, network_namespace, addresses }.encode()
}

/// Announces the database, which must be isolated then, and ends it.
fn isolates(stage: &Stage, connected: &mut Connected, namespace: &Path) {
    let database = database(namespace);
    connected.start(&database).unwrap_or_else(|error| panic!("{}: {error}", namespace.display()));
    assert!(!stage.answers("other", "db:5432"), "{}", namespace.display());
    connected.call("StopPodSandbox", &field(1, database)).unwrap().unwrap();
}

#[test]
fn a_path_that_is_no_network_namespace_stops_nothing() {
    let stage = stage();
    let runtime = offer(&stage);
    let (agent, mut connected) = agent(&stage, &runtime);
    let at = |name: &str| stage.dir.path().join(name);
    nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    symlink(at("pipe"), at("to-pipe")).unwrap();
    symlink(at("loop"), at("loop")).unwrap();
    for namespace in [
        &at("pipe"),
        &at("to-pipe"),
        &at("loop"),
        stage.dir.path(),
        Path::new("/dev/zero"),
        Path::new("/run/netns/../../proc/self/ns/net"),
        Path::new("../../x"),
    ] {
        isolates(&stage, &mut connected, namespace);
    }
    // The same path for two pods at once.
    let pipe = at("pipe");
    connected.start(&database(&pipe)).unwrap();
    let (network_namespace, labels, addresses) =
        (pipe.to_str().unwrap(), &[("app", "db")][..], &["10.244.7.9"][..]);
    let another = Sandbox { pod: ("shop", "db-2"), uid: UID, labels, network_namespace, addresses };
    connected.start(&another.encode()).unwrap();
    assert!(!stage.answers("other", "db:5432"));
    agent.stop();
}

/// A message of ttrpc in a frame of NRI, with the length that it says to have.
fn message(connection: u32, length: u32, id: u32, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut out = connection.to_be_bytes().to_vec();
    out.extend((content.len() as u32 + 10).to_be_bytes());
    out.extend(length.to_be_bytes());
    out.extend(id.to_be_bytes());
    out.extend([kind, 0]);
    out.extend(content);
    out
}

fn request(service: &str, method: &str, payload: &[u8]) -> Vec<u8> {
    let content = [field(1, service), field(2, method), field(3, payload)].concat();
    message(1, content.len() as u32, 1, 1, &content)
}

#[test]
fn bytes_that_are_no_nri_leave_the_agent_as_it_is() {
    const SERVICE: &str = "nri.pkg.api.v1alpha1.Plugin";
    let stage = stage();
    let runtime = offer(&stage);
    let (agent, connected) = agent(&stage, &runtime);
    let pod = field(1, database(Path::new("/run/netns/x")));
    let forged: [(&str, Vec<u8>); 11] = [
        ("a frame that is too long", [1_u32.to_be_bytes(), u32::MAX.to_be_bytes()].concat()),
        ("a message that is too long", message(1, u32::MAX, 1, 1, b"")),
        ("half a frame", request(SERVICE, "RunPodSandbox", &pod)[..30].to_vec()),
        ("half a message", message(1, 100, 1, 1, b"x")),
        ("the number of the plugin's own requests", message(1, pod.len() as u32, 2, 1, &pod)),
        ("a response that nobody waits for", message(2, pod.len() as u32, 77, 2, &pod)),
        ("data of a stream that is none", message(1, pod.len() as u32, 5, 3, &pod)),
        ("another kind of message", message(1, pod.len() as u32, 5, 99, &pod)),
        ("another service", request("x", "RunPodSandbox", &pod)),
        ("another method", request(SERVICE, &"x".repeat(10_000), &pod)),
        ("a name that is not UTF-8", request(SERVICE, "RunPodSandbox", &field(1, field(2, [0xff, 0xfe])))),
    ];
    drop((connected, runtime));
    for (what, bytes) in forged {
        // A new socket is looked at without the growing pauses after losses.
        let runtime = offer(&stage);
        let mut connected = runtime.accept(&[], PATIENCE).unwrap_or_else(|e| panic!("before {what}: {e}"));
        // It may have closed the connection already.
        _ = connected.send_raw(&bytes);
        drop((connected, runtime));
        let runtime = offer(&stage);
        let mut connected = runtime.accept(&[], PATIENCE).unwrap_or_else(|e| panic!("{what}: {e}"));
        isolates(&stage, &mut connected, Path::new("/run/netns/x"));
    }
    agent.stop();
}

#[test]
fn a_runtime_that_is_gone_and_back_many_times_finds_the_agent_soon() {
    let stage = stage();
    let runtime = offer(&stage);
    let (agent, connected) = agent(&stage, &runtime);
    drop((connected, runtime));
    let begin = Instant::now();
    for round in 0..20 {
        let runtime = offer(&stage);
        let mut connected = runtime.accept(&[], PATIENCE).unwrap();
        if round % 5 == 0 {
            isolates(&stage, &mut connected, Path::new("/run/netns/x"));
        }
    }
    // A pause that grows with each loss takes more than two minutes for these.
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    agent.stop();
}
