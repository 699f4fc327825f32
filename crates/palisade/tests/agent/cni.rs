//! The chained CNI plugin, run as container runtimes run it, with real packets.

use std::{
    fs,
    io::Write as _,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::stage::{PATIENCE, Running, Stage, policy, run};

const UID: &str = "0e5f0d7c-5b43-4d3c-9f2c-0123456789ab";
const DB: &str = "10.244.7.1";

/// A runtime's call of the plugin.
pub(crate) struct Call {
    command: Command,
    input: String,
}

impl Call {
    pub(crate) fn new(stage: &Stage, command: &str) -> Self {
        let input = json!({
            "cniVersion": "1.0.0",
            "name": "pods",
            "type": "palisade-cni",
            "socket": stage.socket(),
            "timeoutMilliseconds": 20_000,
            "prevResult": result(),
        });
        let mut of = Command::new(env!("CARGO_BIN_EXE_palisade"));
        of.arg("cni").env_clear().env("CNI_COMMAND", command).env("CNI_CONTAINERID", "sandbox-db");
        of.env("CNI_NETNS", "/run/netns/x").env("CNI_IFNAME", "eth0").env("CNI_PATH", "/opt/cni/bin");
        of.env(
            "CNI_ARGS",
            format!(
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=db;K8S_POD_INFRA_CONTAINER_ID=x;K8S_POD_UID={UID}"
            ),
        );
        Self { command: of, input: input.to_string() }
    }

    /// Edits the configuration.
    fn with(mut self, key: &str, value: Value) -> Self {
        let mut input: Value = serde_json::from_str(&self.input).unwrap();
        input[key] = value;
        self.input = input.to_string();
        self
    }

    pub(crate) fn env(mut self, key: &str, value: &str) -> Self {
        self.command.env(key, value);
        self
    }

    fn spawn(mut self) -> Child {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap();
        // The plugin may answer without reading all.
        _ = child.stdin.take().unwrap().write_all(self.input.as_bytes());
        child
    }

    pub(crate) fn run(self) -> (Option<i32>, String) {
        ended(self.spawn())
    }

    /// The result of a call that must succeed.
    #[track_caller]
    pub(crate) fn succeeds(self) -> String {
        let (code, out) = self.run();
        assert_eq!(code, Some(0), "{out}");
        out
    }

    /// The message of a call that must fail with a code.
    #[track_caller]
    fn fails(self, code: u64) -> String {
        let (exit, out) = self.run();
        let error: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"));
        assert_eq!((exit, error["code"].as_u64()), (Some(1), Some(code)), "{out}");
        error["msg"].as_str().unwrap().to_owned()
    }
}

fn ended(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

/// What a bridge plugin returns.
fn result() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "br0"}, {"name": "veth1"}, {"name": "eth0", "sandbox": "/run/netns/x"}],
        "ips": [{"address": format!("{DB}/24"), "gateway": "10.244.7.254", "interface": 2}, {"address": "fd00:7::1/64"}],
        "routes": [{"dst": "0.0.0.0/0", "unknownField": [1, 2]}],
        "dns": {},
    })
}

/// The lab's pods as the API server has them; the database without an address, or not at all.
pub(crate) fn pods(stage: &Stage, edit: impl Fn(&str) -> Option<String>) {
    let path = stage.dir.path().join("lab/pods.yaml");
    let text = fs::read_to_string(path).unwrap();
    let documents = text.split("---\n").filter_map(|document| match document.contains("name: db,") {
        true => edit(document),
        false => Some(document.to_owned()),
    });
    stage.write("pods.yaml", &documents.collect::<Vec<_>>().join("---\n"));
}

pub(crate) fn pending(document: &str) -> Option<String> {
    let status = document.find("status:").unwrap();
    let text =
        document[..status].replace("metadata: {name: db,", &format!("metadata: {{name: db, uid: {UID},"));
    Some(format!("{text}status: {{phase: Pending}}\n"))
}

fn agent(stage: &Stage, words: &[&str]) -> Running {
    let agent = stage.agent(&[&["--log-level=debug"], words].concat());
    agent.until("agent is ready");
    agent
}

