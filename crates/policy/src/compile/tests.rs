//! Deltas of single changes.

use std::sync::Arc;

use super::*;
use crate::{
    Action, Direction, Labels, Peer, Protocol, Rule, Selector, Tier, Verdict,
    rules::{NamespaceMatch, PeerEntry, PodMatch},
};

fn pod(name: &str, app: &str, address: &str, node: &str) -> Pod {
    Pod {
        node: Some(node.into()),
        ..Pod::new(
            ObjectKey::new("shop", name),
            Labels::from_iter([("app", app), ("pod-template-hash", name)]),
            vec![address.parse().unwrap()],
        )
    }
}

/// Allows ingress to `app=backend` only from `app=frontend`.
fn only_frontend() -> Arc<Policy> {
    let choose = |app| PodMatch {
        namespaces: NamespaceMatch::Named("shop".into()),
        pods: Selector::of_labels([("app", app)]),
    };
    let from = PeerEntry { peer: Peer::Pods(choose("frontend")), origin: None };
    Arc::new(Policy {
        key: PolicyKey::network_policy("shop", "only-frontend"),
        tier: Tier::Developer,
        priority: 0,
        mode: None,
        subject: choose("backend"),
        ingress: Some(vec![Rule {
            name: None,
            action: Action::Accept,
            peers: Some(vec![from]),
            ports: None,
            origin: None,
        }]),
        egress: None,
        origin: None,
    })
}

#[test]
fn a_pod_of_a_known_class_adds_one_element() {
    let mut compiler = Compiler::new("n1".into());
    compiler.apply_all([
        Change::SetPod(pod("b-1", "backend", "10.0.0.1", "n1")),
        Change::SetPod(pod("f-1", "frontend", "10.0.1.1", "n2")),
        Change::SetPolicy(only_frontend()),
    ]);
    let verdict = |c: &Compiler, from: &str| {
        let to = "10.0.0.1".parse().unwrap();
        c.plan().decide(Direction::Ingress, from.parse().unwrap(), to, Protocol::Tcp, 80)
    };
    assert_eq!(verdict(&compiler, "10.0.1.1"), Verdict::Allow);
    assert_eq!(verdict(&compiler, "10.0.1.2"), Verdict::Deny);

    let delta = compiler.apply(Change::SetPod(pod("f-2", "frontend", "10.0.1.2", "n2")));
    assert_eq!(verdict(&compiler, "10.0.1.2"), Verdict::Allow);
    assert_eq!(delta.members.len(), 1, "{delta:?}");
    let rest = Delta { members: BTreeMap::new(), ..delta };
    assert!(rest.is_empty(), "{rest:?}");
}

#[test]
fn irrelevant_changes_leave_the_plan_alone() {
    let mut compiler = Compiler::new("n1".into());
    compiler.apply_all([
        Change::SetPod(pod("b-1", "backend", "10.0.0.1", "n1")),
        Change::SetPolicy(only_frontend()),
    ]);
    assert!(compiler.apply(Change::SetPolicy(only_frontend())).is_empty());
    assert!(compiler.apply(Change::SetPod(pod("x", "other", "10.0.1.9", "n2"))).is_empty());
    assert!(compiler.apply(Change::RemovePod(ObjectKey::new("shop", "nobody"))).is_empty());
}

#[test]
fn without_local_pods_nothing_is_programmed() {
    let mut compiler = Compiler::new("n3".into());
    let delta = compiler.apply_all([
        Change::SetPod(pod("b-1", "backend", "10.0.0.1", "n1")),
        Change::SetPod(pod("f-1", "frontend", "10.0.1.1", "n2")),
        Change::SetPolicy(only_frontend()),
    ]);
    assert!(delta.is_empty() && *compiler.plan() == NodePlan::default());
}

/// Allows egress of `app=frontend` to TCP 443 of names below `example.com`, and to no other address.
fn only_example_com() -> Arc<Policy> {
    let everywhere = ["0.0.0.0/0", "::/0"]
        .map(|cidr| Peer::Block(crate::IpBlock { cidr: cidr.parse().unwrap(), except: Arc::new([]) }));
    let rule = |action, peers: Vec<Peer>| Rule {
        name: None,
        action,
        peers: Some(peers.into_iter().map(|peer| PeerEntry { peer, origin: None }).collect()),
        ports: None,
        origin: None,
    };
    Arc::new(Policy {
        key: PolicyKey { kind: "ClusterNetworkPolicy".into(), namespace: "".into(), name: "by-name".into() },
        tier: Tier::Admin,
        subject: PodMatch {
            namespaces: NamespaceMatch::Selected(Selector::everything()),
            pods: Selector::of_labels([("app", "frontend")]),
        },
        ingress: None,
        egress: Some(vec![
            rule(Action::Accept, vec![Peer::DomainName(crate::DomainPattern::new("*.example.com"))]),
            rule(Action::Deny, everywhere.into()),
        ]),
        ..(*only_frontend()).clone()
    })
}

#[test]
fn a_learned_address_is_one_element_and_no_policy_is_compiled() {
    let learned = |name: &str, addresses: &[&str]| {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        Change::SetLearned(LearnedName { name: DomainName::new(name).unwrap(), addresses })
    };
    let mut compiler = Compiler::new("n1".into());
    compiler.apply_all([
        Change::SetNamespace(Namespace::new("shop", &Labels::default())),
        Change::SetPod(pod("f-1", "frontend", "10.0.0.1", "n1")),
        Change::SetPolicy(only_example_com()),
    ]);
    let allows = |c: &Compiler, to: &str| {
        let from = "10.0.0.1".parse().unwrap();
        let verdict = c.plan().decide(Direction::Egress, from, to.parse().unwrap(), Protocol::Tcp, 443);
        verdict == Verdict::Allow
    };
    assert!(!allows(&compiler, "198.51.100.1"), "nothing was learned");
    // The first address makes the peer set; each other one is an element of it, whatever its name.
    compiler.apply(learned("a.example.com", &["198.51.100.1"]));
    assert!(allows(&compiler, "198.51.100.1") && !allows(&compiler, "198.51.100.2"));
    for (name, addresses) in [
        ("a.example.com", &["198.51.100.1", "198.51.100.2"][..]),
        ("b.example.com", &["2001:db8::1"]),
        ("b.example.com", &["198.51.100.1"]),
    ] {
        let delta = compiler.apply(learned(name, addresses));
        assert_eq!(delta.members.len(), 1, "{delta:?}");
        let rest = Delta { members: BTreeMap::new(), ..delta };
        assert!(rest.is_empty(), "{rest:?}");
    }
    assert!(allows(&compiler, "198.51.100.2") && !allows(&compiler, "2001:db8::1"));
    // An address stays as long as one of its names has it.
    assert!(compiler.apply(Change::RemoveLearned(DomainName::new("b.example.com").unwrap())).is_empty());
    assert!(allows(&compiler, "198.51.100.1"));
    assert!(compiler.apply(learned("example.com", &["198.51.100.9"])).is_empty(), "no rule has this name");
    compiler.apply(learned("a.example.com", &[]));
    assert!(!allows(&compiler, "198.51.100.1"));
}
