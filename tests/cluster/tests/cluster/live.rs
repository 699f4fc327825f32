//! Queries of the command line to the cluster, compared with packets.

use std::{fs, process::Output};

use anyhow::{Context, Result, ensure};
use palisade_cluster_tests::{
    World,
    world::{ACCOUNT, CRDS, describe},
};
use palisade_lab::Place;

use crate::manifests::{back_from, policy, shop};

pub(crate) const TESTS: &[crate::Test] = &[
    ("live::can_agrees_with_packets", can),
    ("live::connections_of_the_cluster", connections),
    ("live::diff_shows_what_an_apply_would_change", diff),
    ("live::assertions_agree_with_packets", assertions),
    ("live::assertions_of_the_examples_are_what_they_are_offline", examples),
    ("live::a_snapshot_gives_the_answers_of_the_cluster", snapshot),
    ("live::a_user_without_rights_gets_an_error", without_rights),
    ("live::node_explain_agrees_with_packets", node_explain),
    ("live::a_dry_run_on_a_node_changes_nothing", dry_run),
];

fn run(world: &World, arguments: &str) -> Result<Output> {
    world.palisade(&Place::Outside, &arguments.split_whitespace().collect::<Vec<_>>())
}

/// Runs `palisade` and returns its output. Fails unless it exits with this code.
fn answer(world: &World, code: i32, arguments: &str) -> Result<String> {
    let output = run(world, arguments)?;
    ensure!(output.status.code() == Some(code), "palisade {arguments}: {}", describe(&output));
    Ok(String::from_utf8(output.stdout)?)
}

const PAIRS: [(&str, &str); 4] = [
    ("shop/front", "shop/back"),
    ("shop/near", "shop/back"),
    ("other/guest", "shop/back"),
    ("other/guest", "shop/near"),
];

const NO_GUESTS: &str = "---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: no-guests}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {matchLabels: {team: shop}}}
  ingress:
  - {name: guests, action: Deny, from: [{namespaces: {matchLabels: {team: other}}}]}
";

fn can(world: &mut World) -> Result<()> {
    world.install_crds(&CRDS)?;
    world.apply(&(shop() + &back_from("front") + NO_GUESTS))?;
    world.start_agents()?;
    let results = world.must_agree()?;
    for (from, to) in PAIRS {
        let code = if results.is_open(from, to, 80)? { 0 } else { 1 };
        answer(world, code, &format!("can {from} {to}:80"))?;
        // With a kubeconfig by flag.
        let admin = world.control().admin().display().to_string();
        answer(world, code, &format!("can {from} {to}:80 --kubeconfig {admin}"))?;
    }
    let text = answer(world, 1, "can other/guest shop/near:80")?;
    ensure!(text.contains("no-guests"), "{text}");
    Ok(())
}

fn connections(world: &mut World) -> Result<()> {
    world.apply(&(shop() + &back_from("front")))?;
    world.settle()?;
    let output = run(world, "connections -A -o json")?;
    let answer: serde_json::Value =
        serde_json::from_slice(&output.stdout).with_context(|| describe(&output))?;
    let text = answer.to_string();
    ensure!(
        output.status.success() && text.contains("back") && text.contains("guest"),
        "{}",
        describe(&output)
    );
    Ok(())
}

fn diff(world: &mut World) -> Result<()> {
    world.apply(&shop())?;
    world.settle()?;
    let file = world.folder().join("back.yaml");
    fs::write(&file, back_from("front"))?;
    let words = format!("diff --live {}", file.display());
    let before = run(world, &words)?;
    let text = describe(&before);
    ensure!(before.status.code() == Some(1) && text.contains("back"), "no difference: {text}");
    world.control().kubectl(&["apply", "-f", &file.display().to_string()], "")?;
    let after = run(world, &words)?;
    ensure!(after.status.code() == Some(0), "a difference after the apply: {}", describe(&after));
    Ok(())
}

/// Assertions about pods that exist, with their results if nothing but `front` reaches `back`.
const ASSERTIONS: [(&str, &str, &str, &str); 4] = [
    ("holds", "shop/front", "shop/back", "allow"),
    ("holds", "other/guest", "shop/back", "deny"),
    ("fails", "shop/near", "shop/back", "allow"),
    ("fails", "other/guest", "shop/near", "deny"),
];

