//! The bytes of one message of each kind. A kernel accepted them, and the `nft` program printed them as intended (see
//! `tests/kernel`). They may change only on purpose.

use std::sync::Arc;

use palisade_policy::{Direction, Family, IpRange};

use super::{batch_begin, batch_end, encode};
use crate::{
    base,
    base_sets::{BaseSets, node_set},
    ruleset::{
        Chain, Content, Element, Expression, Hook, JumpTarget, Key, Message, NodeSet, Outcome, PacketType,
        Set,
    },
};

/// Returns the message with sequence number 0 as words of four bytes in hexadecimal.
fn words(message: Message) -> String {
    let mut batch = Vec::new();
    encode(message).append(&mut batch, 0, false);
    hex_words(&batch)
}

fn hex_words(bytes: &[u8]) -> String {
    let word = |w: &[u8]| w.iter().map(|b| format!("{b:02x}")).collect::<String>();
    bytes.chunks(4).map(word).collect::<Vec<_>>().join(" ")
}

fn rule(expressions: Vec<Expression>) -> Message {
    let chain = Chain {
        name: "c".into(),
        hook: None,
        comment: None,
        rules: vec![expressions],
        chains: Vec::new(),
        sets: Vec::new(),
    };
    Message::AddRule(Arc::new(chain), 0)
}

fn ranges() -> Arc<Set> {
    Arc::new(Set {
        name: "r".into(),
        key: Key::Address(Family::V4),
        intervals: true,
        verdicts: false,
        content: Content::PeerSets(Vec::new(), Family::V4),
    })
}

#[test]
fn batches_are_framed() {
    assert_eq!(hex_words(&batch_begin(7)), "14000000 10000100 07000000 00000000 0000000a");
    assert_eq!(hex_words(&batch_end(9)), "14000000 11000100 09000000 00000000 0000000a");
    let mut batch = Vec::new();
    encode(Message::FlushChain("c".into())).append(&mut batch, 0x0403_0201, true);
    assert_eq!(
        hex_words(&batch),
        "2c000000 080a0500 01020304 00000000 01000000 0d000100 70616c69 73616465 00000000 \
         06000200 63000000"
    );
}

#[test]
fn the_table_and_its_base() {
    assert_eq!(
        words(Message::CreateTable),
        "3c000000 000a0104 00000000 00000000 01000000 0d000100 70616c69 73616465 00000000 \
         18000600 00127061 6c697361 64652066 6f726d61 74203200"
    );
    let sets = BaseSets::new();
    assert_eq!(
        words(Message::CreateSet(sets.dispatch(JumpTarget::Table(Direction::Egress), Family::V6).clone())),
        "64000000 090a0106 00000000 00000000 01000000 0d000100 70616c69 73616465 00000000 \
         0c000200 65677265 73733600 08000300 00000008 08000400 00000008 08000500 00000010 \
         08000600 ffffff00 08000a00 00000001 0a000d00 00040200 00000000"
    );
    assert_eq!(
        words(Message::CreateSet(sets.self_pairs(Family::V4).clone())),
        "5c000000 090a0106 00000000 00000000 01000000 0d000100 70616c69 73616465 00000000 \
         0a000200 73656c66 34000000 08000300 00000000 08000400 000001c7 08000500 00000008 \
         08000a00 00000001 0a000d00 00040200 00000000"
    );
    assert_eq!(
        words(Message::CreateSet(sets.dispatch(JumpTarget::Hairpin, Family::V4).clone())),
        "68000000 090a0106 00000000 00000000 01000000 0d000100 70616c69 73616465 00000000 \
         0d000200 68616972 70696e34 00000000 08000300 00000008 08000400 000001c7 08000500 \
         00000008 08000600 ffffff00 08000a00 00000001 0a000d00 00040200 00000000"
    );
    let forward = base::chains(&crate::EnforcerOptions::default(), &sets, &base::Conditions::default())
        .into_iter()
        .find(|chain| chain.hook == Some(Hook::Forward))
        .unwrap();
    assert_eq!(
        words(Message::CreateChain(forward)),
        "58000000 030a0106 00000000 00000000 01000000 0d000100 70616c69 73616465 00000000 \
         0c000300 666f7277 61726400 14000480 08000100 00000002 08000200 00000000 08000500 \
         00000001 0b000700 66696c74 65720000"
    );
}

