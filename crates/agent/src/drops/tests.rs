//! Counts, records and lines of denied packets, and their bounds.

use palisade_policy::{PolicyKey, Protocol};

use super::*;
use crate::flows::FlowRequest;

fn drop_log(now: Instant) -> (DropLog, Arc<FlowStore>) {
    let records = Arc::new(FlowStore::new(1 << 20, None, Arc::new(Metrics::new("1", "n1"))));
    (DropLog::new("n1".into(), Arc::clone(&records), Arc::new(explained::no_words), now), records)
}

/// Source, destination and packets of each record.
async fn recorded(records: &FlowStore) -> Vec<(String, String, u64)> {
    let page = records.page(&FlowRequest::default()).await.unwrap();
    page.records.iter().map(|r| (r.source.to_string(), r.destination.to_string(), r.count)).collect()
}

pub(crate) fn denied_packet() -> DeniedPacket {
    DeniedPacket {
        direction: Direction::Ingress,
        audited: false,
        source: [10, 0, 0, 2].into(),
        destination: [10, 0, 0, 1].into(),
        protocol: Protocol::Tcp,
        port: 80,
    }
}

#[test]
fn a_record_has_the_names_for_which_its_address_was_learned() {
    let mut reconciler = reconciler();
    let address: IpAddr = [203, 0, 113, 7].into();
    let names =
        (0..20).map(|number| palisade_policy::DomainName::new(&format!("n{number}.example.com")).unwrap());
    let learned = names.map(|name| {
        palisade_policy::Change::SetLearned(palisade_policy::LearnedName {
            name,
            addresses: [address].into_iter().collect(),
        })
    });
    reconciler.handle(crate::Input::Changes(learned.collect()), Duration::ZERO);
    let packet = DeniedPacket { direction: Direction::Egress, destination: address, ..denied_packet() };
    let wording: Wording = Arc::new(explained::no_words);
    let record = explained::explain(&packet, &reconciler, 1, &wording).record;
    assert_eq!(record.destination.names.len(), 8, "the first ones: {:?}", record.destination.names);
    assert_eq!(record.destination.to_string(), "n0.example.com (203.0.113.7)");
    assert!(record.source.names.is_empty());
}

pub(crate) fn reconciler() -> Reconciler {
    let pod = |name: &str, address: [u8; 4]| {
        palisade_policy::Change::SetPod(palisade_policy::Pod {
            node: Some("n1".into()),
            ..palisade_policy::Pod::new(
                palisade_policy::ObjectKey::new("shop", name),
                palisade_policy::Labels::default(),
                vec![address.into()],
            )
        })
    };
    let policy = palisade_policy::Policy {
        key: PolicyKey::network_policy("shop", "closed"),
        tier: palisade_policy::Tier::Developer,
        priority: 0,
        mode: None,
        subject: palisade_policy::PodMatch {
            namespaces: palisade_policy::NamespaceMatch::Named("shop".into()),
            pods: palisade_policy::Selector::everything(),
        },
        ingress: Some(Vec::new()),
        egress: None,
        origin: None,
    };
    let mut reconciler = Reconciler::new("n1".into());
    let changes = vec![
        pod("db", [10, 0, 0, 1]),
        pod("web", [10, 0, 0, 2]),
        palisade_policy::Change::SetPolicy(policy.into()),
    ];
    reconciler.handle(crate::Input::Changes(changes), Duration::ZERO);
    reconciler
}

fn count(metrics: &Metrics, labels: &DropLabels) -> u64 {
    metrics.drops.get(labels).map_or(0, |c| c.get())
}

/// The kernel decides it by one row, which logs it as egress.
#[test]
fn what_a_pod_sends_to_itself_through_a_service_is_denied_by_the_direction_that_denies_it() {
    let rule = palisade_policy::Rule {
        name: None,
        action: palisade_policy::Action::Deny,
        peers: None,
        ports: None,
        origin: None,
    };
    let key = PolicyKey { kind: "ClusterNetworkPolicy".into(), namespace: "".into(), name: "no".into() };
    let all = palisade_policy::Selector::everything;
    let policy = palisade_policy::Policy {
        key: key.clone(),
        tier: palisade_policy::Tier::Admin,
        priority: 0,
        mode: None,
        subject: palisade_policy::PodMatch {
            namespaces: palisade_policy::NamespaceMatch::Selected(all()),
            pods: all(),
        },
        ingress: Some(vec![rule]),
        egress: None,
        origin: None,
    };
    let mut reconciler = reconciler();
    let shop = palisade_policy::Namespace::new("shop", &palisade_policy::Labels::default());
    let changes =
        vec![palisade_policy::Change::SetNamespace(shop), palisade_policy::Change::SetPolicy(policy.into())];
    reconciler.handle(crate::Input::Changes(changes), Duration::ZERO);
    let itself = denied_packet().destination;
    let packet = DeniedPacket { direction: Direction::Egress, source: itself, ..denied_packet() };
    let wording: Wording = Arc::new(explained::no_words);
    let found = explained::explain(&packet, &reconciler, 1, &wording);
    assert_eq!(found.record.direction, palisade_flow::Direction::Ingress);
    assert_eq!(found.labels, DropLabels::of(Direction::Ingress, &key));
    let rule = found.record.rule.unwrap();
    assert_eq!((&*rule.policy.name, &*rule.field, rule.decided), ("no", "ingress[0]", true));
}

