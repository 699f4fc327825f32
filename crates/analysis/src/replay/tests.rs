use palisade_policy::{
    Action, Labels, Namespace, NamespaceMatch, Peer, PeerEntry, Phase, Pod, PodMatch, Policy, PolicyKey,
    PortEntry, Rule, Selector, Service, Tier,
};

use super::*;

fn labels(pairs: &[(&'static str, &'static str)]) -> Labels {
    pairs.iter().map(|(key, value)| (Name::from(*key), Name::from(*value))).collect()
}

fn deployment(name: &str) -> Workload {
    Workload { kind: "Deployment".into(), name: name.into() }
}

fn peers(namespaces: NamespaceMatch, app: &'static str) -> Option<Vec<PeerEntry>> {
    let peer = Peer::Pods(PodMatch { namespaces, pods: Selector::of_labels([("app", app)]) });
    Some(vec![PeerEntry { peer, origin: None }])
}

/// `shop/db` accepts `app=web` of its namespace, on some ports.
fn cluster(ports: Option<PortMatch>, from: NamespaceMatch) -> Cluster {
    let pod = |name: &str, app: &'static str, address: [u8; 4]| Pod {
        workload: Some(deployment(app)),
        ..Pod::new(ObjectKey::new("shop", name), labels(&[("app", app)]), vec![address.into()])
    };
    let rule = Rule {
        name: None,
        action: Action::Accept,
        peers: peers(from, "web"),
        ports: ports.map(|port| vec![PortEntry { port, origin: None }]),
        origin: None,
    };
    let policy = Policy {
        key: PolicyKey::network_policy("shop", "db"),
        tier: Tier::Developer,
        priority: 0,
        mode: None,
        subject: PodMatch {
            namespaces: NamespaceMatch::Named("shop".into()),
            pods: Selector::of_labels([("app", "db")]),
        },
        ingress: Some(vec![rule]),
        egress: None,
        origin: None,
    };
    let mut cluster = Cluster::default();
    cluster.namespaces.insert("shop".into(), Namespace::new("shop", &Labels::default()));
    cluster.pods.insert(pod("db", "db", [10, 0, 0, 1]));
    cluster.pods.insert(pod("web-1", "web", [10, 0, 0, 2]));
    cluster.policies.insert(policy.key.clone(), policy.into());
    cluster
}

fn shop() -> NamespaceMatch {
    NamespaceMatch::Named("shop".into())
}

fn end(address: [u8; 4], owner: RecordedOwner) -> RecordedEnd {
    RecordedEnd { address: address.into(), owner }
}

fn pod(name: &str, workload: Option<&str>, of: Option<&[(&'static str, &'static str)]>) -> RecordedOwner {
    let (namespace, name) = name.split_once('/').unwrap();
    RecordedOwner::Pod(RecordedPod {
        key: ObjectKey::new(namespace, name),
        workload: workload.map(deployment),
        labels: of.map(labels),
    })
}

fn to_db(source: RecordedEnd) -> RecordedFlow {
    let destination = end([10, 0, 0, 1], pod("shop/db", None, None));
    RecordedFlow { source, destination, protocol: Protocol::Tcp, port: 5432 }
}

fn verdict(cluster: &Cluster, flow: &RecordedFlow) -> Result<Verdict, NotJudged> {
    let judged = judge(cluster, std::slice::from_ref(flow)).remove(0);
    judged.map(|judged| judged.decision.verdict())
}

#[test]
fn a_pod_is_judged_by_its_name_then_its_workload_then_its_recorded_labels() {
    let cluster = cluster(None, shop());
    let from = |owner| verdict(&cluster, &to_db(end([10, 0, 0, 9], owner)));
    let wrong: &[_] = &[("app", "cron")];
    assert_eq!(from(pod("shop/web-1", None, Some(wrong))), Ok(Verdict::Allow), "today's labels count");
    assert_eq!(
        from(pod("shop/web-7", Some("web"), Some(wrong))),
        Ok(Verdict::Allow),
        "those of its workload"
    );
    assert_eq!(from(pod("shop/old", Some("old"), Some(&[("app", "web")]))), Ok(Verdict::Allow));
    assert_eq!(from(pod("shop/old", Some("old"), Some(wrong))), Ok(Verdict::Deny));
    assert_eq!(from(pod("shop/old", None, Some(&[]))), Ok(Verdict::Deny), "a pod without labels");
    let gone = NotJudged::PodGone(ObjectKey::new("shop", "old"));
    assert_eq!(from(pod("shop/old", None, None)), Err(gone));
}

