//! `palisade lab` as users run it, with real namespaces and packets, on the examples. These tests fail if this user may not
//! create namespaces.
#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

/// A timeout that is long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name)
}

fn palisade(runtime: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
    command.env("XDG_RUNTIME_DIR", runtime).env_remove("CLICOLOR_FORCE").stdin(Stdio::null());
    command
}

fn text(output: &Output) -> (i32, String, String) {
    let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[track_caller]
fn run(command: &mut Command, code: i32) -> String {
    let (got, out, err) = text(&command.output().unwrap());
    assert_eq!(got, code, "{out}{err}");
    assert!(!err.contains("panicked"), "{err}");
    if out.is_empty() { err } else { out }
}

/// A running lab with a copy of the example `shop`.
struct Running {
    dir: TempDir,
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    fn start() -> Self {
        Self::start_with("shop", &[])
    }

    /// As [`Running::start`], with another example and more arguments.
    fn start_with(name: &str, more: &[&Path]) -> Self {
        let dir = TempDir::new().unwrap();
        copy(&example(name), &dir.path().join("shop"));
        let (child, lines) = Self::spawn(dir.path(), more);
        Self { dir, child, lines }
    }

    fn spawn(dir: &Path, more: &[&Path]) -> (Child, mpsc::Receiver<String>) {
        let mut child = palisade(dir)
            .args(["lab", "up"])
            .arg(dir.join("shop"))
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        forward(child.stdout.take().unwrap(), sender.clone());
        let err = child.stderr.take().unwrap();
        thread::spawn(move || {
            BufReader::new(err).lines().map_while(Result::ok).for_each(|l| drop(sender.send(l)));
        });
        (child, lines)
    }

    /// Waits for a line with `part`, and returns all lines up to it.
    #[track_caller]
    fn until(&self, part: &str) -> String {
        let mut seen = String::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => seen += &format!("{line}\n"),
                Err(e) => panic!("no line with {part:?} ({e}) in:\n{seen}"),
            }
            if seen.lines().next_back().is_some_and(|l| l.contains(part)) {
                return seen;
            }
        }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = palisade(self.dir.path());
        command.arg("lab").args(words);
        command
    }

    fn shop(&self, file: &str) -> PathBuf {
        self.dir.path().join("shop").join(file)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Suspends the lab, as Ctrl-Z does, and waits until it is.
    fn suspend(&self) {
        self.signal(Signal::SIGSTOP);
        let state = || fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        while !state().contains(") T ") {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Returns the lab's files on disk.
    fn left(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path().join("palisade")).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn forward(out: ChildStdout, sender: mpsc::Sender<String>) {
    thread::spawn(move || {
        BufReader::new(out).lines().map_while(Result::ok).for_each(|l| drop(sender.send(l)));
    });
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn the_kernel_does_what_the_engine_says_on_every_example() {
    let runtime = TempDir::new().unwrap();
    for entry in fs::read_dir(example("")).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_dir() {
            continue;
        }
        for options in [&[][..], &["--bridge", "--nodes", "3"]] {
            let of = |dry: &[&str]| {
                run(palisade(runtime.path()).args(["lab", "run"]).arg(&path).args(options).args(dry), 0)
            };
            let (kernel, engine) = (of(&[]), of(&["--dry-run"]));
            assert_eq!(kernel, engine, "{}", path.display());
            if options.is_empty() {
                let expected = fs::read_to_string(path.join("expected.txt"));
                assert_eq!(
                    kernel,
                    expected.expect("each example has its expected.txt"),
                    "{}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn addresses_of_names_are_reachable_where_rules_of_an_example_have_the_names() {
    let runtime = TempDir::new().unwrap();
    let folder = example("egress-by-name");
    let lab = |more: &[&str]| {
        let mut command = palisade(runtime.path());
        command.args(["lab", "run", "--family", "4"]).arg(&folder).arg("--hosts").arg(folder.join("hosts"));
        run(command.args(more), 0)
    };
    let (kernel, engine) = (lab(&[]), lab(&["--dry-run"]));
    assert_eq!(kernel, engine);
    let json: serde_json::Value = serde_json::from_str(&lab(&["-o", "json", "--dry-run"])).unwrap();
    let flows = json["flows"].as_array().unwrap();
    let of_invoices = flows.iter().filter(|flow| flow["source"].to_string().contains("invoices"));
    let allowed: std::collections::BTreeSet<(&str, u64)> = of_invoices
        .filter(|flow| flow["verdict"] == "allowed")
        .filter_map(|flow| Some((flow["destination"]["address"].as_str()?, flow["port"].as_u64()?)))
        .filter(|(address, _)| address.starts_with("203."))
        .collect();
    assert_eq!(allowed, [("203.0.113.10", 443), ("203.0.113.11", 443)].into());
    assert!(kernel.contains("payments.example is 203.0.113.12"), "{kernel}");
}

/// That names match nothing is said where it is so: not of a lab whose nodes learn their addresses.
#[test]
fn a_lab_that_learns_names_does_not_say_that_they_match_nothing() {
    let runtime = TempDir::new().unwrap();
    let (hosts, zones) = (example("egress-by-name/hosts"), example("egress-by-name.zones.yaml"));
    let options: [&[&Path]; 3] = [&[], &[Path::new("--hosts"), &hosts], &[Path::new("--zones"), &zones]];
    for (options, expected) in options.into_iter().zip([1, 0, 0]) {
        let mut command = palisade(runtime.path());
        command.args(["lab", "run", "--dry-run"]).arg(example("egress-by-name")).args(options);
        let (code, out, err) = text(&command.output().unwrap());
        assert_eq!((code, err.matches("not-enforced").count()), (0, expected), "{options:?}: {out}{err}");
    }
}

/// Pods ask DNS servers, agents learn what they answer, and connections follow at once.
#[test]
fn pods_reach_what_dns_servers_answer_for_names_of_rules() {
    let runtime = TempDir::new().unwrap();
    let lab = |more: &[&str]| {
        let mut command = palisade(runtime.path());
        command.args(["lab", "run"]).arg(example("egress-by-name"));
        command.arg("--zones").arg(example("egress-by-name.zones.yaml"));
        run(command.args(more), 0)
    };
    let expected = fs::read_to_string(example("egress-by-name.zones.txt")).unwrap();
    assert_eq!(lab(&[]), expected);
    assert_eq!(lab(&["--dry-run"]), expected);
    let json: serde_json::Value =
        serde_json::from_str(&lab(&["--bridge", "--family", "4", "-o", "json"])).unwrap();
    let lookups = json["lookups"].as_array().unwrap();
    let allowed = |name: &str| -> std::collections::BTreeSet<(&str, u64)> {
        let of_name = lookups.iter().filter(|l| {
            l["name"] == name && l["source"].as_str().is_some_and(|source| source.contains("invoices"))
        });
        let connections = of_name.flat_map(|lookup| lookup["connections"].as_array().unwrap());
        connections
            .filter(|connection| connection["outcome"].as_str().unwrap().starts_with("answered by"))
            .map(|c| (c["destination"]["address"].as_str().unwrap(), c["port"].as_u64().unwrap()))
            .collect()
    };
    assert_eq!(allowed("api.payments.example"), [("203.0.113.10", 443), ("203.0.113.20", 443)].into());
    assert_eq!(allowed("eu.files.payments.example"), [("203.0.113.11", 443)].into());
    assert_eq!(allowed("a.old.files.payments.example"), [("203.0.113.12", 443)].into());
    assert_eq!(allowed("long.files.payments.example"), [("203.0.113.13", 443)].into());
    assert_eq!(allowed("attacked.files.payments.example"), [("203.0.113.15", 443)].into(), "nothing forged");
    assert!(allowed("inside.files.payments.example").is_empty() && allowed("payments.example").is_empty());
    assert!(lookups.iter().all(|lookup| lookup["agrees"] == true));
}

/// A cluster without DNS asks a server outside, if its policies allow that.
#[test]
fn pods_without_a_dns_service_ask_the_server_outside() {
    let runtime = TempDir::new().unwrap();
    let manifests = runtime.path().join("manifests.yaml");
    let pods: String = ["red", "blue"]
        .iter()
        .map(|namespace| {
            format!(
                "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}, labels: {{team: {namespace}}}}}\n---\n\
                 apiVersion: v1\nkind: Pod\nmetadata: {{name: web, namespace: {namespace}}}\n\
                 spec: {{containers: [{{name: c, image: i}}]}}\n---\n"
            )
        })
        .collect();
    let policy = |name: &str, team: &str, dns: &str| {
        format!(
            "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: {name}}}\n\
             spec:\n  tier: Admin\n  priority: 1\n  subject: {{namespaces: {{matchLabels: {{team: {team}}}}}}}\n  egress:\n{dns}  \
             - {{action: Accept, to: [{{domainNames: [a.example]}}]}}\n  \
             - {{action: Deny, to: [{{networks: [0.0.0.0/0]}}]}}\n---\n"
        )
    };
    let dns = "  - {action: Accept, to: [{networks: [198.51.100.53/32]}], protocols: [{udp: {destinationPort: {number: 53}}}]}\n";
    fs::write(&manifests, pods + &policy("red", "red", dns) + &policy("blue", "blue", "")).unwrap();
    let zones = runtime.path().join("zones.yaml");
    let names = "schema: palisade.lab-zones/v1\nnames:\n  a.example: {addresses: 203.0.113.1}\n  \
                 big.example: {addresses: 203.0.113.2, truncated: true}\n  silent.example: {silent: true}\nasked: none.example\n";
    fs::write(&zones, names).unwrap();
    let mut command = palisade(runtime.path());
    command.args(["lab", "run", "--family", "4", "-o", "json"]).arg(&manifests).arg("--zones").arg(&zones);
    let json: serde_json::Value = serde_json::from_str(&run(&mut command, 0)).unwrap();
    let outcome = |pod: &str, name: &str| {
        let of_pod = |l: &&serde_json::Value| l["source"].as_str().is_some_and(|source| source.contains(pod));
        let all = json["lookups"].as_array().unwrap();
        let found = all.iter().find(|l| of_pod(l) && l["name"] == name).unwrap();
        found["outcomes"][0].as_str().unwrap().to_owned()
    };
    assert_eq!(outcome("red/web", "a.example"), "answered 203.0.113.1");
    assert_eq!(outcome("red/web", "none.example"), "answered that it does not exist");
    assert_eq!(outcome("red/web", "silent.example"), "not answered");
    assert_eq!(outcome("red/web", "big.example"), "not answered", "no rule allows DNS over TCP");
    assert_eq!(outcome("blue/web", "a.example"), "not answered", "a rule with names doesn't allow DNS");
}

#[test]
fn json_has_counts_and_every_probe() {
    let runtime = TempDir::new().unwrap();
    let json = run(
        palisade(runtime.path())
            .args(["lab", "run", "-o", "json", "--max-probes", "100", "--family", "6"])
            .arg(example("shop")),
        0,
    );
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["schema"], "palisade.lab-run/v1");
    assert_eq!(json["agrees"], true);
    assert_eq!(json["counts"]["probed"], 100);
    assert_eq!(json["probes"].as_array().unwrap().len(), 100);
    assert!(json["not_probed"].to_string().contains("a sample of 100"));
}

#[test]
fn a_lab_follows_its_manifests_and_answers() {
    let lab = Running::start();
    lab.until("waiting for edits");

    let second = run(lab.command(&["up"]).arg(lab.shop("")), 2);
    assert!(second.contains("a lab named `default` is already running"), "{second}");

    let out = run(&mut lab.command(&["probe", "-n", "shop", "frontend", "backend:8080"]), 0);
    assert!(
        out.contains("answered by shop/backend-0") && out.contains("backend-from-frontend.yaml:14"),
        "{out}"
    );
    let out = run(&mut lab.command(&["probe", "staging/frontend", "shop/backend:8080"]), 1);
    assert!(out.contains("timed out") && out.contains("expected: denied"), "{out}");
    run(&mut lab.command(&["probe", "shop/frontend", "shop/svc/backend"]), 0);
    let out = run(&mut lab.command(&["probe", "shop/frontend", "203.0.113.9:80"]), 2);
    assert!(out.contains("the lab does not have the address 203.0.113.9"), "{out}");

    let out = run(&mut lab.command(&["exec", "shop/backend", "--", "cat", "/proc/net/dev"]), 0);
    assert!(out.contains("eth0"), "{out}");
    run(&mut lab.command(&["exec", "shop/backend", "--", "sh", "-c", "exit 7"]), 7);
    run(&mut lab.command(&["exec", "shop/backend", "--", "/does/not/exist"]), 127);
    run(&mut lab.command(&["exec", "shop/nobody", "--", "true"]), 2);

    lab.suspend();
    let out = run(&mut lab.command(&["exec", "shop/backend", "--", "true"]), 2);
    assert!(out.contains("the lab `default` is suspended") && out.contains("kill -CONT"), "{out}");
    lab.signal(Signal::SIGCONT);

    let policy = lab.shop("backend-from-frontend.yaml");
    let original = fs::read_to_string(&policy).unwrap();
    fs::remove_file(&policy).unwrap();
    let edit = lab.until("opened  staging/frontend → shop/backend");
    assert!(edit.contains("enforced 1 change: no NetworkPolicy shop/backend-from-frontend"), "{edit}");
    run(&mut lab.command(&["probe", "staging/frontend", "shop/backend:8080"]), 0);

    fs::write(lab.shop("broken.yaml"), "kind: NetworkPolicy\nmetadata: { broken").unwrap();
    let broken = lab.until("keeping the last valid state");
    assert!(broken.contains("broken.yaml:2:"), "{broken}");
    fs::remove_file(lab.shop("broken.yaml")).unwrap();
    fs::write(&policy, &original).unwrap();
    lab.until("closed  staging/frontend → shop/backend");
    run(&mut lab.command(&["probe", "staging/frontend", "shop/backend:8080"]), 1);

    run(&mut lab.command(&["down"]), 0);
    assert_eq!(lab.left(), Vec::<String>::new());
    let gone = run(&mut lab.command(&["down"]), 2);
    assert!(gone.contains("no lab named `default` is running"), "{gone}");
}

/// The DNS servers of a lab follow its cluster, programs in its pods ask them, and agents learn what they answer.
#[test]
fn a_lab_answers_names_as_long_as_it_is_up() {
    const NAME: &str = "eu.files.payments.example";
    let zones = example("egress-by-name.zones.yaml");
    let lab = Running::start_with("egress-by-name", &[Path::new("--zones"), &zones]);
    let up = lab.until("waiting for edits");
    assert!(up.contains("  DNS: ") && up.contains("names"), "{up}");
    assert!(!up.contains("not-enforced"), "{up}");
    let probe = |to: &str, code| run(&mut lab.command(&["probe", "billing/invoices", to]), code);
    let servers = || {
        let out = run(&mut lab.command(&["exec", "billing/invoices", "--", "cat", "/etc/resolv.conf"]), 0);
        out.lines().filter_map(|line| line.strip_prefix("nameserver ").map(str::to_owned)).collect::<Vec<_>>()
    };

    let before = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let out = run(&mut lab.command(&["exec", "billing/invoices", "--", "getent", "ahostsv4", NAME]), 0);
    assert!(out.starts_with("203.0.113.11 "), "{out}");
    let out = run(
        &mut lab.command(&[
            "exec",
            "billing/invoices",
            "--",
            "getent",
            "ahosts",
            "gone.files.payments.example",
        ]),
        2,
    );
    assert!(out.is_empty(), "{out}");
    assert_eq!(
        fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
        before,
        "the machine's is as it was"
    );

    // A port that the rule has, one that it doesn't have, and a name and an address without a rule.
    let out = probe(&format!("{NAME}:443"), 0);
    assert!(out.contains("answered 203.0.113.11") && out.contains("egress[1] \"payments\""), "{out}");
    let out = probe(&format!("{NAME}:80"), 1);
    assert!(out.contains("timed out") && !out.contains("disagree"), "{out}");
    let out = probe("payments.example:443", 1);
    assert!(out.contains("answered 203.0.113.16") && out.contains("expected: denied"), "{out}");
    let out = probe("203.0.113.11:443", 0);
    assert!(out.contains("while the address is learned"), "{out}");
    let out = probe("203.0.113.16:443", 1);
    assert!(out.contains("expected: denied"), "{out}");
    let server = servers().first().unwrap().clone();
    assert!(probe(&format!("{server}:53/UDP"), 2).contains("a DNS server answers there"));

    // The Service gets another address, and then there is none, nor its pods: the server outside remains, and no rule allows it.
    let (file, spec) = (lab.shop("workloads.yaml"), "spec:\n  selector:\n    k8s-app: kube-dns\n  ports:");
    let original = fs::read_to_string(&file).unwrap();
    assert!(original.contains(spec));
    let moved = spec.replace("spec:", "spec:\n  clusterIP: 10.96.0.77");
    fs::write(&file, original.replace(spec, &moved)).unwrap();
    lab.until("service kube-system/kube-dns");
    assert!(servers().contains(&"10.96.0.77".to_owned()), "{:?}", servers());
    let out = probe("long.files.payments.example:443", 0);
    assert!(out.contains("at 10.96.0.77") && out.contains("answered 203.0.113.13"), "{out}");
    let without =
        original.find("---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: kube-system").unwrap();
    fs::write(&file, &original[..without]).unwrap();
    lab.until("removed pod kube-system/coredns");
    assert_eq!(servers().first().unwrap(), "198.51.100.53");
    let out = probe("slow.files.payments.example:443", 1);
    assert!(out.contains("not answered") && !out.contains("disagree"), "{out}");
    fs::write(&file, &original).unwrap();
    lab.until("new pod kube-system/coredns");
    probe(&format!("{NAME}:443"), 0);

    run(&mut lab.command(&["down"]), 0);
    assert_eq!(lab.left(), Vec::<String>::new());
}

/// Without `--zones` there is no DNS server to ask, and a file that is wrong starts nothing.
#[test]
fn names_in_a_lab_need_zones() {
    let lab = Running::start();
    lab.until("waiting for edits");
    let out = run(&mut lab.command(&["probe", "shop/frontend", "a.example:443"]), 2);
    assert!(out.contains("start it with --zones"), "{out}");
    let zones = lab.dir.path().join("zones.yaml");
    fs::write(&zones, "schema: palisade.lab-zones/v1\nnams: {}\n").unwrap();
    let out = run(lab.command(&["up", "--name", "other"]).arg(lab.shop("")).arg("--zones").arg(&zones), 2);
    assert!(out.contains("--zones") && out.contains("did you mean `names`?"), "{out}");
}

#[test]
fn a_directory_that_vanishes_changes_nothing_until_it_returns() {
    let mut lab = Running::start();
    lab.until("waiting for edits");
    let (shop, aside) = (lab.shop(""), lab.dir.path().join("aside"));
    fs::rename(&shop, &aside).unwrap();
    lab.until("does not exist: keeping the last state");
    run(&mut lab.command(&["probe", "staging/frontend", "shop/backend:8080"]), 1);
    fs::rename(&aside, &shop).unwrap();
    lab.until("the manifests exist again");
    fs::remove_file(lab.shop("backend-from-frontend.yaml")).unwrap();
    lab.until("opened  staging/frontend → shop/backend");

    fs::remove_dir_all(&shop).unwrap();
    lab.until("does not exist");
    copy(&example("shop"), &shop);
    lab.until("closed  staging/frontend → shop/backend");
    let workloads = fs::read_to_string(lab.shop("workloads.yaml")).unwrap();
    fs::write(lab.shop("workloads.yaml"), workloads.replace("replicas: 2", "replicas: 3")).unwrap();
    lab.until("new pod shop/frontend-2");
    run(&mut lab.command(&["probe", "shop/pod/frontend-2", "shop/backend:8080"]), 0);

    lab.signal(Signal::SIGINT);
    assert_eq!(lab.child.wait().unwrap().code(), Some(0), "Ctrl-C stops it in order");
    assert_eq!(lab.left(), Vec::<String>::new());
}

#[test]
fn what_a_killed_lab_leaves_the_next_one_takes_away() {
    let mut lab = Running::start();
    lab.until("waiting for edits");
    lab.signal(Signal::SIGKILL);
    lab.child.wait().unwrap();
    assert!(lab.left().contains(&"default.sock".to_owned()));
    let none = run(&mut lab.command(&["probe", "shop/frontend", "shop/backend:80"]), 2);
    assert!(none.contains("no lab named"), "{none}");

    let (child, lines) = Running::spawn(lab.dir.path(), &[]);
    (lab.child, lab.lines) = (child, lines);
    lab.until("waiting for edits");
    run(&mut lab.command(&["down"]), 0);
    assert_eq!(lab.left(), Vec::<String>::new());
}

#[test]
fn bad_input_builds_nothing() {
    let runtime = TempDir::new().unwrap();
    let dir = TempDir::new().unwrap();
    let lab = |words: &[&str]| {
        let mut command = palisade(runtime.path());
        command.arg("lab").args(words).arg(dir.path());
        run(&mut command, 2)
    };
    assert!(lab(&["run"]).contains("no manifests found"));
    assert!(lab(&["up"]).contains("no manifests found"));
    assert!(lab(&["run", "--nodes", "0"]).contains("0"));
    assert!(lab(&["up", "--name", "../x"]).contains("a lab's name consists of"));
    fs::write(dir.path().join("m.yaml"), "kind: [").unwrap();
    assert!(lab(&["run"]).contains("m.yaml:1"));
    let out = run(palisade(runtime.path()).args(["lab", "up", "-"]), 2);
    assert!(out.contains("standard input can't be watched"), "{out}");
}

#[test]
fn random_clusters_agree_too() {
    let runtime = TempDir::new().unwrap();
    let json =
        run(palisade(runtime.path()).args(["lab", "fuzz", "--seed", "7", "--cases", "3", "-o", "json"]), 0);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["schema"], "palisade.lab-fuzz/v1");
    assert_eq!(json["cases"].as_array().unwrap().len(), 3);
    assert_eq!(json["cases"][0]["seed"], 7);
    assert!(json["cases"].as_array().unwrap().iter().all(|c| c["probed"].as_u64() > Some(0)));
}

/// The engine and the packets agree about the assertions of the examples, and about a pod that is only made in the lab.
#[test]
fn assertions_are_tried_with_packets() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let test = |assertions: &str, manifests: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
        command.current_dir(&root).args(["test", assertions, "-f", manifests, "--lab", "-o", "json"]);
        let output = command.output().expect("the program runs");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        (output.status.code(), text, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for name in ["shop", "segment", "tiers"] {
        let (code, out, err) = test(&format!("examples/{name}.assertions.yaml"), &format!("examples/{name}"));
        assert_eq!(code, Some(0), "{name}: {out}{err}");
        assert!(!out.contains("disagree") && !out.contains("packets: 0 connections"), "{name}: {out}");
    }
    // The nodes of the lab know the addresses of names, so nothing is left unenforced.
    let by_name = "examples/egress-by-name";
    let (code, out, err) = test(&format!("{by_name}.assertions.yaml"), by_name);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(!err.contains("not-enforced"), "{err}");
    let (code, out, err) = test("examples/shop.assertions.yaml", "examples/shop-two-rules");
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(out.contains(": connected") && !out.contains("disagree"), "{out}");
    let cases = "crates/palisade/tests/cases/test";
    let (code, out, err) = test(&format!("{cases}/assertions.yaml"), &format!("{cases}/future-hole.yaml"));
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(out.contains("new-pod-1") && out.contains("TCP 5432: connected"), "{out}");
}
