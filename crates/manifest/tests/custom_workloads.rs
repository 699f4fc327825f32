//! Workloads of other projects whose pod template is known.

use palisade_manifest::{Code, Input, LoadOptions, Loaded, load};

fn load_text(text: &str) -> Loaded {
    load(&[Input::Text { name: "w.yaml".to_owned(), text: text.to_owned() }], &LoadOptions::default())
}

/// The pods: workload, labels, ports.
fn pods(text: &str) -> Vec<String> {
    let loaded = load_text(text);
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    let describe = |pod: &palisade_policy::Pod| {
        let workload = pod.workload.as_ref().expect("every pod has a workload");
        let ports: Vec<String> = pod.ports.iter().map(|p| format!("{}/{}", p.port, p.protocol)).collect();
        format!("{} {}: {} {}", workload.kind, workload.name, pod.labels, ports.join(","))
    };
    loaded.cluster.pods.values().map(describe).collect()
}

const TEMPLATE: &str = "template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: i, ports: [{containerPort: 8080}]}]}}";

#[test]
fn replicated_workloads_make_their_pods() {
    for (version, kind) in [("argoproj.io/v1alpha1", "Rollout"), ("apps.kruise.io/v1alpha1", "CloneSet")] {
        let text = format!(
            "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: web}}\nspec: {{replicas: 2, strategy: {{canary: {{}}}}, {TEMPLATE}}}\n"
        );
        assert_eq!(pods(&text), vec![format!("{kind} web: app=web 8080/TCP"); 2], "{kind}");
    }
    for kind in ["DaemonSet", "BroadcastJob"] {
        let text = format!(
            "apiVersion: apps.kruise.io/v1alpha1\nkind: {kind}\nmetadata: {{name: web}}\nspec: {{{TEMPLATE}}}\n"
        );
        assert_eq!(pods(&text), [format!("{kind} web: app=web 8080/TCP")], "{kind}");
    }
    let set = pods(&format!(
        "apiVersion: apps.kruise.io/v1beta1\nkind: StatefulSet\nmetadata: {{name: web}}\nspec: {{{TEMPLATE}}}\n"
    ));
    assert!(set[0].contains("apps.kubernetes.io/pod-index=0"), "{set:?}");
    let cron = format!(
        "apiVersion: apps.kruise.io/v1alpha1\nkind: AdvancedCronJob\nmetadata: {{name: web}}\nspec: {{schedule: '* * * * *', template: {{jobTemplate: {{spec: {{{TEMPLATE}}}}}}}}}\n"
    );
    assert_eq!(pods(&cron), ["AdvancedCronJob web: app=web 8080/TCP"]);
    assert_eq!(pods(&cron.replace("jobTemplate", "broadcastJobTemplate")).len(), 1);
}

#[test]
fn a_rollout_may_use_the_template_of_a_deployment() {
    let rollout = "apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nmetadata: {name: r}\nspec: {replicas: 1, workloadRef: {apiVersion: apps/v1, kind: Deployment, name: web}}\n";
    let deployment = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec: {{replicas: 0, {TEMPLATE}}}\n"
    );
    assert_eq!(pods(&format!("{rollout}---\n{deployment}")), ["Rollout r: app=web 8080/TCP"]);
    let alone = load_text(rollout);
    assert_eq!(alone.diagnostics.iter().map(|d| d.code).collect::<Vec<_>>(), [Code::NotEvaluated]);
}

#[test]
fn pods_have_the_labels_that_the_controllers_add() {
    let config = format!(
        "apiVersion: apps.openshift.io/v1\nkind: DeploymentConfig\nmetadata: {{name: web}}\nspec: {{replicas: 1, selector: {{app: web}}, {TEMPLATE}}}\n"
    );
    assert_eq!(
        pods(&config),
        ["DeploymentConfig web: app=web,deployment=web-1,deploymentconfig=web 8080/TCP"]
    );
    let knative = "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: web}\nspec: {template: {metadata: {labels: {team: a}}, spec: {containerConcurrency: 5, containers: [{image: i, ports: [{containerPort: 3000}]}]}}}\n";
    let loaded = load_text(knative);
    assert!(loaded.diagnostics.is_empty(), "{:?}", loaded.diagnostics);
    assert!(loaded.cluster.services.is_empty());
    let pod = &pods(knative)[0];
    assert!(
        pod.starts_with("KnativeService web: app=web-00001,serving.knative.dev/configuration=web,"),
        "{pod}"
    );
    assert!(pod.contains("serving.knative.dev/service=web,team=a "), "{pod}");
    assert!(pod.contains("3000/TCP") && pod.contains("8012/TCP"), "{pod}");
}

#[test]
fn virtual_machines_are_pods_while_they_run() {
    let machine = "metadata: {labels: {app: vm}}, spec: {domain: {devices: {interfaces: [{name: default, masquerade: {}, ports: [{name: ssh, port: 22}]}]}}}";
    let expected =
        |kind: &str| format!("{kind} m: app=vm,kubevirt.io=virt-launcher,vm.kubevirt.io/name=m 22/TCP");
    for (spec, count) in [
        ("running: true", 1),
        ("running: false", 0),
        ("runStrategy: Always", 1),
        ("runStrategy: Halted", 0),
        ("runStrategy: RerunOnFailure", 1),
    ] {
        let text = format!(
            "apiVersion: kubevirt.io/v1\nkind: VirtualMachine\nmetadata: {{name: m}}\nspec: {{{spec}, template: {{{machine}}}}}\n"
        );
        assert_eq!(pods(&text), vec![expected("VirtualMachine"); count], "{spec}");
    }
    let instance = "apiVersion: kubevirt.io/v1\nkind: VirtualMachineInstance\nmetadata: {name: m, labels: {app: vm}}\nspec: {domain: {devices: {interfaces: [{name: default, ports: [{port: 22}]}]}}}\n";
    assert_eq!(pods(instance), [expected("VirtualMachineInstance")]);
    let set = format!(
        "apiVersion: kubevirt.io/v1\nkind: VirtualMachineInstanceReplicaSet\nmetadata: {{name: m}}\nspec: {{replicas: 3, template: {{{machine}}}}}\n"
    );
    assert_eq!(pods(&set), vec![expected("VirtualMachineInstanceReplicaSet"); 3]);
    let pool = format!(
        "apiVersion: pool.kubevirt.io/v1alpha1\nkind: VirtualMachinePool\nmetadata: {{name: m}}\nspec: {{replicas: 2, virtualMachineTemplate: {{spec: {{runStrategy: Always, template: {{{machine}}}}}}}}}\n"
    );
    assert_eq!(pods(&pool), vec![expected("VirtualMachinePool"); 2]);
}