#[test]
fn two_gone_pods_of_one_workload_are_not_one_pod() {
    let cluster = cluster(None, shop());
    let db = |name: &str, last| end([10, 0, 0, last], pod(name, Some("db"), None));
    let flow = RecordedFlow {
        source: db("shop/db-1", 11),
        destination: db("shop/db-2", 12),
        protocol: Protocol::Tcp,
        port: 5432,
    };
    assert_eq!(verdict(&cluster, &flow), Ok(Verdict::Deny), "db does not accept db");
    let itself = RecordedFlow { destination: flow.source.clone(), ..flow };
    assert_eq!(verdict(&cluster, &itself), Ok(Verdict::Allow));
}

/// Nothing else leaves a pod and comes back to it.
#[test]
fn a_connection_of_a_pod_to_itself_went_through_a_service() {
    let cluster = cluster(None, shop());
    let itself = to_db(end([10, 0, 0, 1], pod("shop/db", None, None)));
    let judged = judge(&cluster, &[itself]).remove(0).unwrap();
    assert_eq!(judged.decision.ingress.reason, Reason::Hairpin);
}

#[test]
fn pods_behind_a_service_have_to_agree() {
    let mut cluster = cluster(None, shop());
    let named = |app: &'static str| Selector::of_labels([("app", app)]);
    let port = palisade_policy::ServicePort {
        name: None,
        protocol: Protocol::Tcp,
        port: 80,
        target: palisade_policy::TargetPort::Number(5432),
        node_port: None,
    };
    let mut service = Service {
        addresses: vec![[10, 96, 0, 1].into()],
        selector: Some(named("db")),
        ports: vec![port],
        ..Service::new(ObjectKey::new("shop", "all"))
    };
    let flow = RecordedFlow {
        source: end([8, 8, 8, 8], RecordedOwner::Outside),
        destination: end([10, 96, 0, 1], RecordedOwner::Unknown),
        protocol: Protocol::Tcp,
        port: 80,
    };
    cluster.services.insert(service.key.clone(), service.clone());
    assert_eq!(verdict(&cluster, &flow), Ok(Verdict::Deny));
    // `web` accepts everything.
    service.selector = Some(Selector::everything());
    cluster.services.insert(service.key.clone(), service.clone());
    assert_eq!(verdict(&cluster, &flow), Err(NotJudged::BackendsDiffer(service.key)));
}

#[test]
fn records_of_one_pod_with_other_labels_are_judged_by_their_own() {
    let cluster = cluster(None, shop());
    let old = |app| to_db(end([10, 0, 0, 9], pod("shop/old", None, Some(&[("app", app)]))));
    let verdicts: Vec<_> = judge(&cluster, &[old("cron"), old("web"), old("cron")])
        .into_iter()
        .map(|judged| judged.map(|judged| judged.decision.verdict()))
        .collect();
    assert_eq!(verdicts, [Ok(Verdict::Deny), Ok(Verdict::Allow), Ok(Verdict::Deny)]);
}

#[test]
fn a_pod_that_finished_is_judged_as_it_was() {
    let mut cluster = cluster(None, shop());
    let done = Pod { phase: Phase::Succeeded, ..cluster.pods[&ObjectKey::new("shop", "db")].clone() };
    cluster.pods.insert(done);
    assert_eq!(verdict(&cluster, &to_db(end([8, 8, 8, 8], RecordedOwner::Outside))), Ok(Verdict::Deny));
}