#[test]
fn elements() {
    let range =
        |first: [u8; 4], last: [u8; 4]| Element::Range(IpRange { first: first.into(), last: last.into() });
    let message = Message::AddElements(
        ranges(),
        vec![range([10, 0, 0, 0], [10, 0, 0, 255]), range([255, 0, 0, 0], [255; 4])],
    );
    assert_eq!(
        words(message),
        "68000000 0c0a0104 00000000 00000000 01000000 0d000100 70616c69 73616465 00000000 \
         06000200 72000000 3c000380 10000180 0c000180 08000100 0a000000 18000180 08000300 \
         00000001 0c000180 08000100 0a000100 10000180 0c000180 08000100 ff000000"
    );
    let map = BaseSets::new().dispatch(JumpTarget::Table(Direction::Ingress), Family::V4).clone();
    let jump = || vec![Element::Jump([10, 0, 0, 1].into(), "c".into())];
    assert_eq!(
        words(Message::AddElements(map.clone(), jump())),
        "60000000 0c0a0104 00000000 00000000 01000000 0d000100 70616c69 73616465 00000000 \
         0d000200 696e6772 65737334 00000000 2c000380 28000180 0c000180 08000100 0a000001 \
         18000280 14000280 08000100 fffffffd 06000200 63000000"
    );
    assert_eq!(
        words(Message::RemoveElements(map, jump())),
        "48000000 0e0a0100 00000000 00000000 01000000 0d000100 70616c69 73616465 00000000 \
         0d000200 696e6772 65737334 00000000 14000380 10000180 0c000180 08000100 0a000001"
    );
}

#[test]
fn hairpins() {
    let map = BaseSets::new().dispatch(JumpTarget::Hairpin, Family::V4).clone();
    let jump = || vec![Element::SelfPairJump([10, 0, 0, 1].into(), "c".into())];
    assert_eq!(
        words(Message::AddElements(map.clone(), jump())),
        "64000000 0c0a0104 00000000 00000000 01000000 0d000100 70616c69 73616465 00000000 \
         0d000200 68616972 70696e34 00000000 30000380 2c000180 10000180 0c000100 0a000001 \
         0a000001 18000280 14000280 08000100 fffffffd 06000200 63000000"
    );
    assert_eq!(
        words(Message::RemoveElements(map, jump())),
        "4c000000 0e0a0100 00000000 00000000 01000000 0d000100 70616c69 73616465 00000000 \
         0d000200 68616972 70696e34 00000000 18000380 14000180 10000180 0c000100 0a000001 \
         0a000001"
    );
    assert_eq!(
        words(rule(vec![Expression::PairDispatch(Family::V4, "s".into())])),
        "c4000000 060a010c 00000000 00000000 01000000 0d000100 70616c69 73616465 00000000 \
         06000200 63000000 98000480 34000180 0c000100 7061796c 6f616400 24000280 08000100 \
         00000001 08000200 00000001 08000300 0000000c 08000400 00000004 34000180 0c000100 \
         7061796c 6f616400 24000280 08000100 00000009 08000200 00000001 08000300 00000010 \
         08000400 00000004 2c000180 0b000100 6c6f6f6b 75700000 1c000280 06000100 73000000 \
         08000200 00000001 08000300 00000000"
    );
}

