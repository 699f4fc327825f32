use std::collections::BTreeSet;

use palisade_policy::{
    Endpoint, Family, ObjectKey, Peer, Pod, PortMatch, Protocol, Reason, Rule, Tier, reference,
};
use palisade_testkit::{Shape, running_pod, seeds};

use super::*;

fn pod(namespace: &str, name: &str, last: u8, ports: &[(&str, u16)]) -> Pod {
    let ports = ports.iter().map(|(name, port)| palisade_policy::ContainerPort {
        name: Some(Name::from(*name)),
        protocol: Protocol::Tcp,
        port: *port,
        host_port: None,
    });
    let workload = Workload { kind: "Deployment".into(), name: name.into() };
    let ports = ports.collect::<Vec<_>>().into();
    Pod {
        addresses: vec![[10, 0, 0, last].into()],
        workload: Some(workload),
        ports,
        ..running_pod(namespace, name)
    }
}

/// `shop/web`, `shop/db` with port `sql`, and `ops/monitor`.
fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    for name in ["shop", "ops", "kube-system"] {
        let namespace = palisade_policy::Namespace::new(name, &Labels::default());
        cluster.namespaces.insert(name.into(), namespace);
    }
    let pods = [
        pod("shop", "web", 1, &[("http", 8080)]),
        pod("shop", "db", 2, &[("sql", 5432), ("metrics", 9100)]),
        pod("ops", "monitor", 3, &[]),
    ];
    for pod in pods {
        cluster.pods.insert(pod);
    }
    cluster
}

fn seen(cluster: &Cluster, from: [u8; 4], to: [u8; 4], protocol: Protocol, port: u16) -> SeenFlow {
    let [source, destination] = [from, to].map(|address| cluster.endpoint(address.into()));
    SeenFlow {
        flow: Flow { source, destination, protocol, port, through_service: false },
        from_own_node: false,
        seen: Seen { connections: 1, records: 1, count: 3, line: 7 },
        names: Vec::new(),
    }
}

fn suggested(cluster: &Cluster, flows: &[SeenFlow], style: SuggestStyle) -> Suggestion {
    let workloads = DeclaredWorkloads::default();
    let basis = SuggestBasis::Records;
    suggest(&SuggestQuestion { cluster, workloads: &workloads, flows, style, basis, namespace: None })
}

fn named<'a>(suggestion: &'a Suggestion, name: &str) -> &'a SuggestedPolicy {
    let key =
        |one: &&SuggestedPolicy| format!("{}/{}", one.policy.key.namespace, one.policy.key.name) == name;
    suggestion.policies.iter().find(key).unwrap_or_else(|| panic!("no {name}"))
}

const WEB: [u8; 4] = [10, 0, 0, 1];
const DB: [u8; 4] = [10, 0, 0, 2];
const MONITOR: [u8; 4] = [10, 0, 0, 3];
const OUTSIDE: [u8; 4] = [203, 0, 113, 9];

/// A flow from web to an address outside, by names.
fn to_host(cluster: &mut Cluster, last: u8, port: u16, names: &[String]) -> SeenFlow {
    let address = IpAddr::from([203, 0, 113, last]);
    let names: Vec<DomainName> = names.iter().map(|name| DomainName::new(name).unwrap()).collect();
    for name in &names {
        let learned =
            palisade_policy::LearnedName { name: name.clone(), addresses: [address].into_iter().collect() };
        cluster.learned.insert(name.clone(), learned);
    }
    SeenFlow { names, ..seen(cluster, WEB, [203, 0, 113, last], Protocol::Tcp, port) }
}

