//! Objects to pods, services and namespaces: the cluster that manifests describe.

use palisade_manifest::{Code, Input, LoadOptions, Loaded, Severity, load};
use palisade_names::backends;
use palisade_policy::{Deny, Family, Mode, ObjectKey, Phase, Pod, Protocol, TargetPort, Workload};

fn load_text(text: &str) -> Loaded {
    load(&[Input::Text { name: "t.yaml".to_owned(), text: text.to_owned() }], &LoadOptions::default())
}

/// Loads a text without findings.
fn clean(text: &str) -> Loaded {
    let loaded = load_text(text);
    assert!(loaded.diagnostics.is_empty(), "{:#?}", loaded.diagnostics);
    loaded
}

fn codes(loaded: &Loaded) -> Vec<Code> {
    loaded.diagnostics.iter().map(|d| d.code).collect()
}

fn names(loaded: &Loaded) -> Vec<String> {
    loaded.cluster.pods.keys().map(ToString::to_string).collect()
}

fn pod<'l>(loaded: &'l Loaded, namespace: &str, name: &str) -> &'l Pod {
    &loaded.cluster.pods[&ObjectKey::new(namespace, name)]
}

fn workload(kind: &str, name: &str, spec: &str) -> String {
    let version = match kind {
        "Job" | "CronJob" => "batch/v1",
        "ReplicationController" => "v1",
        _ => "apps/v1",
    };
    format!("---\napiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

const TEMPLATE: &str = "template: {metadata: {labels: {app: a}}, spec: {containers: [{name: c, ports: [{name: http, containerPort: 80}]}]}}";

/// The pods of a Deployment in the default namespace.
fn pods_of<'a>(loaded: &'a Loaded, deployment: &str) -> &'a [ObjectKey] {
    let workload = Workload { kind: "Deployment".into(), name: deployment.into() };
    &loaded.workloads[&("default".into(), workload)]
}

#[test]
fn replicas_are_counted() {
    let text = [
        workload("Deployment", "d", &format!("{{replicas: 2, {TEMPLATE}}}")),
        workload("Deployment", "none", &format!("{{replicas: 0, {TEMPLATE}}}")),
        workload("ReplicaSet", "rs", &format!("{{{TEMPLATE}}}")),
        workload("ReplicationController", "rc", &format!("{{replicas: 1, {TEMPLATE}}}")),
        workload("StatefulSet", "s", &format!("{{replicas: 2, ordinals: {{start: 5}}, {TEMPLATE}}}")),
        workload("DaemonSet", "ds", &format!("{{{TEMPLATE}}}")),
        workload("Job", "j", &format!("{{parallelism: 3, completions: 2, {TEMPLATE}}}")),
        workload("Job", "later", &format!("{{suspend: true, {TEMPLATE}}}")),
        workload(
            "CronJob",
            "cj",
            &format!("{{schedule: '* * * * *', jobTemplate: {{spec: {{{TEMPLATE}}}}}}}"),
        ),
    ];
    let loaded = clean(&text.concat());
    let expected = "cj-0 d-0 d-1 ds-0 j-0 j-1 rc-0 rs-0 s-5 s-6"
        .split(' ')
        .map(|n| format!("default/{n}"))
        .collect::<Vec<_>>();
    assert_eq!(names(&loaded), expected);
    let s = pod(&loaded, "default", "s-6");
    assert_eq!(s.labels.get("statefulset.kubernetes.io/pod-name"), Some("s-6"));
    assert_eq!(s.labels.get("apps.kubernetes.io/pod-index"), Some("6"));
    assert_eq!(s.labels.get("app"), Some("a"));
    assert_eq!(pod(&loaded, "default", "j-0").labels.get("batch.kubernetes.io/job-name"), Some("j"));
    let d = pod(&loaded, "default", "d-1");
    assert_eq!(d.workload.as_ref().map(|w| &*w.kind), Some("Deployment"));
    assert_eq!(d.ports[0].name.as_deref(), Some("http"));
    assert_eq!(d.addresses.len(), 2);
    assert_eq!(pods_of(&loaded, "none"), []);
}

