//! Queries to the cluster by a user with the published role only.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use palisade_cluster_tests::{World, control_plane::Identity, eventually, programs};
use serde_json::{Value, json};

use crate::manifests::{namespace, pod, policy};

pub(crate) const TESTS: &[crate::Test] = &[
    ("explainer::the_role_suffices_for_every_command", enough),
    ("explainer::without_a_part_of_the_role_the_answer_is_incomplete", just_enough),
    ("explainer::a_user_of_one_namespace_gets_an_incomplete_answer", one_namespace),
    ("explainer::a_suggested_patch_is_accepted_and_works", patched),
];

/// How long the API server may take to apply a change of rights.
const RIGHTS_WITHIN: Duration = Duration::from_secs(10);

/// A program's exit code, standard output and standard error.
type Answer = (Option<i32>, String, String);

/// A user with a kubeconfig.
struct User {
    kubeconfig: PathBuf,
}

impl User {
    /// Creates a service account without rights.
    fn new(world: &mut World, name: &str) -> Result<Self> {
        world.apply(&format!(
            "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, namespace: default}}\n"
        ))?;
        let token = world.control().token("default", name)?;
        let kubeconfig = world.control().kubeconfig(name, &Identity::TokenFile(token), None)?;
        Ok(Self { kubeconfig })
    }

    fn run(&self, world: &mut World, arguments: &str) -> Result<Answer> {
        let mut command = Command::new(world.programs().palisade());
        command.args(arguments.split_whitespace()).env("KUBECONFIG", &self.kubeconfig);
        let output = world.control().run_program(command, "")?;
        let text = |bytes| String::from_utf8(bytes).context("output that is not UTF-8");
        Ok((output.status.code(), text(output.stdout)?, text(output.stderr)?))
    }

    /// Runs until the answer meets a condition, since a change of rights takes a moment.
    fn run_until(
        &self,
        world: &mut World,
        arguments: &str,
        condition: impl Fn(&Answer) -> bool,
    ) -> Result<Answer> {
        eventually(arguments, RIGHTS_WITHIN, || {
            let answer = self.run(world, arguments)?;
            Ok(if condition(&answer) { Ok(answer) } else { Err(format!("{answer:?}")) })
        })
    }
}

/// The published role, as JSON.
fn role(world: &mut World) -> Result<Value> {
    let file = programs::root().join("deploy/manifests/explainer.yaml");
    let text = world.kubectl(&format!("create --dry-run=client -o json -f {}", file.display()))?;
    Ok(serde_json::from_str(&text)?)
}

fn bind(world: &mut World, name: &str, role: &Value) -> Result<()> {
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "palisade-explainer"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "palisade-explainer"},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "default"}],
    });
    world.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [role, binding]}).to_string())
}

const CLUSTER_WIDE: &str = "---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: guard}
spec:
  tier: Admin
  priority: 7
  subject: {namespaces: {matchLabels: {team: shop}}}
  ingress: [{name: keep-out, action: Deny, from: [{namespaces: {matchLabels: {team: other}}}]}]
";

/// Two namespaces with pods, a service, an ingress, and policies of two kinds.
fn shop(world: &mut World) -> Result<()> {
    world.install_crds(&["clusternetworkpolicies.v1alpha2.experimental"])?;
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: db, namespace: shop}\n\
                   spec: {selector: {app: db}, ports: [{port: 81, targetPort: 80}]}\n";
    let ingress = "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: front, namespace: shop}\n\
                   spec: {defaultBackend: {service: {name: db, port: {number: 81}}}}\n";
    let from_web = "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}";
    let all = [
        namespace("shop", "team: shop"),
        namespace("other", "team: other"),
        pod("shop/web", "w1", "app: web"),
        pod("shop/db", "w2", "app: db"),
        pod("other/web", "w1", "app: web"),
        service.to_owned(),
        ingress.to_owned(),
        policy("shop/db", from_web),
        CLUSTER_WIDE.to_owned(),
    ];
    world.apply(&all.concat())?;
    world.settle()?;
    Ok(())
}

fn enough(world: &mut World) -> Result<()> {
    shop(world)?;
    let user = User::new(world, "explainer")?;
    let role = role(world)?;
    bind(world, "explainer", &role)?;
    user.run_until(world, "can shop/web shop/db:80", |a| a.0 == Some(0))?;
    let dir = world.folder().join("snapshot");
    let yaml = world.folder().join("closed.yaml");
    fs::write(&yaml, policy("shop/db", "{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}"))?;
    let (snapshot, closed) = (dir.display(), yaml.display());
    for (code, words) in [
        (0, "can shop/web shop/svc/db:81".to_owned()),
        (1, "can other/web shop/db:80".to_owned()),
        (0, "connections -o json".to_owned()),
        (0, "describe shop/db".to_owned()),
        (0, "explain shop/web shop/db:80".to_owned()),
        (1, "explain other/web shop/db:80".to_owned()),
        (1, format!("can shop/web shop/db:80 -f {closed} --live")),
        (1, format!("diff --live {closed}")),
        (0, format!("snapshot {snapshot}")),
        (0, format!("snapshot {snapshot} --force")),
    ] {
        let (got, out, err) = user.run(world, &words)?;
        ensure!(got == Some(code), "{words}: {got:?}\n{out}{err}");
        ensure!(!err.contains("could not be read"), "{words}: {err}");
    }
    let (_, out, _) = user.run(world, "can other/web shop/db:80")?;
    ensure!(out.contains("clusternetworkpolicy/guard spec.ingress[0]"), "{out}");
    // The snapshot gives the same answer as the cluster.
    let (_, live, _) = user.run(world, "connections -o json")?;
    let (_, written, _) = user.run(world, &format!("connections -o json -f {snapshot}"))?;
    ensure!(without_positions(&live)? == without_positions(&written)?, "{live}\n{written}");
    ensure!(live.contains("other/pod/web") && live.contains("shop/pod/db"), "{live}");
    has_nothing_secret(&dir)
}

