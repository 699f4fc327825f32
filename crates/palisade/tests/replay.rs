//! `palisade replay` as users run it.

mod support;

use std::{fs, io::Write as _, process::Stdio};

use serde_json::Value;
use support::{palisade, recorded, refused, run};

const CASES: &str = "crates/palisade/tests/cases/replay";

/// Runs `replay` with records in a file of its own; returns the exit code, standard output and standard error.
fn replayed(records: &str, rest: &str) -> (i32, String, String) {
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("flows");
    fs::write(&file, records).expect("the file can be written");
    run(&mut palisade(&format!("replay --flows {} {rest}", file.display())))
}

fn json(words: &str) -> (i32, Value) {
    let (code, out, err) = run(&mut palisade(&format!("replay {words} -o json")));
    (code, serde_json::from_str(&out).unwrap_or_else(|_| panic!("{words}: {err}")))
}

/// What newly is dropped or allowed: `from → to port`.
fn connections(answer: &Value, of: &str) -> Vec<String> {
    let groups = answer[of].as_array().expect("groups").iter();
    let all = groups.flat_map(|group| group["connections"].as_array().expect("connections"));
    let name = |end: &Value| end["name"].as_str().expect("a name").to_owned();
    all.map(|c| format!("{} → {} {}", name(&c["source"]), name(&c["destination"]), c["port"])).collect()
}

#[test]
fn records_are_compared_with_todays_policies() {
    let (code, out, err) = run(&mut palisade(&format!("replay --flows {CASES}/shop.jsonl -f examples/shop")));
    assert_eq!(code, 1, "{out}{err}");
    recorded("cases/replay/shop.txt", &format!("{out}{err}"));
    let (code, answer) = json(&format!("--flows {CASES}/shop.jsonl -f examples/shop"));
    assert_eq!((code, &answer["breaks"]), (1, &Value::Bool(true)));
    let dropped = ["monitoring/deployment/monitoring → shop/deployment/backend 9100"];
    assert_eq!(connections(&answer, "dropped"), dropped);
    assert_eq!(answer["dropped"][0]["connections"][0]["count"], 42, "equal records are one connection");
    let allowed = ["shop/deployment/frontend → data/statefulset/database 5432"];
    assert_eq!(connections(&answer, "allowed"), allowed);
    assert_eq!(answer["by_recorded_labels"]["connections"], 1, "the pod that is gone");
}

#[test]
fn a_candidate_is_compared_with_today() {
    let words = format!("--flows {CASES}/shop.jsonl -f examples/shop --with {CASES}/stricter.yaml");
    let (code, answer) = json(&words);
    assert_eq!(code, 1);
    assert_eq!(
        connections(&answer, "dropped"),
        ["shop/deployment/frontend → data/statefulset/database 5432"]
    );
    assert!(connections(&answer, "allowed").is_empty(), "what today denies, the candidate denies too");
    assert_eq!(answer["stale"]["connections"], 2, "{answer:#}");
    let cause = answer["dropped"][0]["cause"][0].as_str().expect("a cause");
    assert!(cause.starts_with("ingress: isolated by NetworkPolicy data/database ("), "{cause}");
    // Today's policies as the candidate change nothing.
    let (code, answer) = json(&format!("--flows {CASES}/shop.jsonl -f examples/shop --with examples/shop"));
    assert_eq!((code, answer["dropped"].as_array().map(Vec::len)), (0, Some(0)), "{answer:#}");
}

#[test]
fn the_verdict_is_the_one_of_can() {
    for (ends, code) in [
        ("monitoring/monitoring shop/backend:9100", 1),
        ("shop/frontend shop/backend:8080", 0),
        ("staging/frontend shop/backend:8080", 1),
        ("shop/frontend data/database:5432", 0),
        ("shop/backend 192.168.1.20:80", 0),
    ] {
        let (got, out, _) = run(&mut palisade(&format!("can -q {ends} -f examples/shop")));
        assert_eq!(got, code, "{ends}: {out}");
    }
}

#[test]
fn hubbles_records_are_read() {
    let (code, answer) = json(&format!("--flows {CASES}/hubble.jsonl -f examples/shop"));
    assert_eq!(code, 1, "{answer:#}");
    assert_eq!(
        connections(&answer, "dropped"),
        ["staging/deployment/frontend → shop/deployment/backend 8080"]
    );
    assert!(connections(&answer, "allowed").is_empty());
    assert_eq!((&answer["records"], &answer["lost"]), (&Value::from(4), &Value::from(7)));
    let skipped = &answer["not_replayed"];
    for why in ["replies", "drops that no policy caused", "events that are no flows"] {
        assert_eq!(skipped[why], 1, "{why}: {skipped}");
    }
}

#[test]
fn five_tuples_of_pods_without_known_addresses_are_undecided() {
    let records = "src_ip,src_port,dst_ip,dst_port,proto\n10.244.1.7,40000,10.244.2.9,8080,6\n";
    let (code, out, err) = replayed(records, "-f examples/shop");
    assert_eq!(code, 2, "{out}{err}");
    assert!(
        err.contains("undecided: 1 connection, first in line 2: 10.244.1.7 may belong to a pod"),
        "{err}"
    );
}

