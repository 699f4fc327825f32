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