#[test]
fn addresses_without_a_pod_are_not_guessed() {
    let mut cluster = cluster(None, shop());
    let by_address = |from, to| RecordedFlow {
        source: end(from, RecordedOwner::Unknown),
        destination: end(to, RecordedOwner::Unknown),
        protocol: Protocol::Tcp,
        port: 5432,
    };
    let known = by_address([10, 0, 0, 2], [10, 0, 0, 1]);
    let outside = by_address([8, 8, 8, 8], [10, 0, 0, 1]);
    let without_pods = by_address([8, 8, 8, 8], [10, 0, 0, 7]);
    assert_eq!(verdict(&cluster, &known), Ok(Verdict::Allow));
    assert_eq!(verdict(&cluster, &outside), Ok(Verdict::Deny));
    let no_pod = NotJudged::NoPod([8, 8, 8, 8].into(), [10, 0, 0, 7].into());
    assert_eq!(verdict(&cluster, &without_pods), Err(no_pod));
    let range = palisade_policy::IpRange::of_net(&"10.0.0.0/24".parse().unwrap());
    cluster.addressing.pod_ranges.push(range);
    let gone = by_address([10, 0, 0, 7], [10, 0, 0, 1]);
    assert_eq!(verdict(&cluster, &gone), Err(NotJudged::AddressGone([10, 0, 0, 7].into())));
    cluster.addressing.add_placeholder([10, 0, 0, 200].into(), [range].into());
    assert_eq!(verdict(&cluster, &gone), Err(NotJudged::AddressUnknown([10, 0, 0, 7].into())));
    assert_eq!(verdict(&cluster, &outside), Ok(Verdict::Deny), "the range of the pods is known");
    cluster.addressing.pod_ranges.clear();
    assert_eq!(verdict(&cluster, &outside), Err(NotJudged::AddressUnknown([8, 8, 8, 8].into())));
}

/// As `can` answers: connections are decided after their translation.
#[test]
fn ports_of_nodes_are_those_of_pods() {
    let mut cluster = cluster(None, shop());
    let node = palisade_policy::Node {
        name: "n1".into(),
        labels: Labels::default(),
        addresses: vec![[192, 0, 2, 1].into()],
        pod_cidrs: Vec::new(),
    };
    cluster.nodes.insert(node.name.clone(), node);
    let to_node = |source: [u8; 4], port: u16| RecordedFlow {
        source: end(source, RecordedOwner::Unknown),
        destination: end([192, 0, 2, 1], RecordedOwner::Unknown),
        protocol: Protocol::Tcp,
        port,
    };
    let (web, outside) = ([10, 0, 0, 2], [8, 8, 8, 8]);
    for source in [web, outside] {
        assert_eq!(verdict(&cluster, &to_node(source, 30080)), Ok(Verdict::Allow), "the node itself");
    }
    let port = palisade_policy::ServicePort {
        name: None,
        protocol: Protocol::Tcp,
        port: 80,
        target: palisade_policy::TargetPort::Number(5432),
        node_port: Some(30080),
    };
    let service = Service {
        selector: Some(Selector::of_labels([("app", "db")])),
        ports: vec![port],
        ..Service::new(ObjectKey::new("shop", "db"))
    };
    cluster.services.insert(service.key.clone(), service);
    let mut db = (*cluster.pods.get(&ObjectKey::new("shop", "db")).unwrap()).clone();
    db.node = Some("n1".into());
    db.ports =
        [ContainerPort { name: None, protocol: Protocol::Tcp, port: 5432, host_port: Some(7777) }].into();
    cluster.pods.insert(db);
    for port in [30080, 7777] {
        assert_eq!(verdict(&cluster, &to_node(web, port)), Ok(Verdict::Allow), "{port}");
        assert_eq!(verdict(&cluster, &to_node(outside, port)), Ok(Verdict::Deny), "{port}");
        let placed = place_all(&cluster, &[to_node(outside, port)]).flows.remove(0).unwrap();
        let to = &placed.flows[0];
        assert!(matches!(&to.destination, Endpoint::Pod { key, .. } if *key.name == *"db"), "{to:?}");
        assert_eq!(to.port, 5432);
    }
    assert_eq!(verdict(&cluster, &to_node(outside, 22)), Ok(Verdict::Allow), "another port is the node's");
}