#[test]
fn hosts_with_names_are_allowed_by_cluster_wide_policies_and_not_by_address() {
    let mut cluster = cluster();
    let flows = [
        to_host(&mut cluster, 1, 443, &["api.example.com".to_owned(), "cdn.example.net".to_owned()]),
        to_host(&mut cluster, 2, 8443, &["api.example.com".to_owned()]),
        seen(&cluster, WEB, OUTSIDE, Protocol::Tcp, 443),
    ];
    let suggestion = suggested(&cluster, &flows, SuggestStyle::PerWorkload);
    assert!(suggestion.denied.is_empty(), "{:?}", suggestion.denied);
    let policy = &named(&suggestion, "/shop.web.by-name").policy;
    assert_eq!(
        (&*policy.key.kind, policy.tier, policy.ingress.is_none()),
        ("ClusterNetworkPolicy", Tier::Admin, true)
    );
    let rules = policy.egress.as_ref().unwrap();
    let peers = |rule: &Rule| rule.peers.iter().flatten().map(|entry| entry.peer.clone()).collect::<Vec<_>>();
    assert!(matches!(&peers(&rules[0])[..], [Peer::Pods(_)]), "the first rule is that of DNS");
    let of_names = [rules::named_peer(&flows[0].names[0]), rules::named_peer(&flows[0].names[1])];
    assert_eq!(peers(&rules[1]), of_names[1..]);
    assert_eq!(peers(&rules[2]), of_names[..1]);
    // The address without a name has a rule of a NetworkPolicy, and the others have none.
    let by_address = named(&suggestion, "shop/web").policy.egress.as_ref().unwrap();
    assert!(
        matches!(&peers(&by_address[0])[..], [Peer::Block(block)] if block.cidr.to_string() == "203.0.113.9/32")
    );
    assert_eq!(by_address.len(), 1);
    // Without names, nothing of this is written.
    let without: Vec<SeenFlow> =
        flows.iter().map(|flow| SeenFlow { names: Vec::new(), ..flow.clone() }).collect();
    let suggestion = suggested(&cluster, &without, SuggestStyle::PerWorkload);
    assert!(suggestion.policies.iter().all(|one| &*one.policy.key.kind == "NetworkPolicy"));
}

#[test]
fn policies_with_many_names_and_ports_stay_within_what_the_api_admits() {
    let mut cluster = cluster();
    let host = |number: usize| format!("n{number}.example.com");
    let mut flows: Vec<SeenFlow> =
        (0..100).map(|n| to_host(&mut cluster, (n % 200) as u8, 443, &[host(n)])).collect();
    // Every second port, so that they are no range.
    flows.extend((0..60).map(|n| to_host(&mut cluster, 250, 1000 + 2 * n, &[host(1000)])));
    // As many sets of ports as there are names.
    for n in 0..40 {
        flows
            .extend((0..2).map(|p| {
                to_host(&mut cluster, 251, 2000 + 100 * n + 10 * p, &[host(2000 + usize::from(n))])
            }));
    }
    for style in [SuggestStyle::PerWorkload, SuggestStyle::PerNamespace] {
        let suggestion = suggested(&cluster, &flows, style);
        assert!(suggestion.denied.is_empty(), "{:?}", suggestion.denied);
        let by_name = suggestion.policies.iter().filter(|one| matches!(one.purpose, Purpose::Names { .. }));
        let policies: Vec<&Policy> = by_name.map(|one| &one.policy).collect();
        assert_eq!(policies.len(), 2, "{:?}", policies.iter().map(|p| &p.key).collect::<Vec<_>>());
        for policy in policies {
            let rules = policy.egress.as_ref().unwrap();
            assert!(rules.len() <= 25);
            for rule in rules {
                assert!(rule.peers.as_ref().unwrap().len() <= 25 && rule.ports.as_ref().unwrap().len() <= 25);
            }
        }
    }
    // More names than a policy may have are said.
    let many: Vec<SeenFlow> =
        (0..300).map(|n| to_host(&mut cluster, (n % 200) as u8, 443, &[host(n)])).collect();
    let suggestion = suggested(&cluster, &many, SuggestStyle::PerWorkload);
    assert!(suggestion.limits.iter().any(|hit| hit.limit == SuggestLimit::Peers && hit.number == 300));
}

