//! `palisade overview` as users run it.

mod support;

use std::fs;

use support::{answer, palisade, recorded, refused, run};

#[test]
fn examples_at_a_glance() {
    for example in ["shop", "tiers", "control-egress"] {
        recorded(&format!("overview/{example}.txt"), &answer(0, &format!("overview -f examples/{example}")));
    }
}

#[test]
fn namespaces_can_be_selected() {
    let text = answer(0, "overview shop -f examples/shop");
    assert!(text.starts_with("1 namespace, 2 workloads, 3 pods, 2 policies\n"), "{text}");
    assert!(!text.contains("staging"), "{text}");
    refused(
        "overview shap -f examples/shop",
        "there is no namespace `shap`; there are data, monitoring, shop, staging",
    );
}

#[test]
fn policies_that_select_nothing_and_pods_without_dns_are_listed() {
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("m.yaml");
    let text = "
apiVersion: v1
kind: Pod
metadata: {name: coredns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec: {containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: c, image: i}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: out, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Egress]
  egress: [{ports: [{port: 53, protocol: UDP}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: old, namespace: shop}
spec: {podSelector: {matchLabels: {app: gone}}}
";
    fs::write(&file, text).expect("the file can be written");
    let (code, out, err) = run(palisade("overview -f m.yaml").current_dir(folder.path()));
    assert_eq!((code, &*err), (0, ""));
    for part in [
        "no DNS: policies deny UDP or TCP 53:\n  shop/pod/web (partly)\n",
        "policies that select no pod:\n  NetworkPolicy shop/old (m.yaml:20)\n",
        "open: no policy applies to what they receive:\n  kube-system/pod/coredns\n  shop/pod/web\n",
    ] {
        assert!(out.contains(part), "{out}");
    }
    assert!(!out.contains("note:"), "{out}");
}

#[test]
fn without_pods_there_is_no_answer() {
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("ns.yaml");
    fs::write(&file, "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n")
        .expect("the file can be written");
    refused(&format!("overview -f {}", file.display()), "have no pods");
}

/// The DNS server that is assumed has its namespace, which selectors match.
#[test]
fn dns_that_a_cluster_wide_policy_denies_is_denied_without_the_namespace_in_the_input() {
    let folder = tempfile::tempdir().expect("a directory");
    let text = "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec: {containers: [{name: c, image: i}]}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: guard}
spec: {tier: Admin, priority: 5, subject: {namespaces: {}}, egress: [{action: Deny, to: [{namespaces: {}}]}]}
";
    fs::write(folder.path().join("m.yaml"), text).expect("the file can be written");
    let (_, out, _) = run(palisade("overview -f m.yaml").current_dir(folder.path()));
    assert!(out.contains("no DNS: policies deny UDP or TCP 53:\n  shop/pod/web"), "{out}");
    assert!(!out.contains("kube-system  "), "it isn't listed: {out}");
}

#[test]
fn dns_that_depends_on_unknown_addresses_is_undecided() {
    let folder = tempfile::tempdir().expect("a directory");
    let text = "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec: {containers: [{name: c, image: i}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: out, namespace: shop}
spec: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}
";
    fs::write(folder.path().join("m.yaml"), text).expect("the file can be written");
    let overview = |options: &str| {
        let (code, out, _) =
            run(palisade(&format!("overview -f m.yaml{options}")).current_dir(folder.path()));
        (code, out)
    };
    let (code, out) = overview("");
    assert_eq!(code, 2);
    assert!(
        out.contains(
            "DNS undecided: depends on pod addresses; give --pod-cidr or status.podIPs:\n  shop/pod/web"
        ),
        "{out}"
    );
    let (code, out) = overview(" --pod-cidr 10.1.0.0/16 --family 4");
    assert_eq!(code, 0);
    assert!(!out.contains("undecided") && !out.contains("no DNS:"), "{out}");
    let (code, out) = overview(" --pod-cidr 192.168.64.0/24 --family 4");
    assert_eq!(code, 0);
    assert!(out.contains("no DNS: policies deny UDP or TCP 53:\n  shop/pod/web"), "{out}");
}