#[test]
fn a_daemon_set_has_a_pod_on_each_matching_node() {
    let node = |name: &str, labels: &str| {
        format!("---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n")
    };
    let text = node("a", "disk: ssd") + &node("b", "") + &node("c", "disk: ssd");
    let all = clean(&(text.clone() + &workload("DaemonSet", "ds", &format!("{{{TEMPLATE}}}"))));
    let nodes = |l: &Loaded| {
        l.cluster.pods.values().map(|p| p.node.as_deref().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(nodes(&all), ["a", "b", "c"]);
    let spec = "{template: {spec: {nodeSelector: {disk: ssd}, containers: []}}}";
    assert_eq!(nodes(&clean(&(text + &workload("DaemonSet", "ds", spec)))), ["a", "c"]);
}

#[test]
fn no_pods_are_made_up_for_a_workload_with_pods() {
    let owned = |kind: &str, name: &str, owner_kind: &str, owner: &str, rest: &str| {
        format!(
            "---\napiVersion: {}\nkind: {kind}\nmetadata:\n  name: {name}\n  labels: {{pod-template-hash: 5d9c}}\n  \
             ownerReferences: [{{kind: {owner_kind}, name: {owner}, controller: true}}]\n{rest}\n",
            if kind == "Pod" { "v1" } else { "apps/v1" }
        )
    };
    let deployment = workload("Deployment", "web", &format!("{{replicas: 3, {TEMPLATE}}}"));
    let set =
        owned("ReplicaSet", "web-5d9c", "Deployment", "web", &format!("spec: {{replicas: 3, {TEMPLATE}}}"));
    let real =
        owned("Pod", "web-5d9c-x", "ReplicaSet", "web-5d9c", "status: {phase: Running, podIP: 10.0.0.9}");

    assert_eq!(
        names(&clean(&(deployment.clone() + &set))),
        ["default/web-0", "default/web-1", "default/web-2"]
    );
    for text in [deployment.clone() + &set + &real, deployment + &real, set.clone() + &real, real.clone()] {
        let loaded = clean(&text);
        assert_eq!(names(&loaded), ["default/web-5d9c-x"], "{text}");
        let workload = pod(&loaded, "default", "web-5d9c-x").workload.clone().unwrap();
        assert_eq!((&*workload.kind, &*workload.name), ("Deployment", "web"), "{text}");
        assert_eq!(pods_of(&loaded, "web").len(), 1);
    }
    let orphan = clean(&set);
    assert_eq!(names(&orphan), ["default/web-5d9c-0", "default/web-5d9c-1", "default/web-5d9c-2"]);
    assert_eq!(pods_of(&orphan, "web").len(), 3);
}

#[test]
fn a_cycle_of_owners_ends() {
    let owned = |kind: &str, name: &str, owner: &str| {
        format!(
            "---\napiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {{name: {name}, ownerReferences: [{{kind: {kind}, name: {owner}}}]}}\nspec: {{template: {{}}}}\n"
        )
    };
    let text = owned("ReplicaSet", "a", "b") + &owned("ReplicaSet", "b", "a");
    let pod = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: p, ownerReferences: [{kind: ReplicaSet, name: a}]}\n";
    assert_eq!(names(&clean(&(text + pod))), ["default/p"]);
}

#[test]
fn the_status_of_a_pod_decides_whether_it_gets_a_placeholder() {
    let pods = [
        ("bare", ""),
        ("empty", "status: {}"),
        ("pending", "status: {phase: Pending}"),
        ("done", "status: {phase: Succeeded}"),
        ("dual", "status: {phase: Running, podIP: 10.9.0.1, podIPs: [{ip: 10.9.0.1}, {ip: 'fd00::9'}]}"),
        ("single", "status: {podIP: 10.9.0.2}"),
    ];
    let text: String = pods
        .iter()
        .map(|(name, status)| {
            format!("---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n{status}\n")
        })
        .collect();
    let loaded = clean(&text);
    let rendered = |name: &str| {
        let addresses = &pod(&loaded, "default", name).addresses;
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(rendered("bare"), "0.0.0.1 100::1");
    assert_eq!(rendered("empty"), "0.0.0.2 100::2");
    let is_placeholder = |name: &str| {
        let addresses = &pod(&loaded, "default", name).addresses;
        addresses.iter().map(|a| loaded.cluster.addressing.is_placeholder(*a)).collect::<Vec<_>>()
    };
    assert_eq!((is_placeholder("bare"), is_placeholder("dual")), (vec![true; 2], vec![false; 2]));
    assert_eq!((rendered("pending"), rendered("done")), (String::new(), String::new()));
    assert_eq!(rendered("dual"), "10.9.0.1 fd00::9");
    assert_eq!(rendered("single"), "10.9.0.2");
    assert_eq!(pod(&loaded, "default", "pending").phase, Phase::Pending);
}

#[test]
fn running_pods_with_the_same_address_are_reported_and_the_newest_owns_it() {
    let pod = |name: &str, created: &str, phase: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, creationTimestamp: '{created}'}}\n\
             status: {{phase: {phase}, podIP: 10.9.0.1}}\n"
        )
    };
    let loaded = load_text(
        &(pod("old", "2026-01-01T00:00:00Z", "Running") + &pod("new", "2026-02-01T00:00:00Z", "Running")),
    );
    assert_eq!(
        loaded.diagnostics[0].to_string(),
        "t.yaml:2:1: warning: Pod default/old: status.podIP: 10.9.0.1 is also the address of default/new, which owns it"
    );
    assert_eq!(&*loaded.cluster.pod_at("10.9.0.1".parse().unwrap()).unwrap().key.name, "new");
    clean(
        &(pod("old", "2026-01-01T00:00:00Z", "Succeeded") + &pod("new", "2026-02-01T00:00:00Z", "Running")),
    );
}