#[test]
fn each_workload_gets_rules_by_selectors_and_names_of_ports() {
    let cluster = cluster();
    let flows = [
        seen(&cluster, WEB, DB, Protocol::Tcp, 5432),
        seen(&cluster, MONITOR, DB, Protocol::Tcp, 9100),
        seen(&cluster, WEB, OUTSIDE, Protocol::Tcp, 443),
    ];
    let suggestion = suggested(&cluster, &flows, SuggestStyle::PerWorkload);
    let names: Vec<String> = suggestion
        .policies
        .iter()
        .map(|one| format!("{}/{}", one.policy.key.namespace, one.policy.key.name))
        .collect();
    assert_eq!(
        names,
        [
            "ops/default-deny",
            "ops/allow-dns",
            "ops/monitor",
            "shop/default-deny",
            "shop/allow-dns",
            "shop/db",
            "shop/web"
        ]
    );
    let db = named(&suggestion, "shop/db");
    assert_eq!(db.policy.subject.pods.to_string(), "app=db");
    assert!(db.policy.egress.is_none());
    let rules = db.policy.ingress.as_deref().unwrap();
    let texts: Vec<String> = rules
        .iter()
        .map(|rule| {
            let ports = rule.ports.as_ref().unwrap().iter().map(|entry| match &entry.port {
                PortMatch::Named { name, .. } => name.to_string(),
                other @ PortMatch::Numbers { .. } => format!("{other:?}"),
            });
            let peers = rule.peers.as_ref().unwrap().iter().map(|entry| match &entry.peer {
                Peer::Pods(choice) => format!("{} {}", choice.namespaces, choice.pods),
                other => format!("{other:?}"),
            });
            format!("{} ← {}", ports.collect::<String>(), peers.collect::<String>())
        })
        .collect();
    assert_eq!(
        texts,
        ["metrics ← namespaces kubernetes.io/metadata.name=ops app=monitor", "sql ← namespace shop app=web"]
    );
    assert_eq!(db.ingress[1][0].seen, Seen { connections: 1, records: 1, count: 3, line: 7 });
    assert!(suggestion.denied.is_empty() && suggestion.limits.is_empty());
    assert_eq!(suggestion.allowed.connections, 3);
    let Excess { seen, suggested, more_total, pairs, today, .. } = suggestion.excess;
    assert_eq!((seen, suggested, more_total), (2, 2, 0), "nothing else is allowed");
    assert_eq!(pairs, 6, "of three single pods");
    assert!(today > suggested);
}

#[test]
fn a_port_has_its_number_where_its_name_is_not_clear() {
    let mut cluster = cluster();
    // A second pod of the workload has the same name for another port.
    let second = Pod {
        key: ObjectKey::new("shop", "db-2"),
        addresses: vec![[10, 0, 0, 4].into()],
        ..pod("shop", "db", 4, &[("sql", 5433)])
    };
    cluster.pods.insert(second);
    let flows = [seen(&cluster, WEB, DB, Protocol::Tcp, 5432)];
    let suggestion = suggested(&cluster, &flows, SuggestStyle::PerWorkload);
    let rule = &named(&suggestion, "shop/db").policy.ingress.as_deref().unwrap()[0];
    let port = &rule.ports.as_ref().unwrap()[0].port;
    assert_eq!(*port, PortMatch::Numbers { protocol: Protocol::Tcp, first: 5432, last: 5432 });
}

#[test]
fn whole_namespaces_and_what_else_they_allow() {
    let cluster = cluster();
    let flows = [seen(&cluster, MONITOR, DB, Protocol::Tcp, 9100)];
    let suggestion = suggested(&cluster, &flows, SuggestStyle::PerNamespace);
    let shop = named(&suggestion, "shop/allow-recorded");
    assert!(shop.policy.subject.pods.is_everything());
    // `metrics` is a name of db only, so web is not reached.
    assert_eq!(suggestion.excess.more_total, 0, "{:?}", suggestion.excess);
    let flows = [seen(&cluster, MONITOR, DB, Protocol::Tcp, 6000)];
    let suggestion = suggested(&cluster, &flows, SuggestStyle::PerNamespace);
    let more: Vec<String> = suggestion
        .excess
        .more
        .iter()
        .map(|one| format!("{} → {} {}", one.from, one.to, one.traffic))
        .collect();
    assert_eq!(more, ["ops/deployment/monitor → shop/deployment/web TCP 6000"]);
    assert!(suggestion.denied.is_empty());
}