#[test]
fn a_pod_is_isolated_when_add_returns_and_its_address_is_free_after_del() {
    let stage = Stage::new();
    pods(&stage, pending);
    stage.write("policy.yaml", &policy("web"));
    let agent = agent(&stage, &[]);
    assert!(stage.answers("other", "db:5432"), "nobody knows the address");
    let out = Call::new(&stage, "ADD").succeeds();
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), result(), "unchanged");
    assert!(!stage.answers("other", "db:5432"));
    assert!(stage.answers("web", "db:5432"));
    assert!(agent.until("programmed pod before its start").contains("pod=\"shop/db\""));
    assert_eq!(Call::new(&stage, "CHECK").succeeds(), "");
    // Twice, as a runtime may that has restarted.
    Call::new(&stage, "ADD").succeeds();
    assert!(!stage.answers("other", "db:5432"));

    // Another agent knows the pod from the record.
    agent.stop();
    let again = self::agent(&stage, &[]);
    assert!(!stage.answers("other", "db:5432"));
    assert!(stage.answers("web", "db:5432"));
    Call::new(&stage, "CHECK").succeeds();
    Call::new(&stage, "DEL").succeeds();
    stage.until_answers("other", "db:5432", true);
    assert!(Call::new(&stage, "CHECK").fails(3).contains("sandbox-db"));
    Call::new(&stage, "DEL").succeeds();

    // A collection removes what the runtime doesn't name, of its network.
    Call::new(&stage, "ADD").succeeds();
    let valid = json!([{"containerID": "sandbox-db", "ifname": "eth0"}]);
    Call::new(&stage, "GC").with("cni.dev/valid-attachments", valid).succeeds();
    Call::new(&stage, "GC").with("cni.dev/valid-attachments", json!([])).with("name", json!("x")).succeeds();
    assert!(!stage.answers("other", "db:5432"));
    assert!(Call::new(&stage, "GC").fails(7).contains("nothing was removed"));
    Call::new(&stage, "GC").with("cni.dev/valid-attachments", json!([])).succeeds();
    stage.until_answers("other", "db:5432", true);
    again.stop();
}

#[test]
fn a_pod_that_the_api_server_does_not_know_starts_closed_until_it_does() {
    let stage = Stage::new();
    let all = fs::read_to_string(stage.manifests().join("pods.yaml")).unwrap();
    pods(&stage, |_| None);
    stage.write("policy.yaml", &policy("web"));
    let agent = agent(&stage, &["--pod-start-timeout=500"]);
    Call::new(&stage, "ADD").succeeds();
    assert!(agent.until("pod starts closed").contains("shop/db"));
    assert!(!stage.answers("web", "db:5432") && !stage.answers("other", "db:5432"));
    assert!(stage.answers("web", "other:80"), "another pod");
    stage.write("pods.yaml", &all);
    stage.until_answers("web", "db:5432", true);
    assert!(!stage.answers("other", "db:5432"));
    agent.stop();

    // A pod that no policy can select doesn't wait.
    pods(&stage, |_| None);
    stage.write("policy.yaml", "");
    let agent = self::agent(&stage, &["--pod-start-timeout=18000"]);
    Call::new(&stage, "DEL").succeeds();
    let begin = Instant::now();
    Call::new(&stage, "ADD").succeeds();
    assert!(begin.elapsed() < Duration::from_secs(12), "{:?}", begin.elapsed());
    assert!(stage.answers("web", "db:5432"));
    agent.stop();
}

