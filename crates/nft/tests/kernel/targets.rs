// The modules of both test targets, `kernel` and `kernel-nft`, and their `main`, which runs the tests of one. `WITH_NFT` selects them.

mod agreement;
mod audit;
mod claim;
mod closed_node;
mod connections;
mod cut_off;
mod dns;
mod drift;
mod drops;
mod entries;
mod events;
mod faults;
mod foreign_edits;
mod hairpin;
mod layouts;
mod link;
mod listing;
mod missing_features;
mod new_pods;
mod node_links;
mod other_tables;
mod own_node;
mod random;
mod refusal;
mod replacement;
mod restart;
mod revocation;
mod sandbox;
mod scripted;
mod senders;
mod shapes;
mod staging;
mod storm;
mod text;
mod verify;

use libtest_mimic::Arguments;

fn main() {
    let arguments = Arguments::from_args();
    // Listing needs no namespace. Running without one would test nothing, so it fails.
    if !arguments.list {
        sandbox::enter();
    }
    let tests = [
        agreement::trials(),
        audit::trials(),
        claim::trials(),
        closed_node::trials(),
        connections::trials(),
        cut_off::trials(),
        dns::trials(),
        drift::trials(),
        drops::trials(),
        events::trials(),
        faults::trials(),
        foreign_edits::trials(),
        hairpin::trials(),
        layouts::trials(),
        link::trials(),
        listing::trials(),
        other_tables::trials(),
        refusal::trials(),
        replacement::trials(),
        restart::trials(),
        revocation::trials(),
        senders::trials(),
        shapes::trials(),
        staging::trials(),
        storm::trials(),
        new_pods::trials(),
        node_links::trials(),
        own_node::trials(),
        text::trials(),
        verify::trials(),
        missing_features::trials(),
    ]
    .into_iter()
    .flatten()
    .filter(|test| (test.kind() == sandbox::NFT) == WITH_NFT)
    .collect();
    libtest_mimic::run(&arguments, tests).exit();
}