#[test]
fn dns_is_always_allowed_and_the_system_is_left_alone() {
    let mut cluster = cluster();
    let usual =
        suggested(&cluster, &[seen(&cluster, WEB, DB, Protocol::Tcp, 5432)], SuggestStyle::PerWorkload);
    assert_eq!(named(&usual, "shop/allow-dns").purpose, Purpose::Dns { usual: true });
    let labels = Labels::from_iter([("k8s-app", "kube-dns")]);
    cluster.pods.insert(Pod { labels, ..pod("kube-system", "coredns", 53, &[]) });
    let flows = [seen(&cluster, WEB, [10, 0, 0, 53], Protocol::Udp, 53)];
    let suggestion = suggested(&cluster, &flows, SuggestStyle::PerWorkload);
    let dns = named(&suggestion, "shop/allow-dns");
    assert_eq!((&dns.purpose, dns.egress[0][0].seen.count), (&Purpose::Dns { usual: false }, 3));
    assert!(
        suggestion.policies.iter().all(|one| *one.policy.key.name != *"web"),
        "DNS needs no rule of its own"
    );
    assert_eq!(suggestion.system, BTreeSet::from(["kube-system".into()]));
    assert!(suggestion.denied.is_empty());
    // Asked for, its servers stay open to all.
    let workloads = DeclaredWorkloads::default();
    let system: Name = "kube-system".into();
    let question = SuggestQuestion {
        cluster: &cluster,
        workloads: &workloads,
        flows: &flows,
        style: SuggestStyle::PerWorkload,
        basis: SuggestBasis::Records,
        namespace: Some(&system),
    };
    let suggestion = suggest(&question);
    assert_eq!(named(&suggestion, "kube-system/allow-dns-clients").purpose, Purpose::DnsServers);
    assert!(suggestion.denied.is_empty());
}

#[test]
fn protocols_without_ports_need_a_rule_for_all() {
    let cluster = cluster();
    let flows =
        [seen(&cluster, WEB, DB, Protocol::Other(1), 0), seen(&cluster, WEB, DB, Protocol::Tcp, 5432)];
    let suggestion = suggested(&cluster, &flows, SuggestStyle::PerWorkload);
    let db = named(&suggestion, "shop/db");
    let rules = db.policy.ingress.as_deref().unwrap();
    assert!(rules.len() == 1 && rules[0].ports.is_none(), "{rules:?}");
    assert_eq!((suggestion.excess.more_total, suggestion.denied.len()), (1, 0));
}

#[test]
fn a_scan_is_left_out_and_said() {
    let cluster = cluster();
    let mut flows: Vec<SeenFlow> =
        (1..=200).map(|n| seen(&cluster, MONITOR, DB, Protocol::Tcp, n * 2)).collect();
    flows.push(seen(&cluster, WEB, DB, Protocol::Tcp, 5432));
    let suggestion = suggested(&cluster, &flows, SuggestStyle::PerWorkload);
    assert_eq!(suggestion.limits.len(), 2, "both ends: {:?}", suggestion.limits);
    assert!(suggestion.limits.iter().all(|hit| hit.number == 200));
    assert_eq!((suggestion.denied.len(), suggestion.allowed.connections), (200, 1));
    // Adjacent ports are one range.
    let adjacent: Vec<SeenFlow> =
        (1..=200).map(|n| seen(&cluster, MONITOR, DB, Protocol::Udp, 4000 + n)).collect();
    assert!(suggested(&cluster, &adjacent, SuggestStyle::PerWorkload).limits.is_empty());
}

#[test]
fn too_many_peers_leave_out_those_seen_least() {
    let mut cluster = cluster();
    let mut flows = Vec::new();
    for n in 0..300_u16 {
        let name = format!("client-{n}");
        let address: [u8; 4] = [10, 1, (n / 250) as u8, (n % 250) as u8 + 1];
        cluster.pods.insert(Pod { addresses: vec![address.into()], ..pod("shop", &name, 0, &[]) });
        let mut one = seen(&cluster, address, DB, Protocol::Tcp, 5432);
        one.seen.count = u64::from(n) + 1;
        flows.push(one);
    }
    let suggestion = suggested(&cluster, &flows, SuggestStyle::PerWorkload);
    assert_eq!(suggestion.limits.len(), 1);
    assert_eq!((&suggestion.limits[0].limit, suggestion.limits[0].number), (&SuggestLimit::Peers, 300));
    assert_eq!(suggestion.denied.len(), 300 - MAX_PEERS);
    assert!(suggestion.denied.iter().all(|one| one.connection.seen.count <= 44), "the least frequent");
}

