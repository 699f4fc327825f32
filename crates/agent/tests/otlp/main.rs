//! What a running agent exports by OTLP: a real process with a real kernel, real packets, and a collector that is played by a small HTTP
//! server. Needs permission to create namespaces; without it these tests fail.
#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

mod agent;
mod collector;
mod hostile;
mod tls;

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, UdpSocket},
    panic, thread,
    time::{Duration, Instant},
};

use libtest_mimic::{Arguments, Failed, Trial};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::{getgid, getuid},
};
use opentelemetry_proto::tonic::{
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::{Metric, metric::Data, number_data_point},
};
use palisade_netns::rtnetlink::Netlink;

use self::{
    agent::{AGENT, Agent},
    collector::Collector,
};

/// How long is waited for what must happen, long enough for a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The paths of requests.
pub(crate) const LOGS: &str = "/v1/logs";
pub(crate) const METRICS: &str = "/v1/metrics";

/// A pod of this node that may send nothing, and one that it would send to.
const POD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 7, 2));
const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 7, 3));

fn main() {
    if let Ok(words) = std::env::var(AGENT) {
        return agent::run(&words);
    }
    let mut arguments = Arguments::from_args();
    // The tests share the node, on which there is one agent at a time.
    arguments.test_threads = Some(1);
    if !arguments.list {
        enter();
    }
    let trial = |name: &'static str, test: fn()| {
        Trial::test(name, move || {
            panic::catch_unwind(test).map_err(|panic| {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                Failed::from(text.unwrap_or_else(|| "panicked".to_owned()))
            })
        })
    };
    let trials = vec![
        trial("records_and_metrics_are_what_the_kernel_dropped", exported),
        trial("tls_trusts_the_given_authority_and_no_other", tls::authorities),
        trial("tls_shows_the_given_certificate_of_the_client", tls::client),
        trial("what_was_accepted_is_sent_once_whatever_follows", hostile::accepted_once),
        trial("a_collector_that_asks_for_no_pause_gets_few_requests", hostile::no_pause),
        trial("a_pause_may_be_asked_for_as_a_date", hostile::dates),
        trial("a_collector_that_fails_gets_what_waited_later", hostile::fails),
        trial("answers_without_an_end_cost_little", hostile::endless),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

/// Moves the process to a new user and network namespace, before its first thread starts, and gives the node its addresses.
fn enter() {
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).expect("these tests need user namespaces");
    fs::write("/proc/self/setgroups", "deny").unwrap();
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).unwrap();
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).unwrap();
    // Packets of the pod pass the loopback device, whose index is 1.
    let mut links = Netlink::open().unwrap();
    links.link_up(1).address(1, POD, false).address(1, PEER, false);
    links.commit().unwrap();
}

/// Sends a packet that the pod's egress denies, to a port.
pub(crate) fn send(port: u16) {
    UdpSocket::bind((POD, 0)).unwrap().send_to(b"x", (PEER, port)).unwrap();
}

#[track_caller]
pub(crate) fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Attributes as text.
fn values(attributes: &[KeyValue]) -> BTreeMap<&str, String> {
    let show = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::ArrayValue(list) => format!("{} values", list.values.len()),
        other => panic!("{other:?}"),
    };
    let value = |one: &KeyValue| show(one.value.as_ref().unwrap().value.as_ref().unwrap());
    attributes.iter().map(|one| (&*one.key, value(one))).collect()
}

/// The destination ports of all records so far, in order.
pub(crate) fn ports(collector: &Collector) -> Vec<String> {
    let (_, logs) = collector.logs(LOGS);
    logs.iter().map(|log| values(&log.attributes)["destination.port"].clone()).collect()
}

/// The sum of the points of a counter that have these attributes.
fn counted(metrics: &[Metric], name: &str, with: &[(&str, &str)]) -> f64 {
    let Some(Data::Sum(sum)) = metrics.iter().find(|metric| metric.name == name).and_then(|m| m.data.clone())
    else {
        return 0.0;
    };
    assert!(sum.is_monotonic, "{name}");
    let points = sum.data_points.iter().filter(|point| {
        let values = values(&point.attributes);
        with.iter().all(|(key, value)| values.get(key).is_some_and(|is| is == value))
    });
    points
        .map(|point| match point.value.unwrap() {
            number_data_point::Value::AsDouble(number) => number,
            number_data_point::Value::AsInt(number) => number as f64,
        })
        .sum()
}

fn exported() {
    const PACKETS: u16 = 20;
    let collector = Collector::start(None);
    let agent = Agent::start(
        &format!("http://{}/base/", collector.address),
        &[
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x"),
            ("OTEL_RESOURCE_ATTRIBUTES", "k8s.cluster.name=c1"),
        ],
    );
    (0..PACKETS).for_each(|_| send(5432));
    send(53);
    let collected = || {
        let mut all = collector.received("/base/v1/logs");
        all.extend(collector.received("/base/v1/metrics"));
        all
    };
    // All requests are under the path of the endpoint.
    let logs = || collector.logs("/base/v1/logs");
    let packets = |port: &str| -> u64 {
        let (_, logs) = logs();
        let of_port = logs.iter().map(|log| {
            values(&log.attributes).into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<BTreeMap<_, _>>()
        });
        of_port
            .filter(|v| v["destination.port"] == port)
            .map(|v| v["palisade.packets"].parse::<u64>().unwrap())
            .sum()
    };
    until("every packet has its record", || packets("5432") == u64::from(PACKETS) && packets("53") == 1);

    let (resource, logs) = logs();
    let resource = values(&resource);
    for (key, value) in
        [("service.name", "palisade-agent"), ("k8s.node.name", "n1"), ("k8s.cluster.name", "c1")]
    {
        assert_eq!(resource[key], value, "{resource:?}");
    }
    let log = logs.iter().find(|log| values(&log.attributes)["destination.port"] == "5432").unwrap();
    assert_eq!((&*log.severity_text, &*log.event_name), ("WARN", "palisade.flow"));
    let attributes = values(&log.attributes);
    for (key, value) in [
        ("source.address", "10.244.7.2"),
        ("destination.address", "10.244.7.3"),
        ("network.transport", "udp"),
        ("network.type", "ipv4"),
        ("palisade.verdict", "dropped"),
        ("palisade.direction", "egress"),
        ("palisade.policies", "1 values"),
        ("k8s.namespace.name", "shop"),
        ("k8s.pod.name", "web"),
        ("palisade.destination.k8s.pod.name", "db"),
    ] {
        assert_eq!(attributes.get(key).map(String::as_str), Some(value), "{key} in {attributes:?}");
    }
    assert!(collected().iter().all(|request| request.headers.iter().any(|h| h == "authorization: Bearer x")));

    // Both families of counters have each packet once, by policy and by pair of workloads.
    let closed = [("direction", "egress"), ("namespace", "shop"), ("policy", "closed")];
    let pair = [
        ("source_namespace", "shop"),
        ("source_workload", "Pod/web"),
        ("destination_namespace", "shop"),
        ("destination_workload", "Pod/db"),
    ];
    let (all, mut metrics) = (f64::from(PACKETS) + 1.0, Vec::new());
    until("the metrics have every packet", || {
        metrics = collector.metrics("/base/v1/metrics");
        counted(&metrics, "palisade_drops", &closed) >= all
    });
    assert!((counted(&metrics, "palisade_drops", &[]) - all).abs() < 0.5, "{metrics:?}");
    assert!((counted(&metrics, "palisade_workload_drops", &pair) - all).abs() < 0.5);
    assert!((counted(&metrics, "palisade_workload_drops", &[]) - all).abs() < 0.5);
    agent.stop();
}