#[test]
fn services_have_addresses_ports_and_pods() {
    let text = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: a}
  ports:
  - {name: http, port: 80, targetPort: http}
  - {name: alt, port: 81}
  - {name: dns, port: 53, protocol: UDP, targetPort: 5353}
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None, selector: {app: a}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: out}
spec: {type: ExternalName, externalName: example.com}
---
apiVersion: v1
kind: Service
metadata: {name: fixed}
spec: {clusterIP: 10.96.0.2, clusterIPs: [10.96.0.2, 'fd00:10:96::77'], selector: {app: none}}
---
apiVersion: v1
kind: Service
metadata: {name: six}
spec: {ipFamilies: [IPv6], selector: {app: a}}
";
    let loaded =
        clean(&(text.to_owned() + &workload("Deployment", "d", &format!("{{replicas: 2, {TEMPLATE}}}"))));
    let service = |name: &str| &loaded.cluster.services[&ObjectKey::new("default", name)];
    let rendered =
        |name: &str| service(name).addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    assert_eq!(rendered("web"), "", "none is made up");
    assert_eq!((rendered("headless"), rendered("out")), (String::new(), String::new()));
    assert_eq!(rendered("fixed"), "10.96.0.2 fd00:10:96::77");
    assert_eq!(rendered("six"), "");
    let ports = &service("web").ports;
    assert_eq!(ports[0].target, TargetPort::Name("http".into()));
    assert_eq!(ports[1].target, TargetPort::Number(81));
    assert_eq!((ports[2].protocol, &ports[2].target), (Protocol::Udp, &TargetPort::Number(5353)));
    let backends = |name: &str| backends(&loaded.cluster, service(name), None, None).unwrap_or_default();
    assert_eq!(backends("web").len(), 2 * ports.len(), "each port on both pods");
    assert_eq!(backends("fixed"), []);
}