#[test]
fn five_tuples_are_judged_by_the_pods_with_their_addresses() {
    let folder = tempfile::tempdir().expect("a directory");
    let pod = |name: &str, address: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: {name}}}}}\n\
             spec: {{containers: [{{name: c, image: i}}]}}\nstatus: {{phase: Running, podIPs: [{{ip: {address}}}]}}\n---\n"
        )
    };
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: db, namespace: shop}\n\
                  spec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}\n";
    let manifests = pod("web", "10.0.0.2") + &pod("job", "10.0.0.3") + &pod("db", "10.0.0.1") + policy;
    fs::write(folder.path().join("m.yaml"), manifests).expect("written");
    let rest = format!("-f {} --family 4", folder.path().display());
    let header = "source,destination,protocol,port,verdict\n";
    let (code, out, err) = replayed(&format!("{header}10.0.0.2,10.0.0.1,TCP,5432,\n"), &rest);
    assert_eq!(code, 0, "{out}{err}");
    let (code, out, err) = replayed(&format!("{header}10.0.0.3,10.0.0.1,TCP,5432,\n"), &rest);
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.contains("shop/pod/job → shop/pod/db on TCP 5432 (line 2)"), "{out}");
    let (code, out, err) = replayed(&format!("{header}10.0.0.3,10.0.0.1,TCP,5432,dropped\n"), &rest);
    assert_eq!(code, 0, "it was dropped before: {out}{err}");
}

#[test]
fn lines_that_are_no_records_are_named_and_nothing_is_answered_without_them() {
    let good = fs::read_to_string(support::root().join(CASES).join("shop.jsonl")).expect("it is there");
    let first = good.lines().next().expect("a line");
    let records = format!("{first}\n{{\"verdict\":\"dropped\"}}\nnot JSON\n\n{first}\n");
    let (code, out, err) = replayed(&records, "-f examples/shop");
    assert_eq!((code, &*out), (2, ""), "{err}");
    for part in [
        "flows:2: not a record of `palisade flows -o json` or of Hubble: missing field `source`",
        "flows:3: not a JSON object of one line",
        "2 lines of",
        "use --keep-going",
    ] {
        assert!(err.contains(part), "no {part:?} in {err}");
    }
    let (code, out, err) = replayed(&records, "-f examples/shop --keep-going");
    assert_eq!(code, 2, "an answer without them is not complete");
    assert!(out.starts_with("2 records replayed, 1 different connection:"), "{out}{err}");
}

#[test]
fn files_without_records_and_unknown_formats_are_refused() {
    refused("replay --flows /nonexistent -f examples/shop", "can't read /nonexistent");
    for (records, part) in [
        ("", "has no recorded connections"),
        ("\n\n", "has no recorded connections"),
        ("[{}]\n", "records must be JSON objects, one a line"),
        ("10.0.0.1,10.0.0.2,TCP,80\n", "neither JSON nor CSV with a header"),
        ("source,destination,protocol,port\n", "has no recorded connections"),
        ("{\"node_status\":{}}\n", "has no connections to replay, only 1 events that are no flows"),
    ] {
        let (code, out, err) = replayed(records, "-f examples/shop");
        assert_eq!((code, &*out), (2, ""), "{records:?}: {err}");
        assert!(err.contains(part), "{records:?}: {err}");
    }
    let mut both = palisade("replay --flows - -f -");
    let (code, _, err) = run(&mut both);
    assert!(code == 2 && err.contains("standard input (-) can be given only once"), "{err}");
}

#[test]
fn names_in_records_are_escaped() {
    let good = fs::read_to_string(support::root().join(CASES).join("shop.jsonl")).expect("it is there");
    let third = good.lines().nth(2).expect("a line");
    let evil = third.replace(
        "\"workload\":{\"kind\":\"Deployment\",\"name\":\"monitoring\"},\"labels\":{\"app\":\"monitoring\"}",
        "\"labels\":{}",
    );
    let evil = evil.replace("monitoring-0", "x\\u001b[31m\\u202e\\ny");
    let (code, out, err) = replayed(&format!("{evil}\n"), "-f examples/shop");
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.contains("monitoring/pod/x\\u{1b}[31m\\u{202e}\\u{a}y") || out.contains("x\\u{1b}"), "{out}");
    assert!(!out.contains(['\u{1b}', '\u{202e}']), "{out:?}");
}

#[test]
fn records_come_from_standard_input() {
    let records = fs::read(support::root().join(CASES).join("hubble.jsonl")).expect("it is there");
    let mut command = palisade("replay --flows - -f examples/shop");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    child.stdin.take().expect("an input").write_all(&records).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("4 records replayed"));
}

/// Devices without end, and named pipes to which nothing writes.
#[cfg(unix)]
#[test]
fn what_never_ends_or_begins_is_refused() {
    for verb in ["replay", "suggest"] {
        let words = format!("{verb} --flows /dev/zero -f examples/shop");
        let words = if verb == "replay" { words + " --with examples/shop" } else { words };
        refused(&words, "a line is longer than 64 MiB");
    }
    let folder = tempfile::tempdir().expect("a directory");
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a named pipe");
    let words = format!("suggest --flows {} -f examples/shop", pipe.display());
    refused(&words, "is a named pipe, and nothing writes to it");
    // A program that writes later is waited for.
    let to = pipe;
    let writer = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        fs::write(to, "source,destination,protocol,port\n203.0.113.1,203.0.113.2,TCP,80\n")
            .expect("it is read");
    });
    let (_, _, err) = run(&mut palisade(&words));
    writer.join().expect("it wrote");
    assert!(err.contains("203.0.113.1"), "{err}");
}
