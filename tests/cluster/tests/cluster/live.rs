//! The command line's questions, asked of the cluster itself: the same answers as the packets give.

use std::{fs, process::Output};

use anyhow::{Context, Result, ensure};
use palisade_cluster_tests::{
    World,
    world::{ACCOUNT, CRDS, in_words},
};
use palisade_lab::Place;

use crate::manifests::{back_from, policy, shop};

pub(crate) const TESTS: &[crate::Test] = &[
    ("live::can_says_what_packets_say", can),
    ("live::connections_of_the_cluster", connections),
    ("live::diff_says_what_an_apply_would_change", diff),
    ("live::a_snapshot_answers_as_the_cluster_did", snapshot),
    ("live::a_user_without_rights_is_told_so", without_rights),
    ("live::node_explain_says_what_packets_say", node_explain),
    ("live::a_dry_run_on_a_node_touches_nothing", dry_run),
];

fn ask(world: &World, words: &str) -> Result<Output> {
    world.palisade(&Place::Outside, &words.split_whitespace().collect::<Vec<_>>())
}

/// Asks, and fails unless it ends with this exit code.
fn answer(world: &World, code: i32, words: &str) -> Result<String> {
    let output = ask(world, words)?;
    ensure!(output.status.code() == Some(code), "palisade {words}: {}", in_words(&output));
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
    let seen = world.must_agree()?;
    for (from, to) in PAIRS {
        let code = if seen.is_open(from, to, 80)? { 0 } else { 1 };
        answer(world, code, &format!("can {from} {to}:80"))?;
        // As somebody who only names another kubeconfig.
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
    let output = ask(world, "connections -A -o json")?;
    let answer: serde_json::Value =
        serde_json::from_slice(&output.stdout).with_context(|| in_words(&output))?;
    let text = answer.to_string();
    ensure!(
        output.status.success() && text.contains("back") && text.contains("guest"),
        "{}",
        in_words(&output)
    );
    Ok(())
}

fn diff(world: &mut World) -> Result<()> {
    world.apply(&shop())?;
    world.settle()?;
    let file = world.folder().join("back.yaml");
    fs::write(&file, back_from("front"))?;
    let words = format!("diff --live {}", file.display());
    let before = ask(world, &words)?;
    let text = in_words(&before);
    ensure!(before.status.code() == Some(1) && text.contains("back"), "a policy closes something: {text}");
    world.control().kubectl(&["apply", "-f", &file.display().to_string()], "")?;
    let after = ask(world, &words)?;
    ensure!(after.status.code() == Some(0), "it is applied: {}", in_words(&after));
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
        let live = ask(world, &question)?.status.code();
        let kept = ask(world, &format!("{question} -f {}", folder.display()))?;
        ensure!(kept.status.code() == live, "{question}: {live:?}, and of the snapshot: {}", in_words(&kept));
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
    let output = ask(world, &words)?;
    let text = in_words(&output);
    ensure!(output.status.code() == Some(2) && text.to_lowercase().contains("forbidden"), "{text}");
    Ok(())
}

fn node_explain(world: &mut World) -> Result<()> {
    world.apply(&(shop() + &back_from("front")))?;
    world.start_agents()?;
    let seen = world.must_agree()?;
    let socket = world.agent("w2")?.socket().display().to_string();
    for (from, to) in &PAIRS[..3] {
        let code = if seen.is_open(from, to, 80)? { 0 } else { 1 };
        let target = format!("{to}:80");
        let words = ["node", "--socket", &socket, "explain", from, &target];
        let output = world.palisade(&Place::Node("w2".into()), &words)?;
        ensure!(output.status.code() == Some(code), "{from} → {to}: {}", in_words(&output));
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
    let text = in_words(&output);
    ensure!(output.status.success() && text.contains("table inet palisade"), "{text}");
    let was_there = world
        .namespace(&place)?
        .run(|| -> Result<bool> { Ok(palisade_nft::remove(&mut palisade_nft::Kernel::open()?)?) })??;
    ensure!(!was_there, "a dry run made a table");
    Ok(())
}