#[test]
fn undeclared_namespaces_are_added_and_all_have_the_name_label() {
    let text = "
apiVersion: v1
kind: Namespace
metadata: {name: declared, labels: {team: red, kubernetes.io/metadata.name: lie}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: of-policy}
---
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: of-pod}
";
    let loaded = load_text(text);
    assert_eq!(codes(&loaded), [], "another repository may declare the namespace of the policy");
    let near = load_text(&text.replace("of-policy", "of-pd"));
    assert_eq!(codes(&near), [Code::NoNamespace], "nearly the pod's namespace");
    let labels: Vec<String> = loaded.cluster.namespaces.values().map(|n| n.labels.to_string()).collect();
    assert_eq!(
        labels,
        [
            "kubernetes.io/metadata.name=declared,team=red",
            "kubernetes.io/metadata.name=of-pod",
            "kubernetes.io/metadata.name=of-policy"
        ]
    );
    let options = LoadOptions { default_namespace: "shop".to_owned(), ..LoadOptions::default() };
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n".to_owned();
    let loaded = load(&[Input::Text { name: "t".to_owned(), text }], &options);
    assert_eq!(names(&loaded), ["shop/p"]);
}

#[test]
fn elements_of_typed_lists_get_version_and_kind() {
    let list = "
apiVersion: v1
kind: PodList
items:
- metadata: {name: a}
- metadata: {name: b}
  spec: {nodeName: 7}
---
{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [
\t{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"j\\u0073on\"}},
\t{\"kind\": \"Pod\"}
]}
";
    let loaded = load_text(list);
    assert_eq!(names(&loaded), ["default/a", "default/json"]);
    assert_eq!(
        loaded.diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "t.yaml:7:20: error: Pod default/b: spec.nodeName: cannot unmarshal number into a field of type string",
            "t.yaml:11:2: error: not a Kubernetes object: apiVersion is not set",
        ]
    );
    assert_eq!((loaded.counts.objects["Pod"], loaded.counts.rejected["Pod"]), (2, 1));
}

#[test]
fn other_kinds_are_counted_and_other_policies_are_a_warning() {
    let text = "
apiVersion: v1
kind: ConfigMap
metadata: {name: a}
data: {y: y}
---
apiVersion: serving.knative.dev/v1
kind: Domain
metadata: {name: a}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: a}
---
apiVersion: crd.projectcalico.org/v1
kind: GlobalNetworkPolicy
metadata: {name: a}
";
    let loaded = load_text(text);
    assert!(!loaded.has_errors());
    assert_eq!(codes(&loaded), [Code::NotEvaluated, Code::NotEvaluated]);
    assert_eq!(loaded.counts.passed_over.len(), 4);
    assert!(loaded.cluster.services.is_empty(), "a Service of another group is another kind");
}

#[test]
fn the_mode_of_policies_and_namespaces_is_read_and_an_unknown_one_enforces() {
    let policy = |annotations: &str| {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: db, namespace: red, annotations: {{{annotations}}}}}, spec: {{podSelector: {{}}}}}}\n"
        )
    };
    let namespace = |labels: &str| {
        format!("---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: red, labels: {{{labels}}}}}}}\n")
    };
    for (annotation, label, mode, warnings) in [
        ("", "", None, 0),
        ("palisade.dev/mode: audit", "", Some(Mode::Audit), 0),
        ("", "palisade.dev/mode: audit", Some(Mode::Audit), 0),
        ("palisade.dev/mode: enforce", "palisade.dev/mode: audit", Some(Mode::Enforce), 0),
        ("palisade.dev/mode: Audit", "palisade.dev/mode: audit", Some(Mode::Enforce), 1),
        ("palisade.dev/mode: ''", "", Some(Mode::Enforce), 1),
        ("", "palisade.dev/mode: dry-run", Some(Mode::Enforce), 1),
    ] {
        let loaded = load_text(&(policy(annotation) + &namespace(label)));
        let found = loaded.cluster.policies.values().next().unwrap();
        assert_eq!((found.mode, codes(&loaded).len()), (mode, warnings), "{annotation} {label}");
        assert!(codes(&loaded).iter().all(|code| *code == Code::Ambiguous) && !loaded.has_errors());
    }
}