fn assertions(world: &mut World) -> Result<()> {
    world.apply(&(shop() + &back_from("front")))?;
    world.start_agents()?;
    let results = world.must_agree()?;
    let file = world.folder().join("assertions.yaml");
    let mut text = String::from("schema: palisade.test/v1\nassertions:\n");
    for (number, (_, from, to, expect)) in ASSERTIONS.iter().enumerate() {
        text += &format!("- {{name: a{number}, from: {from}, to: {to}, ports: [80], expect: {expect}}}\n");
    }
    fs::write(&file, &text)?;
    let answer: serde_json::Value =
        serde_json::from_str(&answer(world, 1, &format!("test {} -o json", file.display()))?)?;
    for (number, (status, from, to, expect)) in ASSERTIONS.iter().enumerate() {
        let got = &answer["results"][number]["status"];
        ensure!(got == status, "{from} → {to}: {expect} {got}");
        let holds = results.is_open(from, to, 80)? == (*expect == "allow");
        ensure!(holds == (*status == "holds"), "{from} → {to}: packets say otherwise");
    }
    // What the manifests would change is seen before they are applied, also for pods that don't exist.
    let only = "schema: palisade.test/v1\nassertions:\n- {name: only, from: shop/front, to: shop/back, expect: only}\n";
    fs::write(&file, only)?;
    let words = format!("test {}", file.display());
    self::answer(world, 0, &words)?;
    let change = world.folder().join("change.yaml");
    fs::write(
        &change,
        policy(
            "shop/more",
            "{podSelector: {matchLabels: {app: back}}, ingress: [{from: [{podSelector: {matchLabels: {app: new}}}]}]}",
        ),
    )?;
    let applied = self::answer(world, 1, &format!("{words} --live -f {}", change.display()))?;
    ensure!(applied.contains("a new pod with app=new in namespace shop"), "{applied}");
    Ok(())
}

/// The engine gives the same results for an example's manifests applied to a cluster, before and after they are applied.
fn examples(world: &mut World) -> Result<()> {
    world.install_crds(&["clusternetworkpolicies.v1alpha2.experimental"])?;
    let root = palisade_cluster_tests::programs::root();
    let mut files = 0;
    for entry in fs::read_dir(root.join("examples"))? {
        let path = entry?.path().display().to_string();
        let Some(example) = path.strip_suffix(".assertions.yaml") else { continue };
        let statuses = |words: &str| -> Result<(Option<i32>, Vec<String>)> {
            let output = run(world, &format!("test {path} {words} -o json"))?;
            let answer: serde_json::Value =
                serde_json::from_slice(&output.stdout).with_context(|| describe(&output))?;
            let results = answer["results"].as_array().context("results")?;
            Ok((output.status.code(), results.iter().map(|r| r["status"].to_string()).collect()))
        };
        let offline = statuses(&format!("-f {example}"))?;
        let live = statuses(&format!("-f {example} --live"))?;
        ensure!(offline == live, "{example}: offline {offline:?}, on a cluster {live:?}");
        ensure!(offline.0 == Some(0), "{example}: {offline:?}");
        files += 1;
    }
    ensure!(files >= 6, "only {files} files of assertions");
    Ok(())
}

fn snapshot(world: &mut World) -> Result<()> {
    world.install_crds(&CRDS)?;
    world.apply(&(shop() + &back_from("front") + NO_GUESTS))?;
    world.settle()?;
    let folder = world.folder().join("snapshot");
    answer(world, 0, &format!("snapshot {}", folder.display()))?;
    for (from, to) in PAIRS {
        let question = format!("can {from} {to}:80");
        let live = run(world, &question)?.status.code();
        let kept = run(world, &format!("{question} -f {}", folder.display()))?;
        ensure!(
            kept.status.code() == live,
            "{question}: {live:?} from the cluster, from the snapshot: {}",
            describe(&kept)
        );
    }
    fs::remove_dir_all(&folder)?;
    Ok(())
}

fn without_rights(world: &mut World) -> Result<()> {
    world.apply(&shop())?;
    world.install()?;
    world.kubectl("create serviceaccount nobody -n palisade-system")?;
    let token = world.control().token(ACCOUNT.0, "nobody")?;
    let identity = palisade_cluster_tests::control_plane::Identity::TokenFile(token);
    let kubeconfig = world.control().kubeconfig("nobody", &identity, None)?;
    let words = format!("can shop/front shop/back:80 --kubeconfig {}", kubeconfig.display());
    let output = run(world, &words)?;
    let text = describe(&output);
    ensure!(output.status.code() == Some(2) && text.to_lowercase().contains("forbidden"), "{text}");
    Ok(())
}

fn node_explain(world: &mut World) -> Result<()> {
    world.apply(&(shop() + &back_from("front")))?;
    world.start_agents()?;
    let results = world.must_agree()?;
    let socket = world.agent("w2")?.socket().display().to_string();
    for (from, to) in &PAIRS[..3] {
        let code = if results.is_open(from, to, 80)? { 0 } else { 1 };
        let target = format!("{to}:80");
        let words = ["node", "--socket", &socket, "explain", from, &target];
        let output = world.palisade(&Place::Node("w2".into()), &words)?;
        ensure!(output.status.code() == Some(code), "{from} → {to}: {}", describe(&output));
    }
    Ok(())
}

fn dry_run(world: &mut World) -> Result<()> {
    world.apply(&(shop() + &back_from("front") + &policy("shop/near", "{podSelector: {}}")))?;
    world.settle()?;
    world.install()?;
    let kubeconfig = format!("--kubeconfig={}", world.agent_kubeconfig()?.display());
    let place = Place::Node("w2".into());
    let output = world.palisade(&place, &["agent", "--dry-run", "--node-name=w2", &kubeconfig])?;
    let text = describe(&output);
    ensure!(output.status.success() && text.contains("table inet palisade"), "{text}");
    let existed = world
        .namespace(&place)?
        .run(|| -> Result<bool> { Ok(palisade_nft::remove(&mut palisade_nft::Kernel::open()?)?) })??;
    ensure!(!existed, "the dry run created a table");
    Ok(())
}