#[test]
fn without_an_agent_a_pod_is_not_started_or_starts_as_it_is() {
    let stage = Stage::new();
    pods(&stage, pending);
    stage.write("policy.yaml", &policy("web"));
    fs::create_dir_all(stage.socket().parent().unwrap()).unwrap();
    let brief = |command| Call::new(&stage, command).with("timeoutMilliseconds", json!(200));
    let error = brief("ADD").fails(11);
    for part in ["no agent listens", "palisade agent --remove", "kubelet tries again"] {
        assert!(error.contains(part), "{error}");
    }
    brief("CHECK").fails(11);
    brief("STATUS").succeeds();
    brief("DEL").succeeds();
    let records = || fs::read_dir(stage.socket().with_file_name("cni")).map_or(0, Iterator::count);
    assert_eq!(records(), 0, "a pod that doesn't start has none");
    let out = brief("ADD").with("podStart", json!("open")).succeeds();
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), result());
    assert_eq!(records(), 1);

    // The next agent finds it. One that restarts during a call is waited for.
    let agent = agent(&stage, &[]);
    assert!(!stage.answers("other", "db:5432") && stage.answers("web", "db:5432"));
    agent.stop();
    // Long enough for an agent to start on a busy machine.
    let call = Call::new(&stage, "ADD").with("timeoutMilliseconds", json!(60_000)).spawn();
    let agent = self::agent(&stage, &[]);
    assert_eq!(ended(call).0, Some(0));
    assert!(!stage.answers("other", "db:5432"));
    agent.stop();
    brief("DEL").succeeds();
    run(&mut stage.agent_command(&["--remove"]), 0);
    assert_eq!(fs::read_dir(stage.socket().parent().unwrap()).unwrap().count(), 0);
}

#[test]
fn what_no_runtime_should_send_is_refused_with_a_code_and_changes_nothing() {
    let stage = Stage::new();
    pods(&stage, pending);
    stage.write("policy.yaml", &policy("web"));
    let agent = agent(&stage, &[]);
    let add = || Call::new(&stage, "ADD");
    let raw = |input: &str| Call { input: input.to_owned(), ..add() };
    for input in ["", "{", "[]", "\u{feff}{}", "null"] {
        raw(input).fails(6);
    }
    // Nested deeper than any configuration, and longer.
    raw(&"[".repeat(1 << 20)).fails(6);
    let error = add().with("runtimeConfig", json!("x".repeat(5 << 20))).fails(6);
    assert!(error.contains("it has more than 4194304 bytes"), "{error}");
    raw("{}").fails(1);
    let error = add().with("cniVersion", json!("9".repeat(1 << 20))).fails(1);
    assert!(error.len() < 2_000, "{} bytes", error.len());
    add().with("cniVersion", json!("0.2.0")).fails(1);
    add().with("prevResult", Value::Null).fails(7);
    add().with("prevResult", json!([])).fails(7);
    add().with("prevResult", json!({"ips": [{"address": "10.244.7.300/24"}]})).fails(7);
    add().with("prevResult", json!({"ips": {}})).fails(7);
    add().env("CNI_CONTAINERID", "../../x").fails(4);
    add().env("CNI_CONTAINERID", "").fails(4);
    add().env("CNI_CONTAINERID", &"a".repeat(300)).fails(4);
    add().env("CNI_NETNS", "").fails(4);
    add().env("CNI_ARGS", "K8S_POD_NAMESPACE").fails(4);
    add().env("CNI_ARGS", "K8S_POD_NAMESPACE=shop").fails(4);
    add().env("CNI_ARGS", "K8S_POD_NAMESPACE=a/b;K8S_POD_NAME=c").fails(4);
    add().env("CNI_COMMAND", "FLY").fails(4);
    Call { input: String::new(), ..Call::new(&stage, "DEL") }.fails(6);
    let (code, out) = add().env("CNI_COMMAND", "").run();
    assert!(code == Some(1) && out.contains("CNI_COMMAND is not set"), "{out}");

    // Lists of sandboxes that are none, or none that was added.
    let gc = |list: Value| Call::new(&stage, "GC").with("cni.dev/valid-attachments", list);
    for list in [json!("all"), json!({}), json!([1]), json!([{"ifname": "eth0"}])] {
        gc(list).fails(6);
    }
    gc(json!(vec![json!({"containerID": "../../x", "ifname": ""}); 10_000])).succeeds();

    // Nothing of these is a pod of Kubernetes with an address.
    assert_eq!(add().env("CNI_ARGS", "").succeeds().trim(), result().to_string());
    let none = json!({"cniVersion": "1.0.0", "ips": []});
    assert_eq!(add().with("prevResult", none.clone()).succeeds().trim(), none.to_string());
    let local = json!({"ips": [{"address": "fe80::1/64"}, {"address": "127.0.0.1/8"}]});
    add().with("prevResult", local).succeeds();
    let version: Value = serde_json::from_str(&Call::new(&stage, "VERSION").succeeds()).unwrap();
    assert_eq!(
        (&version["cniVersion"], &version["supportedVersions"][4]),
        (&json!("1.0.0"), &json!("1.1.0"))
    );
    assert!(stage.answers("other", "db:5432"), "nothing was programmed");

    // The namespace may be gone: the pod is programmed all the same.
    add().env("CNI_NETNS", "/run/netns/../gone").succeeds();
    assert!(!stage.answers("other", "db:5432"));
    Call::new(&stage, "DEL").env("CNI_NETNS", "").succeeds();
    stage.until_answers("other", "db:5432", true);

    // At the agent's socket, without the plugin's own checks.
    let forged = json!({"version": 1, "ask": {"pod-attached": {
        "id": "../x", "namespace": "shop", "name": "db", "uid": "", "addresses": [DB], "network": "", "networkNamespace": "",
    }}});
    let stream = stage.connect();
    (&stream).write_all(format!("{forged}\n").as_bytes()).unwrap();
    agent.until("refused an invalid pod from");
    assert!(stage.answers("other", "db:5432"));
    agent.stop();
}

