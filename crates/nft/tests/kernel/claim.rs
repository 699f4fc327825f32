//! The claim on a network namespace.

use libtest_mimic::Trial;
use nix::sched::{CloneFlags, unshare};
use palisade_nft::{
    Enforcer, Kernel,
    claim::{CLAIM, Claim, ClaimError},
    remove,
};
use palisade_policy::NodePlan;

use crate::{
    other_tables::nft,
    sandbox::{trial, trial_with_nft},
    scripted::{self, Fault},
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("claim::one_process_holds_it_until_it_exits", one_process_holds_it_until_it_exits),
        trial_with_nft(
            "claim::a_table_of_its_name_without_an_owner_is_no_claim",
            a_table_of_its_name_is_no_claim,
        ),
        trial_with_nft("claim::no_other_process_can_remove_it", no_other_process_can_remove_it),
        trial("claim::a_kernel_without_table_owners_is_claimed_too", without_table_owners),
        trial("claim::rules_are_programmed_beside_it_and_outlive_it", rules_outlive_it),
    ]
}

fn is_held() -> bool {
    match Claim::take() {
        Ok(_) => false,
        Err(ClaimError::Held { port }) => {
            assert!(port.is_some_and(|port| port > 0), "{port:?}");
            true
        }
        Err(error) => panic!("{error}"),
    }
}

fn one_process_holds_it_until_it_exits() {
    let claim = Claim::take().unwrap();
    assert!(is_held() && is_held());
    std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        assert!(!is_held(), "another network namespace has a separate claim");
    })
    .join()
    .unwrap();
    assert!(is_held());
    drop(claim);
    assert!(!is_held());
}

fn a_table_of_its_name_is_no_claim() {
    nft(&format!("add table inet {CLAIM}"));
    nft(&format!("add chain inet {CLAIM} c"));
    let _claim = Claim::take().unwrap();
    assert!(is_held());
}

fn no_other_process_can_remove_it() {
    let _claim = Claim::take().unwrap();
    nft("flush ruleset");
    assert!(is_held());
}

/// As on Linux 5.10, which refuses the flag of a table with an owner.
fn take_without_table_owners() -> Result<Claim, ClaimError> {
    let (kernel, script) = scripted::kernel();
    script.lock().unwrap().faults.push_back(Some(Fault::Refused(0, nix::libc::EINVAL, "")));
    Claim::take_with(kernel)
}

fn without_table_owners() {
    let claim = take_without_table_owners().unwrap();
    match take_without_table_owners() {
        Err(ClaimError::Held { port }) => assert!(port.is_some_and(|port| port > 0), "{port:?}"),
        other => panic!("{other:?}"),
    }
    std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        take_without_table_owners().unwrap();
    })
    .join()
    .unwrap();
    drop(claim);
    take_without_table_owners().unwrap();
}

fn rules_outlive_it() {
    let claim = Claim::take().unwrap();
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &NodePlan::default()).unwrap();
    assert!(enforcer.verify().unwrap().differences.is_empty());
    drop(enforcer);
    drop(claim);
    assert!(remove(&mut Kernel::open().unwrap()).unwrap(), "the table remained");
    assert!(!remove(&mut Kernel::open().unwrap()).unwrap());
}
