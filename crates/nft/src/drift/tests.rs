//! Notifications of transactions, as different kernels send them.

use super::*;
use crate::{encode::AttributeWriter, uapi::nfnetlink::message_type};

const OWN_PORT: u32 = 4711;

fn message(kind: u16, port: u32, fill: impl FnOnce(&mut AttributeWriter)) -> Reply {
    let mut body = AttributeWriter::default();
    body.raw(&[NFPROTO_INET, 0, 0, 0]);
    fill(&mut body);
    let kind = message_type(NFNL_SUBSYS_NFTABLES, kind);
    Reply { kind, flags: 0, sequence: 0, port, payload: body.into_bytes() }
}

/// A rule, the number of a transaction if given, and the end of the transaction.
fn transaction(table: &str, number: Option<u32>, object_port: u32, end_port: u32) -> Vec<Reply> {
    let rule = message(NFT_MSG_NEWRULE, object_port, |m| {
        m.text(NFTA_RULE_TABLE, table).text(NFTA_RULE_CHAIN, "forward");
    });
    let element = number.map(|number| {
        message(NFT_MSG_NEWSETELEM, object_port, |m| {
            m.text(NFTA_SET_ELEM_LIST_TABLE, table).text(NFTA_SET_ELEM_LIST_SET, GENERATION_SET);
            m.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
                list.nest(NFTA_LIST_ELEM, |element| {
                    element.nest(NFTA_SET_ELEM_KEY, |key| {
                        key.put(NFTA_DATA_VALUE, &number.to_ne_bytes());
                    });
                });
            });
        })
    });
    let end = message(NFT_MSG_NEWGEN, end_port, |m| {
        m.number(NFTA_GEN_ID, 9).number(NFTA_GEN_PROC_PID, 77).text(NFTA_GEN_PROC_NAME, "another");
    });
    [rule].into_iter().chain(element).chain([end]).collect()
}

fn observe(tracker: &mut TransactionTracker, messages: &[Reply]) -> Vec<Drift> {
    messages.iter().filter_map(|message| tracker.observe(message)).collect()
}

fn tracker() -> TransactionTracker {
    let tracker = TransactionTracker { own_port: OWN_PORT, ..TransactionTracker::default() };
    [5, 6].into_iter().for_each(|number| tracker.own_transactions.record(number));
    tracker
}

/// Kernels report the port of the sender in all messages of a transaction, only in its objects, only at its end, or nowhere.
#[test]
fn own_transactions_are_recognized_by_their_number_whatever_port_the_kernel_reports() {
    let mut tracker = tracker();
    for (object_port, end_port) in [(OWN_PORT, OWN_PORT), (OWN_PORT, 0), (0, OWN_PORT), (0, 0), (1, 2)] {
        for table in [TABLE, CUT_OFF_TABLE] {
            let own = transaction(table, Some(6), object_port, end_port);
            assert_eq!(observe(&mut tracker, &own), [], "{object_port}, {end_port}");
        }
        // The next transaction of another program is reported, and counted separately.
        let others = observe(&mut tracker, &transaction(TABLE, None, 8, 8));
        let by = TransactionAuthor { process: Some(77), name: Some("another".to_owned()) };
        assert_eq!(
            others,
            [Drift::Changed { objects: 1, first: "a rule of chain forward".to_owned(), by, gone: false }]
        );
    }
}

#[test]
fn other_transactions_are_reported_whatever_number_they_write() {
    let mut tracker = tracker();
    let foreign = observe(&mut tracker, &transaction(TABLE, Some(7), 8, 8));
    assert!(matches!(&foreign[..], [Drift::Changed { objects: 2, .. }]), "{foreign:?}");
    let cut_off = observe(&mut tracker, &transaction(CUT_OFF_TABLE, None, 8, 8));
    assert!(cut_off[0].to_string().contains("forward of palisade_cut_off"), "{cut_off:?}");
    assert_eq!(observe(&mut tracker, &transaction("other", Some(5), 8, 8)), []);
}