/// What policies say about labels doesn't depend on addresses that manifests lack.
#[test]
fn pods_behind_a_service_need_an_address_only_where_a_rule_asks_for_it() {
    let mut cluster = cluster(None, shop());
    let port = palisade_policy::ServicePort {
        name: None,
        protocol: Protocol::Tcp,
        port: 80,
        target: palisade_policy::TargetPort::Number(5432),
        node_port: None,
    };
    let service = Service {
        addresses: vec![[10, 96, 0, 1].into()],
        selector: Some(Selector::of_labels([("app", "db")])),
        ports: vec![port],
        ..Service::new(ObjectKey::new("shop", "db"))
    };
    cluster.services.insert(service.key.clone(), service);
    let range = palisade_policy::IpRange::of_net(&"10.0.0.0/8".parse().unwrap());
    cluster.addressing.add_placeholder([10, 0, 0, 1].into(), [range].into());
    let flow = |source: [u8; 4]| RecordedFlow {
        source: end(source, RecordedOwner::Unknown),
        destination: end([10, 96, 0, 1], RecordedOwner::Unknown),
        protocol: Protocol::Tcp,
        port: 80,
    };
    let web = [10, 0, 0, 2];
    assert_eq!(verdict(&cluster, &flow(web)), Ok(Verdict::Allow));
    let block = palisade_policy::IpBlock { cidr: "10.0.0.0/9".parse().unwrap(), except: [].into() };
    let peers = Some(vec![PeerEntry { peer: Peer::Block(block), origin: None }]);
    let rule = Rule { name: None, action: Action::Accept, peers, ports: None, origin: None };
    let key = PolicyKey::network_policy("shop", "db");
    let policy = Policy {
        key: PolicyKey::network_policy("shop", "web"),
        subject: PodMatch {
            namespaces: NamespaceMatch::Named("shop".into()),
            pods: Selector::of_labels([("app", "web")]),
        },
        ingress: None,
        egress: Some(vec![rule]),
        ..(*cluster.policies[&key]).clone()
    };
    cluster.policies.insert(policy.key.clone(), policy.into());
    let why = NotJudged::BackendAddresses(ObjectKey::new("shop", "db"));
    assert_eq!(verdict(&cluster, &flow(web)), Err(why));
}

/// Else `suggest` writes two policies with one selector.
#[test]
fn a_gone_pod_with_the_labels_of_a_workload_is_one_of_its_pods() {
    let mut cluster = cluster(None, shop());
    let workloads = |cluster: &Cluster| {
        let hashed = [("app", "web"), ("pod-template-hash", "5d8c")];
        let records = [
            to_db(end([10, 0, 0, 9], pod("shop/web-old", None, Some(&hashed)))),
            to_db(end([10, 0, 0, 10], pod("shop/web-older", Some("renamed"), Some(&hashed)))),
            to_db(end([10, 0, 0, 11], pod("shop/cron-1", Some("cron"), Some(&[("app", "cron")])))),
        ];
        let placed = place_all(cluster, &records).cluster;
        let of = |name: &str| placed.pods[&ObjectKey::new("shop", name)].workload.clone();
        ["web-old", "web-older", "cron-1"].map(of)
    };
    let (web, cron) = (Some(deployment("web")), Some(deployment("cron")));
    assert_eq!(workloads(&cluster), [web.clone(), web, cron.clone()]);
    // Two workloads with these labels: it may be of either.
    let other = Pod {
        workload: Some(deployment("canary")),
        ..Pod::new(ObjectKey::new("shop", "canary"), labels(&[("app", "web")]), vec![[10, 0, 0, 5].into()])
    };
    cluster.pods.insert(other);
    assert_eq!(workloads(&cluster), [None, Some(deployment("renamed")), cron]);
}

