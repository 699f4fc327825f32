//! The text of a plan, loaded by the `nft` program, equals what the enforcer programs.

use std::{
    collections::BTreeSet,
    io::Write,
    process::{Command, Stdio},
};

use libtest_mimic::Trial;
use palisade_nft::{Enforcer, EnforcerOptions, Kernel, LINEAR_LOOKUPS, NodeLinks, reader::Ruleset, text};
use palisade_policy::NodePlan;
use palisade_testkit::seeds;

use crate::{
    listing::list,
    random::{Random, World},
    sandbox::trial_with_nft,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial_with_nft("the_nft_program_loads_the_text_of_a_plan", loads),
        trial_with_nft("an_enforcer_takes_over_tables_loaded_from_text", takes_over),
    ]
}

pub(crate) fn load(text: &str) {
    let mut nft =
        Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("the nft program");
    nft.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success(), "nft could not load\n{text}");
}

fn world(seed: u64) -> World {
    let random = &mut Random::new(seed);
    let mut world = World::new(random, [4, 9, LINEAR_LOOKUPS + 1][seed as usize % 3]);
    while world.plan().tables.len() < 3 {
        world.step(random);
    }
    world
}

/// Returns whether the `nft` program can load a text here. It sends a file as one message, and may not enlarge its send buffer in a user
/// namespace: some texts of less than 60,000 bytes were seen to be refused as too long.
pub(crate) fn can_load(text: &str) -> bool {
    text.len() <= 56_000
}

/// Returns the first plan of a seed and its successors whose text can be loaded.
fn loadable(seed: u64, options: &EnforcerOptions) -> NodePlan {
    let mut plans = (0..).map(|n: u64| world(seed.wrapping_add(n)).plan());
    let fits = |plan: &NodePlan| can_load(&text(plan, options, &NodeLinks::default()).unwrap());
    plans.find(fits).expect("a small plan")
}

/// Returns the blocks of a listing, which are in the order of their creation. The first one follows the head of the table.
fn blocks(listing: &str) -> BTreeSet<String> {
    let listing = listing.replacen("\n\tcomment \"palisade format 2\"\n", "\n\n", 1);
    listing.split("\n\n").map(|block| block.trim_end_matches(['}', '\n']).to_owned()).collect()
}

fn loads() {
    for seed in seeds(0..12) {
        let options = if seed % 4 == 3 {
            EnforcerOptions { log_group: None, egress_to_own_node: false, ..EnforcerOptions::default() }
        } else {
            EnforcerOptions::default()
        };
        let plan = if seed == 0 { NodePlan::default() } else { loadable(seed, &options) };
        let rendered = text(&plan, &options, &NodeLinks::default()).unwrap();
        assert_eq!(
            rendered,
            text(&plan, &options, &NodeLinks::default()).unwrap(),
            "the same text for the same plan"
        );
        load(&rendered);
        let (listed, mut kernel) = (list(), Kernel::open().unwrap());
        let loaded = Ruleset::read(&mut kernel).unwrap().unwrap();
        palisade_nft::remove(&mut kernel).unwrap();
        let (mut enforcer, _) = Enforcer::start_with(kernel, options, &plan).unwrap();
        let made = Ruleset::read(enforcer.kernel()).unwrap().unwrap();
        let (a, b) = (blocks(&listed), blocks(&list()));
        assert_eq!(a.difference(&b).next(), None, "seed {seed}: loaded, but not programmed");
        assert_eq!(b.difference(&a).next(), None, "seed {seed}: programmed, but not loaded");
        for (name, chain) in &made.chains {
            assert_eq!(loaded.chains.get(name), Some(chain), "seed {seed}: {name}");
        }
        assert_eq!(loaded, made, "seed {seed}");
        enforcer.remove().unwrap();
    }
}

fn takes_over() {
    let plan = world(5).plan();
    load(&text(&plan, &EnforcerOptions::default(), &NodeLinks::default()).unwrap());
    let (mut enforcer, commit) = Enforcer::start(Kernel::open().unwrap(), &plan).unwrap();
    assert_eq!((commit.elements, commit.generation), (0, 2), "only the rules are written");
    enforcer.remove().unwrap();
}