#[test]
fn names_of_policies_are_valid_and_differ() {
    let mut cluster = cluster();
    let workloads =
        [("StatefulSet", "web"), ("Deployment", "default-deny"), ("Job", "A b/../c"), ("", "--.")];
    for (at, (kind, name)) in workloads.into_iter().enumerate() {
        let workload = Workload { kind: kind.into(), name: name.into() };
        let last = 100 + u8::try_from(at).unwrap();
        let key = format!("pod-{at}");
        cluster.pods.insert(Pod { workload: Some(workload), ..pod("shop", &key, last, &[]) });
    }
    let mut flows: Vec<SeenFlow> =
        (100..104).map(|last| seen(&cluster, [10, 0, 0, last], DB, Protocol::Tcp, 5432)).collect();
    flows.push(seen(&cluster, WEB, DB, Protocol::Tcp, 5432));
    let suggestion = suggested(&cluster, &flows, SuggestStyle::PerWorkload);
    let names: BTreeSet<String> =
        suggestion.policies.iter().map(|one| one.policy.key.name.to_string()).collect();
    let expected = [
        "a-b.c",
        "allow-dns",
        "allow-recorded",
        "db",
        "default-deny",
        "default-deny-deployment",
        "web",
        "web-statefulset",
    ];
    assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), expected);
    assert_eq!(names.len(), suggestion.policies.len());
}

/// Whatever the cluster: what was seen is allowed, except where a cluster-wide policy denies it or one of the pods is in a
/// namespace without suggested policies.
#[test]
fn random_flows_are_allowed() {
    for seed in seeds(0..60) {
        let mut rng = palisade_testkit::Rng::with_seed(seed);
        let shape = if seed % 2 == 0 { Shape::small_tiered() } else { Shape::medium() };
        let cluster = palisade_testkit::cluster(&mut rng, &shape);
        let number = rng.usize(1..60);
        // No selector matches a pod whose namespace doesn't exist (SEMANTICS G-22).
        let exists = |end: &Endpoint| match end {
            Endpoint::Pod { key, .. } => cluster.namespaces.contains_key(&key.namespace),
            Endpoint::Node { .. } | Endpoint::External(_) => true,
        };
        let known = |flow: &Flow| {
            let ends = [&flow.source, &flow.destination];
            ends.iter().all(|end| exists(end) && !cluster.addressing.is_placeholder(end.address()))
                && Family::of(flow.source.address()) == Family::of(flow.destination.address())
        };
        let flows: Vec<SeenFlow> = palisade_testkit::flows(&mut rng, &cluster, number)
            .into_iter()
            .filter(known)
            .map(|flow| SeenFlow {
                flow,
                from_own_node: false,
                seen: Seen { connections: 1, records: 1, count: 1, line: 1 },
                names: Vec::new(),
            })
            .collect();
        for style in [SuggestStyle::PerWorkload, SuggestStyle::PerNamespace] {
            let suggestion = suggested(&cluster, &flows, style);
            assert!(suggestion.limits.is_empty(), "{:?}", suggestion.limits);
            for denied in &suggestion.denied {
                for (_, side) in &denied.sides {
                    assert!(matches!(side.reason, Reason::Rule(_)), "{style:?}: {denied:#?}");
                }
            }
            let policies = &suggestion.policies;
            let after = verify::with_policies(&cluster, &suggestion.namespaces, policies);
            let allowed = flows
                .iter()
                .filter(|seen| reference::decide(&after, &seen.flow).verdict().is_allow())
                .count();
            assert_eq!(allowed as u64, suggestion.allowed.connections);
        }
    }
}