#[test]
fn a_drop_counts_for_the_policy_that_isolates_and_a_packet_allowed_now_for_none() {
    let (reconciler, metrics, mut drops) = (reconciler(), Metrics::new("1", "n"), drop_log(Instant::now()).0);
    let egress = DeniedPacket { direction: Direction::Egress, ..denied_packet() };
    drops.record(
        vec![denied_packet(), denied_packet(), egress],
        4,
        (&reconciler, 1),
        &metrics,
        Instant::now(),
    );
    let closed = DropLabels::of(Direction::Ingress, &PolicyKey::network_policy("shop", "closed"));
    assert_eq!(count(&metrics, &closed), 2);
    assert_eq!(count(&metrics, &DropLabels::unknown(Direction::Egress)), 1, "no policy denies it any longer");
    assert_eq!(count(&metrics, &DropLabels::unknown(Direction::Ingress)), 4, "received as a number only");
    let received = |direction| drops.received(direction, false);
    assert_eq!((received(Direction::Ingress), received(Direction::Egress)), (6, 1));
}

#[test]
fn link_traffic_counts_for_no_policy() {
    let (reconciler, metrics, mut drops) = (reconciler(), Metrics::new("1", "n"), drop_log(Instant::now()).0);
    let link_traffic = [
        ("fe80::1", "fe80::2"),
        ("fe80::1", "ff02::1"),
        ("10.0.0.2", "224.0.0.1"),
        ("0.0.0.0", "255.255.255.255"),
    ];
    let packet = |source: &str, destination: &str| DeniedPacket {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        ..denied_packet()
    };
    let packets: Vec<DeniedPacket> = link_traffic.iter().map(|(from, to)| packet(from, to)).collect();
    assert!(packets.iter().all(DeniedPacket::is_link_traffic));
    // This may be the broadcast address of a subnet.
    let subnet = packet("10.0.0.2", "10.0.0.255");
    assert!(!subnet.is_link_traffic());
    drops.record([packets, vec![subnet]].concat(), 0, (&reconciler, 1), &metrics, Instant::now());
    assert_eq!(count(&metrics, &DropLabels::unknown(Direction::Ingress)), 5);
}

#[test]
fn a_flow_is_logged_at_intervals_with_its_packets() {
    let (reconciler, metrics, begin) = (reconciler(), Metrics::new("1", "n"), Instant::now());
    let (mut drops, _) = drop_log(begin);
    let mut lines_at = |seconds: u64| {
        let now = begin + Duration::from_secs(seconds);
        drops.record(vec![denied_packet()], 0, (&reconciler, 1), &metrics, now);
        (drops.lines, drops.flows[&denied_packet()].packets)
    };
    assert_eq!(lines_at(0), (1, 0));
    assert_eq!([lines_at(30), lines_at(59)], [(0, 1), (0, 2)], "in other periods, without a line");
    assert_eq!(lines_at(60), (1, 0));
}

#[test]
fn a_port_scan_has_a_bounded_number_of_explanations_lines_and_flows() {
    let (reconciler, metrics, mut drops) = (reconciler(), Metrics::new("1", "n"), drop_log(Instant::now()).0);
    let scan: Vec<DeniedPacket> = (0..20_000).map(|port| DeniedPacket { port, ..denied_packet() }).collect();
    drops.record(scan, 0, (&reconciler, 1), &metrics, Instant::now());
    assert!(drops.lines <= MAX_LINES && drops.explained <= MAX_EXPLAINED && drops.flows.len() <= MAX_FLOWS);
    let closed = DropLabels::of(Direction::Ingress, &PolicyKey::network_policy("shop", "closed"));
    let all = count(&metrics, &closed) + count(&metrics, &DropLabels::unknown(Direction::Ingress));
    assert_eq!(all, 20_000, "every packet counts");
}