#[test]
fn annotations_of_pods_and_namespaces_set_sources() {
    for (value, count, warnings) in [
        ("10.0.0.100", 1, 0),
        ("'10.0.0.100, fd00::/64'", 2, 0),
        ("''", 0, 0),
        ("null", 0, 0),
        ("10.0.0.100/33", 0, 1),
        ("'10.0.0.100;10.0.0.101'", 0, 1),
        ("'10.0.0.100,0.0.0.0/0'", 0, 1),
    ] {
        let loaded = load_text(&format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: red, annotations: {{palisade.dev/allow-source-within: {value}}}}}\n---\n\
             apiVersion: v1\nkind: Pod\nmetadata: {{name: db, namespace: red, annotations: {{palisade.dev/allow-source: {value}}}}}\n\
             spec: {{containers: []}}\nstatus: {{podIP: 10.1.0.1}}\n"
        ));
        let within = &loaded.cluster.namespaces["red"].allow_source_within;
        let asked = &pod(&loaded, "red", "db").allow_source;
        assert_eq!((within.networks().len(), asked.networks().len()), (count, count), "{value}");
        assert_eq!(codes(&loaded).len(), 2 * warnings, "{value}");
    }
}

#[test]
fn the_annotation_of_a_namespace_sets_what_happens_to_what_is_denied() {
    for (annotation, deny, warnings) in [
        ("", None, 0),
        ("palisade.dev/deny: reject", Some(Deny::Reject), 0),
        ("palisade.dev/deny: drop", Some(Deny::Drop), 0),
        ("palisade.dev/deny: Reject", Some(Deny::Drop), 1),
        ("palisade.dev/deny: ''", Some(Deny::Drop), 1),
    ] {
        let text = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, annotations: {{ {annotation} }}}}\n"
        );
        let loaded = load_text(&text);
        let found = loaded.cluster.namespaces.values().next().unwrap();
        assert_eq!((found.deny, codes(&loaded).len()), (deny, warnings), "{annotation}");
        assert!(codes(&loaded).iter().all(|code| *code == Code::Ambiguous) && !loaded.has_errors());
        assert!(found.labels.get("palisade.dev/deny").is_none(), "no selector sees it");
    }
}

#[test]
fn further_networks_are_a_warning() {
    let pod = |annotations: &str| {
        let spec = format!("{{template: {{metadata: {{annotations: {{{annotations}}}}}, spec: {{}}}}}}");
        workload("Deployment", "d", &spec)
            + &format!(
                "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: p, annotations: {{{annotations}}}}}}}\n"
            )
    };
    for annotations in [
        "k8s.v1.cni.cncf.io/networks: storage",
        "k8s.v1.cni.cncf.io/networks: '[{\"name\": \"storage\"}]'",
        "v1.multus-cni.io/default-network: other/storage",
        "networking.gke.io/interfaces: '[]'",
    ] {
        let loaded = load_text(&pod(annotations));
        assert_eq!(codes(&loaded), [Code::NotEvaluated, Code::NotEvaluated], "{annotations}");
    }
    for annotations in ["", "k8s.v1.cni.cncf.io/networks: ''", "k8s.v1.cni.cncf.io/network-status: '[]'"] {
        clean(&pod(annotations));
    }
    let namespace = |labels: &str| {
        load_text(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: red, labels: {{{labels}}}}}}}\n"
        ))
    };
    assert_eq!(codes(&namespace("k8s.ovn.org/primary-user-defined-network: ''")), [Code::NotEvaluated]);
    assert_eq!(codes(&namespace("kubernetes.io/metadata.name: red")), []);
}

#[test]
fn a_finished_job_has_no_pods() {
    let job =
        |status: &str| workload("Job", "j", &format!("{{{TEMPLATE}}}")) + &format!("status: {status}\n");
    for status in [
        "{succeeded: 1, conditions: [{type: Complete, status: \"True\"}]}",
        "{conditions: [{type: FailureTarget, status: \"True\"}, {type: Failed, status: \"True\"}]}",
    ] {
        assert!(names(&clean(&job(status))).is_empty(), "{status}");
    }
    for status in [
        "{}",
        "null",
        "{active: 1}",
        "{conditions: [{type: Complete, status: \"False\"}, {type: Suspended, status: \"True\"}]}",
        "{conditions: [{type: 7}, 7]}",
    ] {
        assert_eq!(names(&clean(&job(status))), ["default/j-0"], "{status}");
    }
}