#[test]
fn a_node_and_other_addresses_are_blocks_and_the_own_node_needs_none() {
    let mut cluster = cluster();
    for (name, last) in [("n1", 1), ("n2", 2)] {
        let addresses = vec![[192, 168, 0, last].into()];
        let node = palisade_policy::Node {
            name: name.into(),
            labels: Labels::default(),
            addresses,
            pod_cidrs: Vec::new(),
        };
        cluster.nodes.insert(name.into(), node);
    }
    let web = cluster.pods.get(&ObjectKey::new("shop", "web")).unwrap().clone();
    cluster.pods.insert(Pod { node: Some("n1".into()), ..web });
    let flows = [
        seen(&cluster, [192, 168, 0, 1], WEB, Protocol::Tcp, 8080),
        seen(&cluster, [192, 168, 0, 2], WEB, Protocol::Tcp, 8080),
    ];
    assert!(matches!(flows[0].flow.source, Endpoint::Node { .. }));
    let suggestion = suggested(&cluster, &flows, SuggestStyle::PerWorkload);
    let web = named(&suggestion, "shop/web");
    let peers = web.policy.ingress.as_deref().unwrap()[0].peers.as_ref().unwrap();
    assert_eq!(peers.len(), 1);
    assert!(matches!(&peers[0].peer, Peer::Block(block) if block.cidr.to_string() == "192.168.0.2/32"));
    assert!(suggestion.denied.is_empty() && suggestion.allowed.connections == 2);
}

#[test]
fn only_dns_itself_is_dns() {
    let mut cluster = cluster();
    let labels = Labels::from_iter([("k8s-app", "kube-dns")]);
    cluster.pods.insert(Pod { labels, ..pod("kube-system", "coredns", 53, &[]) });
    let flows = [seen(&cluster, WEB, [10, 0, 0, 53], Protocol::Tcp, 9153)];
    let suggestion = suggested(&cluster, &flows, SuggestStyle::PerWorkload);
    let rules = named(&suggestion, "shop/web").policy.egress.as_ref().unwrap();
    let port = PortMatch::Numbers { protocol: Protocol::Tcp, first: 9153, last: 9153 };
    assert_eq!(rules[0].ports.as_ref().unwrap()[0].port, port, "its metrics need a rule of their own");
}

#[test]
fn what_a_record_says_of_its_ends_counts() {
    let mut cluster = cluster();
    let openshift = "openshift-ingress";
    let namespace = palisade_policy::Namespace::new(openshift, &Labels::default());
    cluster.namespaces.insert(openshift.into(), namespace);
    cluster.pods.insert(pod(openshift, "router", 9, &[]));
    let host = DomainName::new("db.example.com").unwrap();
    let flows = [
        seen(&cluster, [10, 0, 0, 9], WEB, Protocol::Tcp, 8080),
        // The recorder knew the node, and the cluster does not.
        SeenFlow { from_own_node: true, ..seen(&cluster, OUTSIDE, MONITOR, Protocol::Tcp, 8080) },
        // A name of an address that is a pod's.
        SeenFlow { names: vec![host], ..seen(&cluster, WEB, DB, Protocol::Tcp, 5432) },
    ];
    let suggestion = suggested(&cluster, &flows, SuggestStyle::PerWorkload);
    assert_eq!(suggestion.system, BTreeSet::from([openshift.into()]));
    assert!(suggestion.policies.iter().all(|one| *one.policy.key.name != *"monitor"), "no rule is needed");
    let web = named(&suggestion, "shop/web").policy.egress.as_ref().unwrap();
    assert!(matches!(&web[0].peers.as_ref().unwrap()[0].peer, Peer::Pods(_)));
    assert!(suggestion.policies.iter().all(|one| &*one.policy.key.kind == "NetworkPolicy"));
}

#[test]
fn a_workload_without_other_rules_gets_no_policy_for_them() {
    let mut cluster = cluster();
    let flows = [to_host(&mut cluster, 1, 443, &["api.example.com".to_owned()])];
    let suggestion = suggested(&cluster, &flows, SuggestStyle::PerWorkload);
    let names: Vec<&str> = suggestion.policies.iter().map(|one| &*one.policy.key.name).collect();
    assert_eq!(names, ["default-deny", "allow-dns", "shop.web.by-name"]);
}

#[test]
fn addresses_of_a_block_that_no_record_has_are_more_than_was_seen() {
    let cluster = cluster();
    let flows: Vec<SeenFlow> =
        (1..=9).map(|last| seen(&cluster, WEB, [8, 8, 8, last], Protocol::Tcp, 443)).collect();
    let suggestion = suggested(&cluster, &flows, SuggestStyle::PerWorkload);
    let more: Vec<String> = suggestion.excess.more.iter().map(|one| one.traffic.to_string()).collect();
    assert_eq!(more, ["TCP 443"], "247 addresses of 8.8.8.0/24");
}