/// A CIDR would allow it, and nothing the pods behind the service.
#[test]
fn the_address_of_a_service_that_is_gone_is_not_outside() {
    let mut cluster = cluster(None, shop());
    let to = |last| RecordedFlow {
        source: end([10, 0, 0, 2], RecordedOwner::Unknown),
        destination: end([10, 96, 0, last], RecordedOwner::Unknown),
        protocol: Protocol::Tcp,
        port: 443,
    };
    assert_eq!(verdict(&cluster, &to(9)), Ok(Verdict::Allow), "nothing is known of services");
    let mut add = |name: &str, address: [u8; 4]| {
        let service = Service::new(ObjectKey::new("shop", name));
        let service = Service { addresses: vec![address.into()], ..service };
        cluster.services.insert(service.key.clone(), service);
    };
    add("first", [10, 96, 0, 1]);
    add("last", [10, 96, 0, 20]);
    assert_eq!(verdict(&cluster, &to(9)), Err(NotJudged::ServiceGone([10, 96, 0, 9].into())));
    assert_eq!(verdict(&cluster, &to(21)), Ok(Verdict::Allow), "it may be outside");
    // Two ranges of services: what lies between may be anything.
    let other = Service::new(ObjectKey::new("shop", "other"));
    let other = Service { addresses: vec![[172, 20, 0, 1].into()], ..other };
    cluster.services.insert(other.key.clone(), other);
    assert_eq!(verdict(&cluster, &to(9)), Ok(Verdict::Allow));
}

#[test]
fn a_namespace_that_is_gone_counts_by_its_name_alone() {
    let monitor = || to_db(end([10, 0, 0, 9], pod("ops/prometheus", None, Some(&[("app", "web")]))));
    let selected = |key: &'static str| NamespaceMatch::Selected(Selector::of_labels([(key, "ops")]));
    let by_name = cluster(None, selected("kubernetes.io/metadata.name"));
    assert_eq!(verdict(&by_name, &monitor()), Ok(Verdict::Allow));
    let by_label = cluster(None, selected("team"));
    assert_eq!(verdict(&by_label, &monitor()), Err(NotJudged::NamespaceGone("ops".into())));
}

#[test]
fn names_of_ports_of_a_pod_that_is_gone_are_not_guessed() {
    let named = PortMatch::Named { protocol: Some(Protocol::Tcp), name: "sql".into() };
    let cluster = cluster(Some(named), shop());
    let to_old_db = |source| RecordedFlow {
        destination: end([10, 0, 0, 8], pod("shop/old-db", None, Some(&[("app", "db")]))),
        ..to_db(source)
    };
    let web = to_old_db(end([10, 0, 0, 2], pod("shop/web-1", None, None)));
    assert_eq!(verdict(&cluster, &web), Err(NotJudged::PortName(ObjectKey::new("shop", "old-db"))));
    let outside = to_old_db(end([8, 8, 8, 8], RecordedOwner::Outside));
    assert_eq!(verdict(&cluster, &outside), Ok(Verdict::Deny), "no name allows it");
}

/// Each name is tried, so there is a limit.
#[test]
fn more_names_of_ports_than_can_be_tried_are_not_guessed() {
    let mut cluster = cluster(None, shop());
    let key = PolicyKey::network_policy("shop", "db");
    let mut with_names = |count: usize| {
        let named = |n| PortMatch::Named { protocol: Some(Protocol::Tcp), name: format!("p{n}").into() };
        let mut policy = (*cluster.policies[&key]).clone();
        let ports = (0..count).map(|n| PortEntry { port: named(n), origin: None }).collect();
        policy.ingress.as_mut().unwrap()[0].ports = Some(ports);
        cluster.policies.insert(key.clone(), policy.into());
        let flow = RecordedFlow {
            destination: end([10, 0, 0, 8], pod("shop/old-db", None, Some(&[("app", "db")]))),
            ..to_db(end([8, 8, 8, 8], RecordedOwner::Outside))
        };
        verdict(&cluster, &flow)
    };
    assert_eq!(with_names(MAX_PORT_NAMES), Ok(Verdict::Deny));
    assert_eq!(with_names(MAX_PORT_NAMES + 1), Err(NotJudged::PortName(ObjectKey::new("shop", "old-db"))));
}

#[test]
fn the_own_node_is_always_allowed() {
    let cluster = cluster(None, shop());
    assert_eq!(verdict(&cluster, &to_db(end([10, 0, 0, 254], RecordedOwner::OwnNode))), Ok(Verdict::Allow));
    let other = to_db(end([10, 0, 9, 254], RecordedOwner::Node(Some("n2".into()))));
    assert_eq!(verdict(&cluster, &other), Ok(Verdict::Deny));
}