#[test]
fn removed_versions_are_errors() {
    for (version, kind, recommended) in [
        ("extensions/v1beta1", "NetworkPolicy", "networking.k8s.io/v1"),
        ("extensions/v1beta1", "Deployment", "apps/v1"),
        ("apps/v1beta2", "StatefulSet", "apps/v1"),
        ("batch/v1beta1", "CronJob", "batch/v1"),
        ("networking.k8s.io/v2", "NetworkPolicy", "networking.k8s.io/v1"),
        ("v2", "Pod", "v1"),
        ("policy.networking.k8s.io/v1alpha1", "ClusterNetworkPolicy", "policy.networking.k8s.io/v1alpha2"),
        ("policy.networking.k8s.io/v1", "ClusterNetworkPolicy", "policy.networking.k8s.io/v1alpha2"),
        ("policy.networking.k8s.io/v1alpha2", "AdminNetworkPolicy", "policy.networking.k8s.io/v1alpha1"),
    ] {
        let loaded = load_text(&format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\n"));
        assert_eq!(codes(&loaded), [Code::UnknownVersion], "{version} {kind}");
        assert_eq!(loaded.diagnostics[0].help.as_deref(), Some(&*format!("use apiVersion: {recommended}")));
    }
}

#[test]
fn the_later_of_two_objects_with_the_same_name_is_used() {
    let policy = |spec: &str| {
        format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p}}\nspec: {spec}\n"
        )
    };
    let loaded = load_text(&(policy("{}") + &policy("{policyTypes: [Egress]}")));
    assert_eq!(
        loaded.diagnostics[0].to_string(),
        "t.yaml:7:1: warning: NetworkPolicy default/p: is already defined at t.yaml:2; the later definition is used"
    );
    let only = loaded.cluster.policies.values().next().unwrap();
    assert!(only.ingress.is_none() && only.egress.is_some());
    let refused = load_text(&(policy("{}") + &policy("{policyTypes: [egress]}")));
    assert!(
        refused.cluster.policies.values().next().unwrap().ingress.is_some(),
        "a refused one counts for nothing"
    );
}

#[test]
fn unknown_fields_are_warnings_or_errors() {
    let text = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p}
spec:
  ingress:
  - from: [{podSelector: {matchLabel: {a: b}}}]
    port: [{port: 80}]
";
    let loaded = load_text(text);
    let rendered: Vec<_> =
        loaded.diagnostics.iter().map(|d| (d.severity, d.headline(), d.help.clone())).collect();
    assert_eq!(
        rendered,
        [
            (
                Severity::Warning,
                "NetworkPolicy default/p: spec.ingress[0].from[0].podSelector.matchLabel: unknown field \"matchLabel\"".to_owned(),
                Some("did you mean `matchLabels`?".to_owned())
            ),
            (
                Severity::Warning,
                "NetworkPolicy default/p: spec.ingress[0].port: unknown field \"port\"".to_owned(),
                Some("did you mean `ports`?".to_owned())
            ),
        ]
    );
    assert_eq!(loaded.cluster.policies.len(), 1);
    let inputs = [Input::Text { name: "t".to_owned(), text: text.to_owned() }];
    let strict = load(&inputs, &LoadOptions { strict: true, ..LoadOptions::default() });
    assert!(strict.has_errors() && strict.refused.len() == 1);
}

#[test]
fn families_can_be_chosen() {
    let inputs = [Input::Text {
        name: "t".to_owned(),
        text: "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n".to_owned(),
    }];
    let loaded = load(&inputs, &LoadOptions::with_families(&[Family::V6]));
    assert_eq!(pod(&loaded, "default", "p").addresses.len(), 1);
    assert!(pod(&loaded, "default", "p").address(Family::V6).is_some());
}

#[test]
fn made_up_pods_have_unique_names() {
    let text = [
        workload("StatefulSet", "twin", &format!("{{{TEMPLATE}}}")),
        workload("DaemonSet", "twin", &format!("{{{TEMPLATE}}}")),
    ];
    let loaded = clean(&text.concat());
    assert_eq!(loaded.cluster.pods.len(), 2, "{:?}", names(&loaded));
}