#[test]
fn a_pod_that_is_deleted_while_it_is_added_leaves_nothing() {
    let stage = Stage::new();
    pods(&stage, |_| None);
    stage.write("policy.yaml", &policy("web"));
    let agent = agent(&stage, &["--pod-start-timeout=30000"]);
    let add = Call::new(&stage, "ADD").with("timeoutMilliseconds", json!(40_000)).spawn();
    let record = stage.socket().with_file_name("cni").join("sandbox-db.json");
    let begin = Instant::now();
    while !record.exists() {
        assert!(begin.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(5));
    }
    Call::new(&stage, "DEL").succeeds();
    let (code, out) = ended(add);
    assert!(code == Some(1) && begin.elapsed() < Duration::from_secs(25), "{out}");
    assert!(out.contains("stopped meanwhile") || out.contains("deleted while"), "{out}");
    assert!(!record.exists());
    stage.until_answers("other", "db:5432", true);

    // Many at once, in any order: the last word is the deletion's.
    pods(&stage, pending);
    for _ in 0..10 {
        let calls: Vec<Child> =
            ["ADD", "DEL", "ADD", "DEL"].iter().map(|c| Call::new(&stage, c).spawn()).collect();
        for call in calls {
            ended(call);
        }
    }
    Call::new(&stage, "DEL").succeeds();
    stage.until_answers("other", "db:5432", true);
    agent.stop();
}

#[test]
fn a_pod_whose_plugin_has_given_up_is_not_programmed_later() {
    let stage = Stage::new();
    pods(&stage, pending);
    stage.write("policy.yaml", &policy("web"));
    let agent = agent(&stage, &["--pod-start-timeout=30000"]);
    agent.signal(Signal::SIGSTOP);
    let begin = Instant::now();
    let error = Call::new(&stage, "ADD").with("timeoutMilliseconds", json!(300)).fails(11);
    assert!(error.contains("the agent is busy") && begin.elapsed() < PATIENCE, "{error}");
    agent.signal(Signal::SIGCONT);
    // All that has arrived before is answered when this is.
    stage.until_node_says(&["status"], "NetworkPolicy 1");
    thread::sleep(Duration::from_millis(300));
    assert!(stage.answers("other", "db:5432"), "the pod was programmed after its plugin had given up");
    assert!(!run(&mut stage.node(&["pods"]), 0).contains(DB));
    Call::new(&stage, "ADD").succeeds();
    assert!(!stage.answers("other", "db:5432"));
    Call::new(&stage, "DEL").succeeds();

    // The same while the agent waits for what the API server says of the pod.
    pods(&stage, |_| None);
    stage.until_node_says(&["status"], "2 pods");
    let mut add = Call::new(&stage, "ADD").spawn();
    let is_known = || run(&mut stage.node(&["pods"]), 0).contains(DB);
    until(is_known);
    add.kill().unwrap();
    add.wait().unwrap();
    until(|| !is_known());
    agent.stop();
}

