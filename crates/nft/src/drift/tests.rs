//! What is told of transactions, as kernels tell it.

use super::*;
use crate::encode::attributes::Attributes as Writer;

const OURS: u32 = 4711;

fn message(kind: u16, port: u32, fill: impl FnOnce(&mut Writer)) -> Reply {
    let mut body = Writer::default();
    body.raw(&[INET, 0, 0, 0]);
    fill(&mut body);
    Reply { kind: (NFTABLES << 8) | kind, flags: 0, sequence: 0, port, payload: body.into_bytes() }
}

/// A rule and the number of a transaction, and what ends it.
fn transaction(table: &str, number: Option<u32>, object_port: u32, end_port: u32) -> Vec<Reply> {
    let rule = message(6, object_port, |m| {
        m.text(1, table).text(2, "forward");
    });
    let element = number.map(|number| {
        message(NEWSETELEM, object_port, |m| {
            m.text(1, table).text(2, GENERATION_SET).nest(3, |list| {
                list.nest(1, |element| {
                    element.nest(1, |key| {
                        key.put(1, &number.to_ne_bytes());
                    });
                });
            });
        })
    });
    let end = message(NEWGEN, end_port, |m| {
        m.number(1, 9).number(2, 77).text(3, "somebody");
    });
    [rule].into_iter().chain(element).chain([end]).collect()
}

fn told(telling: &mut Telling, messages: &[Reply]) -> Vec<Drift> {
    messages.iter().filter_map(|message| telling.hear(message)).collect()
}

fn telling() -> Telling {
    let telling = Telling { ours: OURS, ..Telling::default() };
    [5, 6].into_iter().for_each(|number| telling.written.note(number));
    telling
}

/// Kernels name the socket that sent a transaction in all of its messages, in its objects alone, in its end alone, or nowhere.
#[test]
fn our_own_transactions_are_known_by_their_number_whatever_port_the_kernel_names() {
    let mut telling = telling();
    for (object_port, end_port) in [(OURS, OURS), (OURS, 0), (0, OURS), (0, 0), (1, 2)] {
        for table in [TABLE, CUT_OFF_TABLE] {
            let own = transaction(table, Some(6), object_port, end_port);
            assert_eq!(told(&mut telling, &own), [], "{object_port}, {end_port}");
        }
        // What others do next is not taken for ours, nor counted together with ours.
        let others = told(&mut telling, &transaction(TABLE, None, 8, 8));
        let by = Culprit { process: Some(77), name: Some("somebody".to_owned()) };
        assert_eq!(
            others,
            [Drift::Touched { objects: 1, first: "a rule of chain forward".to_owned(), by, gone: false }]
        );
    }
}

#[test]
fn others_are_told_whatever_number_they_write() {
    let mut telling = telling();
    let foreign = told(&mut telling, &transaction(TABLE, Some(7), 8, 8));
    assert!(matches!(&foreign[..], [Drift::Touched { objects: 2, .. }]), "{foreign:?}");
    let apart = told(&mut telling, &transaction(CUT_OFF_TABLE, None, 8, 8));
    assert!(apart[0].to_string().contains("forward of palisade_cut_off"), "{apart:?}");
    assert_eq!(told(&mut telling, &transaction("other", Some(5), 8, 8)), []);
}

#[test]
fn many_numbers_take_no_more_memory() {
    let written = Written::default();
    (0..5000).for_each(|number| written.note(number));
    assert!(written.has(4999) && written.has(4000) && !written.has(3000));
}
