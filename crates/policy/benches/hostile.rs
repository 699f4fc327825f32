//! The cost of hostile policies for a node: each shape, at growing sizes, in a cluster of ten thousand pods, compiled
//! without limits and within the budget of a node; with the elements that the policy causes, and the cost of an
//! ordinary change of another tenant.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_policy::{Budget, Change, Compiler, Family, NodePlan, Pod};
use palisade_testkit::hostile::SHAPES;

mod ground;

const SIZES: [usize; 4] = [400, 1_600, 3_200, 12_800];

/// Without limits, no larger sizes of a shape are measured once it took so long.
const PATIENCE: Duration = Duration::from_secs(4);

fn main() {
    // `cargo test --benches` runs one quick round.
    let quick = std::env::args().any(|arg| arg == "--test");
    let (pods, policies) = ground::SIZES[if quick { 1 } else { 4 }];
    let world = ground::world(pods, policies);
    let pod = world
        .pods
        .values()
        .find(|pod| pod.node.as_deref() == Some(ground::NODE) && pod.is_running())
        .expect("the node has pods")
        .clone();
    let budgets = [("unbounded", Budget::UNLIMITED), ("budget", Budget::default())];
    let compilers = budgets.map(|(name, budget)| {
        let mut compiler = Compiler::with_budget(ground::NODE.into(), budget);
        compiler.apply_all(palisade_policy::Cluster::default().changes_to(&world));
        (name, compiler)
    });
    eprintln!(
        "shape                       rules | unbounded: time, pieces | budget: time, pieces, pods over | pod of others"
    );
    for (shape, policy) in SHAPES {
        let mut hopeless = false;
        for size in SIZES.into_iter().take(if quick { 1 } else { SIZES.len() }) {
            let change = Change::SetPolicy(Arc::new(policy(&pod, size)));
            let mut line = format!("{shape:<26} {size:>6} |");
            for (name, compiler) in &compilers {
                if *name == "unbounded" && hopeless {
                    line += "         -         - |";
                    continue;
                }
                let mut compiler = compiler.clone();
                let before = pieces(compiler.plan());
                let start = Instant::now();
                let delta = compiler.apply(change.clone());
                let spent = start.elapsed();
                drop(delta);
                line += &format!(" {spent:>9.1?} {:>9}", pieces(compiler.plan()).saturating_sub(before));
                if *name == "unbounded" {
                    hopeless = spent > PATIENCE;
                    line += " |";
                } else {
                    let other = others_pod(&mut compiler, &pod);
                    line += &format!(" {:>4} | {other:>9.1?}", compiler.over_budget().len());
                }
            }
            eprintln!("{line}");
        }
    }
}

/// Returns what a plan needs in the kernel: elements of peer sets, and rows with their port ranges.
fn pieces(plan: &NodePlan) -> usize {
    let rows = plan.tables.values().flat_map(|table| table.exact.values().chain(table.ranges.values()));
    let ports: usize = rows
        .map(|row| [&row.tcp, &row.udp, &row.sctp].map(|ports| ports.ranges().len()).iter().sum::<usize>())
        .sum();
    ports + Family::BOTH.map(|family| plan.elements(family)).iter().sum::<usize>()
}

/// Adds a copy of a pod in another namespace; the median of several.
fn others_pod(compiler: &mut Compiler, pod: &Pod) -> Duration {
    let other =
        compiler.cluster().pods.values().find(|p| p.key.namespace != pod.key.namespace && p.is_running());
    let other = other.expect("there are other namespaces").clone();
    let mut times: Vec<Duration> = (0..15)
        .map(|n| {
            let mut new = other.clone();
            new.key.name = format!("new-{n}").into();
            new.addresses = vec![std::net::IpAddr::from([10, 255, 0, n])];
            let start = Instant::now();
            compiler.apply(Change::SetPod(new));
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}