#[test]
fn a_pod_starts_however_many_connections_the_socket_has() {
    let stage = Stage::new();
    pods(&stage, pending);
    stage.write("policy.yaml", &policy("web"));
    let agent = agent(&stage, &[]);
    let idle: Vec<UnixStream> = (0..40).map(|_| stage.connect()).collect();
    // Less than idle connections are kept.
    let begin = Instant::now();
    Call::new(&stage, "ADD").with("timeoutMilliseconds", json!(8_000)).succeeds();
    assert!(begin.elapsed() < Duration::from_secs(9), "{:?}", begin.elapsed());
    assert!(!stage.answers("other", "db:5432"));
    drop(idle);
    agent.stop();
}

/// A node's directories of CNI.
fn directories(stage: &Stage) -> (PathBuf, PathBuf, [String; 3]) {
    let (net, bin) = (stage.dir.path().join("net.d"), stage.dir.path().join("bin"));
    fs::create_dir_all(&net).unwrap();
    let option = |name: &str, path: &Path| format!("--cni-{name}-dir={}", path.display());
    let words = ["--cni-chain".to_owned(), option("conf", &net), option("bin", &bin)];
    (net, bin, words)
}

fn until(what: impl Fn() -> bool) {
    let begin = Instant::now();
    while !what() {
        assert!(begin.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_agent_installs_the_plugin_where_a_runtime_finds_it_and_removes_it() {
    const LIST: &str = r#"{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":"bridge"}]}"#;
    let stage = Stage::new();
    pods(&stage, pending);
    stage.write("policy.yaml", &policy("web"));
    let (net, bin, words) = directories(&stage);
    let words: Vec<&str> = words.iter().map(|word| &**word).collect();
    let agent = stage.agent(&words);
    agent.until("has no CNI configuration");
    let list = net.join("10-pods.conflist");
    fs::write(&list, "{\"cniVersion\"").unwrap();
    agent.until("is not JSON");
    stage.until_node_says(&["status"], "NetworkPolicy 1");
    fs::write(&list, LIST).unwrap();
    agent.until("added the plugin to the CNI configuration");

    // As a runtime: the program of the entry's type, with the entry as configuration.
    let chained: Value = serde_json::from_str(&fs::read_to_string(&list).unwrap()).unwrap();
    assert_eq!(chained["plugins"][0], json!({"type": "bridge"}));
    let mut entry = chained["plugins"][1].clone();
    for (key, value) in [("cniVersion", json!("1.0.0")), ("name", json!("pods")), ("prevResult", result())] {
        entry[key] = value;
    }
    let mut call = Call::new(&stage, "ADD");
    call.input = entry.to_string();
    let mut program = Command::new(bin.join(entry["type"].as_str().unwrap()));
    program.env_clear().envs(call.command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    call.command = program;
    call.succeeds();
    assert!(!stage.answers("other", "db:5432") && stage.answers("web", "db:5432"));

    // Another program rewrites its file.
    let has_plugin = || fs::read_to_string(&list).unwrap().contains("palisade-cni");
    fs::write(net.join("fresh"), LIST).unwrap();
    fs::rename(net.join("fresh"), &list).unwrap();
    until(has_plugin);

    // A stopped agent leaves it, the next one finds it, and only --remove removes it.
    agent.stop();
    assert!(has_plugin());
    let before = fs::read_to_string(&list).unwrap();
    let agent = stage.agent(&words);
    agent.until("agent is ready");
    thread::sleep(Duration::from_millis(200));
    assert_eq!(fs::read_to_string(&list).unwrap(), before);
    agent.stop();
    let removed = run(&mut stage.agent_command(&[&["--remove"], &words[1..]].concat()), 0);
    assert!(removed.contains("removed palisade-cni from the CNI configuration"), "{removed}");
    assert!(!has_plugin() && !bin.join("palisade-cni").exists());
    assert_eq!(fs::read_dir(&net).unwrap().count(), 1);
}