#[test]
fn rules() {
    let peer = Expression::PeerIn(Direction::Ingress, Family::V4, "r".into());
    let goto = Expression::Verdict(Outcome::Goto("d".into()));
    assert_eq!(
        words(rule(vec![Expression::Family(Family::V4), peer, goto])),
        "10010000 060a010c 00000000 00000000 01000000 0d000100 70616c69 73616465 00000000 \
         06000200 63000000 e4000480 24000180 09000100 6d657461 00000000 14000280 08000200 \
         0000000f 08000100 00000001 2c000180 08000100 636d7000 20000280 08000100 00000001 \
         08000200 00000000 0c000380 05000100 02000000 34000180 0c000100 7061796c 6f616400 \
         24000280 08000100 00000001 08000200 00000001 08000300 0000000c 08000400 00000004 \
         24000180 0b000100 6c6f6f6b 75700000 14000280 06000100 72000000 08000200 00000001 \
         38000180 0e000100 696d6d65 64696174 65000000 24000280 08000100 00000000 18000280 \
         14000280 08000100 fffffffc 06000200 64000000"
    );
    let ports = vec![Expression::Protocol(6), Expression::Port(80, 90), Expression::Verdict(Outcome::Return)];
    assert_eq!(
        words(rule(ports)),
        "3c010000 060a010c 00000000 00000000 01000000 0d000100 70616c69 73616465 00000000 \
         06000200 63000000 10010480 24000180 09000100 6d657461 00000000 14000280 08000200 \
         00000010 08000100 00000001 2c000180 08000100 636d7000 20000280 08000100 00000001 \
         08000200 00000000 0c000380 05000100 06000000 34000180 0c000100 7061796c 6f616400 \
         24000280 08000100 00000001 08000200 00000002 08000300 00000002 08000400 00000002 \
         2c000180 08000100 636d7000 20000280 08000100 00000001 08000200 00000005 0c000380 \
         06000100 00500000 2c000180 08000100 636d7000 20000280 08000100 00000001 08000200 \
         00000003 0c000380 06000100 005a0000 30000180 0e000100 696d6d65 64696174 65000000 \
         1c000280 08000100 00000000 10000280 0c000280 08000100 fffffffb"
    );
    let limit = vec![Expression::Limit { rate: 200, burst: 500 }];
    assert_eq!(
        words(rule(limit)),
        "74000000 060a010c 00000000 00000000 01000000 0d000100 70616c69 73616465 00000000 \
         06000200 63000000 48000480 44000180 0a000100 6c696d69 74000000 34000280 0c000100 \
         00000000 000000c8 0c000200 00000000 00000001 08000300 000001f4 08000400 00000000 \
         08000500 00000000"
    );
    let drop = vec![Expression::Log(9, "p "), Expression::Counter, Expression::Verdict(Outcome::Drop)];
    assert_eq!(
        words(rule(drop)),
        "94000000 060a010c 00000000 00000000 01000000 0d000100 70616c69 73616465 00000000 \
         06000200 63000000 68000480 20000180 08000100 6c6f6700 14000280 06000100 00090000 \
         07000200 70200000 14000180 0c000100 636f756e 74657200 04000280 30000180 0e000100 \
         696d6d65 64696174 65000000 1c000280 08000100 00000000 10000280 0c000280 08000100 \
         00000000"
    );
    assert_eq!(
        words(rule(vec![Expression::Revoked])),
        "e4000000 060a010c 00000000 00000000 01000000 0d000100 70616c69 73616465 00000000 \
         06000200 63000000 b8000480 20000180 07000100 63740000 14000280 08000200 0000000d \
         08000100 00000001 5c000180 0c000100 62697477 69736500 4c000280 08000100 00000001 \
         08000200 00000001 08000300 00000010 18000480 14000100 00000000 00000000 00000000 \
         00000080 18000580 14000100 00000000 00000000 00000000 00000000 38000180 08000100 \
         636d7000 2c000280 08000100 00000001 08000200 00000001 18000380 14000100 00000000 \
         00000000 00000000 00000000"
    );
    assert_eq!(
        words(rule(vec![Expression::PairIn(Family::V4, "s".into())])),
        "bc000000 060a010c 00000000 00000000 01000000 0d000100 70616c69 73616465 00000000 \
         06000200 63000000 90000480 34000180 0c000100 7061796c 6f616400 24000280 08000100 \
         00000001 08000200 00000001 08000300 0000000c 08000400 00000004 34000180 0c000100 \
         7061796c 6f616400 24000280 08000100 00000009 08000200 00000001 08000300 00000010 \
         08000400 00000004 24000180 0b000100 6c6f6f6b 75700000 14000280 06000100 73000000 \
         08000200 00000001"
    );
}

