//! The cluster before any agent runs, which the other tests rely on.

use anyhow::{Result, ensure};
use palisade_cluster_tests::World;

use crate::manifests::{namespace, pod, pod_at, policy};

pub(crate) const TESTS: &[crate::Test] = &[
    ("lab::pods_get_a_network_and_a_status", network_and_status),
    ("lab::deleted_pods_are_removed_and_their_addresses_are_free", deleted),
    ("lab::without_agents_nothing_is_enforced", not_enforced),
];

fn network_and_status(world: &mut World) -> Result<()> {
    let pods = [pod("shop/a", "w1", "app: a"), pod("shop/b", "w2", "app: b")].concat();
    world.apply(&(namespace("shop", "team: shop") + &pods))?;
    let results = world.must_agree()?;
    results.expect(true, "shop/a", "shop/b", 80)?;
    let wide = world.kubectl("get pods -n shop -o wide --no-headers")?;
    for name in ["a", "b"] {
        let address = world.address(&format!("shop/{name}"))?.to_string();
        let line = wide.lines().find(|l| l.starts_with(&format!("{name} "))).unwrap_or_default();
        ensure!(line.contains("Running") && line.contains(&address), "{address}: {wide}");
    }
    ensure!(world.kubectl("get nodes --no-headers")?.lines().filter(|l| l.contains(" Ready ")).count() == 2);
    Ok(())
}

fn deleted(world: &mut World) -> Result<()> {
    world.apply(
        &(namespace("shop", "") + &pod("shop/a", "w1", "") + &pod_at("shop/b", "w1", "", "10.244.9.9")),
    )?;
    world.must_agree()?;
    world.kubectl("delete pod -n shop b --wait=true --timeout=20s")?;
    ensure!(world.settle()?.pods.len() == 1);
    world.apply(&pod_at("shop/c", "w2", "", "10.244.9.9,fd00:10:244::99"))?;
    world.must_agree()?.expect(true, "shop/a", "shop/c", 80)?;
    ensure!(world.address("shop/c")?.to_string() == "10.244.9.9");
    Ok(())
}

/// Shows that the tests can fail: without agents the kernel does not follow the policies.
fn not_enforced(world: &mut World) -> Result<()> {
    let pods = [pod("shop/a", "w1", "app: a"), pod("shop/b", "w2", "app: b")].concat();
    world.apply(&(namespace("shop", "") + &pods))?;
    world.must_agree()?;
    world.apply(&policy("shop/closed", "{podSelector: {}, policyTypes: [Ingress]}"))?;
    match world.must_agree() {
        Ok(_) => anyhow::bail!("the policy is enforced without agents"),
        Err(e) => ensure!(format!("{e:#}").contains("isolated by NetworkPolicy shop/closed"), "{e:#}"),
    }
    Ok(())
}