#[tokio::test]
async fn a_flow_has_a_record_at_once_and_one_each_second_with_its_packets() {
    let (reconciler, metrics, begin) = (reconciler(), Metrics::new("1", "n"), Instant::now());
    let (mut drops, records) = drop_log(begin);
    let at = |milliseconds: u64| begin + Duration::from_millis(milliseconds);
    let record = |drops: &mut DropLog, packets: usize, now| {
        drops.record(vec![denied_packet(); packets], 0, (&reconciler, 9), &metrics, now);
        drops.tick(now);
    };
    let one = |count| ("shop/web".to_owned(), "shop/db".to_owned(), count);
    record(&mut drops, 1, at(0));
    assert_eq!(recorded(&records).await, [one(1)], "at once");
    record(&mut drops, 3, at(500));
    assert_eq!(recorded(&records).await, [one(1)]);
    drops.tick(at(1_000));
    assert_eq!(recorded(&records).await, [one(1), one(3)]);
    record(&mut drops, 2, at(1_200));
    drops.forget_policies();
    assert_eq!(recorded(&records).await, [one(1), one(3), one(2)], "with the policies of their time");
    let page = records.page(&FlowRequest::default()).await.unwrap();
    let found = &page.records[0];
    assert_eq!((found.generation, &*found.node, &*found.reason[0]), (9, "n1", "a reason"));
    assert_eq!(found.policies[0].to_string(), "shop/closed");
    assert_eq!(found.port, Some(80));
}

#[tokio::test]
async fn what_gets_no_record_is_counted() {
    let (reconciler, metrics, now) = (reconciler(), Metrics::new("1", "n"), Instant::now());
    let (mut drops, records) = drop_log(now);
    let scan = (0..1_000).map(|port| DeniedPacket { port, ..denied_packet() }).collect();
    drops.record(scan, 50, (&reconciler, 1), &metrics, now);
    let page = records.page(&FlowRequest::default()).await.unwrap();
    let packets: u64 = page.records.iter().map(|record| record.count).sum();
    assert_eq!(packets + page.unrecorded, 1_050);
    assert_eq!(packets, u64::from(MAX_EXPLAINED_OF_SENDER));
}

#[tokio::test]
async fn a_scan_by_one_pod_does_not_hide_the_flows_of_others() {
    let (reconciler, metrics, now) = (reconciler(), Metrics::new("1", "n"), Instant::now());
    let (mut drops, records) = drop_log(now);
    let mut packets: Vec<DeniedPacket> =
        (1..=1_000).map(|port| DeniedPacket { port, ..denied_packet() }).collect();
    packets.push(DeniedPacket { source: [192, 0, 2, 1].into(), ..denied_packet() });
    drops.record(packets, 0, (&reconciler, 1), &metrics, now);
    assert_eq!(recorded(&records).await.last().unwrap().0, "192.0.2.1");
    assert!(drops.explained <= MAX_EXPLAINED && drops.explained_of.len() == 2);
}

#[tokio::test]
async fn an_address_that_has_another_pod_now_is_looked_up_again() {
    let (mut reconciler, metrics, now) = (reconciler(), Metrics::new("1", "n"), Instant::now());
    let (mut drops, records) = drop_log(now);
    drops.record(vec![denied_packet(), denied_packet()], 0, (&reconciler, 1), &metrics, now);
    drops.forget_ends(&HashSet::from([[10, 0, 0, 9].into()]));
    assert_eq!(drops.flows.len(), 1, "another address");
    drops.forget_ends(&HashSet::from([denied_packet().source]));
    assert_eq!((drops.flows.len(), drops.flow_bytes), (0, 0));
    let gone = palisade_policy::Change::RemovePod(palisade_policy::ObjectKey::new("shop", "web"));
    reconciler.handle(crate::Input::Changes(vec![gone]), Duration::ZERO);
    drops.record(vec![denied_packet()], 0, (&reconciler, 2), &metrics, now);
    let sources: Vec<String> = recorded(&records).await.into_iter().map(|(source, ..)| source).collect();
    assert_eq!(sources, ["shop/web", "shop/web", "10.0.0.2"]);
}

#[tokio::test]
async fn what_no_policy_denies_now_and_link_traffic_have_reasons_of_their_own() {
    let (reconciler, metrics, now) = (reconciler(), Metrics::new("1", "n"), Instant::now());
    let (mut drops, records) = drop_log(now);
    let egress = DeniedPacket { direction: Direction::Egress, ..denied_packet() };
    let multicast = DeniedPacket { destination: [224, 0, 0, 1].into(), ..egress.clone() };
    drops.record(vec![egress, multicast], 0, (&reconciler, 1), &metrics, now);
    let page = records.page(&FlowRequest::default()).await.unwrap();
    let reasons: Vec<&str> = page.records.iter().map(|record| &*record.reason[0]).collect();
    assert!(reasons[0].contains("any longer") && reasons[1].contains("multicast"), "{reasons:?}");
    assert!(page.records.iter().all(|record| record.policies.is_empty()));
}