#[test]
fn link_scoped_traffic() {
    let jump = || Expression::Verdict(Outcome::Jump("l".into()));
    assert_eq!(
        words(rule(vec![Expression::LinkLocal { source: true }, jump()])),
        "30010000 060a010c 00000000 00000000 01000000 0d000100 70616c69 73616465 00000000 \
         06000200 63000000 04010480 34000180 0c000100 7061796c 6f616400 24000280 08000100 \
         00000001 08000200 00000001 08000300 00000008 08000400 00000010 5c000180 0c000100 \
         62697477 69736500 4c000280 08000100 00000001 08000200 00000001 08000300 00000010 \
         18000480 14000100 ffc00000 00000000 00000000 00000000 18000580 14000100 00000000 \
         00000000 00000000 00000000 38000180 08000100 636d7000 2c000280 08000100 00000001 \
         08000200 00000000 18000380 14000100 fe800000 00000000 00000000 00000000 38000180 \
         0e000100 696d6d65 64696174 65000000 24000280 08000100 00000000 18000280 14000280 \
         08000100 fffffffd 06000200 6c000000"
    );
    assert_eq!(
        words(rule(vec![Expression::PacketType(PacketType::Multicast), jump()])),
        "b8000000 060a010c 00000000 00000000 01000000 0d000100 70616c69 73616465 00000000 \
         06000200 63000000 8c000480 24000180 09000100 6d657461 00000000 14000280 08000200 \
         00000013 08000100 00000001 2c000180 08000100 636d7000 20000280 08000100 00000001 \
         08000200 00000000 0c000380 05000100 02000000 38000180 0e000100 696d6d65 64696174 \
         65000000 24000280 08000100 00000000 18000280 14000280 08000100 fffffffd 06000200 \
         6c000000"
    );
}