/// Removes the positions of objects from an answer.
fn without_positions(text: &str) -> Result<Value> {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|key, _| key != "file" && key != "line");
                fields.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut value = serde_json::from_str(text)?;
    strip(&mut value);
    Ok(value)
}

fn has_nothing_secret(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            has_nothing_secret(&path)?;
            continue;
        }
        let text = fs::read_to_string(&path)?;
        for never in ["managedFields", "annotations", "example.com/none", "uid:"] {
            ensure!(!text.contains(never), "{never} in {}", path.display());
        }
    }
    Ok(())
}

fn just_enough(world: &mut World) -> Result<()> {
    shop(world)?;
    let user = User::new(world, "explainer")?;
    let full = role(world)?;
    bind(world, "explainer", &full)?;
    user.run_until(world, "connections", |a| a.0 == Some(0) && !a.2.contains("could not be read"))?;
    let parts = [
        "namespaces",
        "nodes",
        "pods",
        "services",
        "networkpolicies",
        "clusternetworkpolicies",
        "ingresses",
        "replicasets",
        "jobs",
    ];
    for part in parts {
        let mut role = full.clone();
        let rules = role["rules"].as_array_mut().context("rules")?;
        for rule in rules.iter_mut() {
            rule["resources"].as_array_mut().context("resources")?.retain(|r| r != part);
        }
        // The API server refuses a rule without resources.
        rules.retain(|rule| rule["resources"] != json!([]));
        world.apply(&role.to_string())?;
        let names = ["replicasets", "jobs"].contains(&part);
        let (heading, code) = if names { ("note", 0) } else { ("incomplete", 2) };
        let expected = format!("{heading}: {part} could not be read");
        user.run_until(world, "connections", |(got, _, err)| *got == Some(code) && err.contains(&expected))?;
        world.apply(&full.to_string())?;
        user.run_until(world, "connections", |a| a.0 == Some(0) && !a.2.contains("could not be read"))?;
    }
    Ok(())
}

fn one_namespace(world: &mut World) -> Result<()> {
    shop(world)?;
    let user = User::new(world, "jane")?;
    let (code, _, err) = user.run(world, "can web db:80 -n shop")?;
    ensure!(code == Some(2) && err.contains("nothing could be read"), "{err}");
    world.apply(
        "---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: explainer, namespace: shop}
rules:
- {apiGroups: ['', networking.k8s.io, apps, batch], resources: ['*'], verbs: [list]}
- {apiGroups: [''], resources: [namespaces], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: explainer, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: explainer}
subjects: [{kind: ServiceAccount, name: jane, namespace: default}]
",
    )?;
    let expected = "pods could not be read except in shop";
    let (_, out, err) =
        user.run_until(world, "can web db:80 -n shop", |a| a.0 == Some(2) && a.2.contains(expected))?;
    ensure!(out.contains("allowed"), "{out}");
    ensure!(err.contains("namespaces could not be read except in shop"), "{err}");
    ensure!(err.contains("clusternetworkpolicies could not be read: "), "{err}");
    let (code, ..) = user.run(world, "can web db:80 -n shop --allow-incomplete")?;
    ensure!(code == Some(0));
    Ok(())
}

/// The API server accepts the patch that `explain` suggests, and then the connection is allowed.
fn patched(world: &mut World) -> Result<()> {
    shop(world)?;
    world.kubectl("delete clusternetworkpolicy guard")?;
    let user = User::new(world, "explainer")?;
    let role = role(world)?;
    bind(world, "explainer", &role)?;
    let (_, out, _) = user.run_until(world, "explain other/web shop/db:80 -o json", |a| a.0 == Some(1))?;
    let answer: Value = serde_json::from_str(&out)?;
    let command = answer["suggestions"][0]["commands"][0].as_str().context(out)?;
    // `kubectl -n shop patch networkpolicy db --type=json -p '…'`
    let (words, patch) = command.split_once(" -p ").context("no patch")?;
    let words: Vec<&str> = words.split(' ').skip(1).chain(["-p", patch.trim_matches('\'')]).collect();
    world.control().kubectl(&words, "")?;
    let (code, out, err) = user.run(world, "can other/web shop/db:80")?;
    ensure!(code == Some(0), "{out}{err}");
    Ok(())
}