#[test]
fn node_links() {
    assert_eq!(
        words(rule(vec![Expression::NoReverseRoute])),
        "84000000 060a010c 00000000 00000000 01000000 0d000100 70616c69 73616465 00000000 \
         06000200 63000000 58000480 28000180 08000100 66696200 1c000280 08000100 00000001 \
         08000200 00000001 08000300 00000029 2c000180 08000100 636d7000 20000280 08000100 \
         00000001 08000200 00000000 0c000380 08000100 00000000"
    );
    assert_eq!(
        words(rule(vec![Expression::InterfaceIs(7)])),
        "80000000 060a010c 00000000 00000000 01000000 0d000100 70616c69 73616465 00000000 \
         06000200 63000000 54000480 24000180 09000100 6d657461 00000000 14000280 08000200 \
         00000004 08000100 00000001 2c000180 08000100 636d7000 20000280 08000100 00000001 \
         08000200 00000000 0c000380 08000100 07000000"
    );
    assert_eq!(
        words(rule(vec![Expression::InterfaceIn { set: "s".into(), inverted: true }])),
        "80000000 060a010c 00000000 00000000 01000000 0d000100 70616c69 73616465 00000000 \
         06000200 63000000 54000480 24000180 09000100 6d657461 00000000 14000280 08000200 \
         00000004 08000100 00000001 2c000180 0b000100 6c6f6f6b 75700000 1c000280 06000100 \
         73000000 08000200 00000001 08000500 00000001"
    );
    assert_eq!(
        words(rule(vec![Expression::InterfacePairIn { set: "s".into(), inverted: false }])),
        "9c000000 060a010c 00000000 00000000 01000000 0d000100 70616c69 73616465 00000000 \
         06000200 63000000 70000480 24000180 09000100 6d657461 00000000 14000280 08000200 \
         00000004 08000100 00000001 24000180 09000100 6d657461 00000000 14000280 08000200 \
         00000005 08000100 00000009 24000180 0b000100 6c6f6f6b 75700000 14000280 06000100 \
         73000000 08000200 00000001"
    );
    assert_eq!(
        words(rule(vec![Expression::EtherType(0x8100), Expression::HopLimit(255)])),
        "f0000000 060a010c 00000000 00000000 01000000 0d000100 70616c69 73616465 00000000 \
         06000200 63000000 c4000480 34000180 0c000100 7061796c 6f616400 24000280 08000100 \
         00000001 08000200 00000000 08000300 0000000c 08000400 00000002 2c000180 08000100 \
         636d7000 20000280 08000100 00000001 08000200 00000000 0c000380 06000100 81000000 \
         34000180 0c000100 7061796c 6f616400 24000280 08000100 00000001 08000200 00000001 \
         08000300 00000007 08000400 00000001 2c000180 08000100 636d7000 20000280 08000100 \
         00000001 08000200 00000000 0c000380 05000100 ff000000"
    );
    let ports = node_set(NodeSet::BridgePortPairs);
    assert_eq!(
        words(Message::Bridged(Box::new(Message::CreateSet(Arc::new(ports))))),
        "60000000 090a0106 00000000 00000000 07000000 0d000100 70616c69 73616465 00000000 \
         0e000200 6f776e5f 706f7274 73000000 08000300 00000000 08000400 00000514 08000500 \
         00000008 08000a00 00000001 0a000d00 00040100 00000000"
    );
    let ports = Arc::new(node_set(NodeSet::BridgePortPairs));
    let pair = Message::AddElements(ports, vec![Element::InterfacePair(7)]);
    assert_eq!(
        words(Message::Bridged(Box::new(pair))),
        "4c000000 0c0a0104 00000000 00000000 07000000 0d000100 70616c69 73616465 00000000 \
         0e000200 6f776e5f 706f7274 73000000 18000380 14000180 10000180 0c000100 07000000 \
         07000000"
    );
    let chain = Message::CreateChain(Arc::new(Chain::base(Hook::BridgePrerouting, Vec::new())));
    assert_eq!(
        words(Message::Bridged(Box::new(chain))),
        "5c000000 030a0106 00000000 00000000 07000000 0d000100 70616c69 73616465 00000000 \
         0f000300 70726572 6f757469 6e670000 14000480 08000100 00000000 08000200 ffffff38 \
         08000500 00000001 0b000700 66696c74 65720000"
    );
}

#[test]
fn a_message_of_the_largest_elements_fits_an_attribute() {
    use palisade_policy::PolicyTableId;

    use crate::ruleset::ELEMENTS_PER_MESSAGE;

    let chain = format!("ingress_{}_6_{}", PolicyTableId([0xab; 16]), PolicyTableId([0xcd; 16]));
    let sets = BaseSets::new();
    for (target, name) in [
        (JumpTarget::Table(Direction::Ingress), &*chain),
        (JumpTarget::Hairpin, "row_egress_abababababababababababababababab"),
    ] {
        let element = Element::jump(target, "fd00::1".parse().unwrap(), name.into());
        let message = Message::AddElements(
            sets.dispatch(target, Family::V6).clone(),
            vec![element; ELEMENTS_PER_MESSAGE],
        );
        let mut bytes = Vec::new();
        encode(message).append(&mut bytes, 0, false);
        // Includes the header of 20 bytes and the names of table and set, which are not part of the list.
        assert!(bytes.len() < 1 << 16, "{target:?}: {}", bytes.len());
    }
}
