//! The words by which two peers, ports or selectors differ.

use palisade_policy::{NamespaceMatch, Peer, PortMatch, Selector, Test};

/// An old word and a new one.
type Words = (String, String);

/// Returns the word to replace where two peers differ by one word; empty if they differ otherwise.
pub(crate) fn of_peers(old: &Peer, new: &Peer) -> Vec<Words> {
    match (old, new) {
        (Peer::Pods(old), Peer::Pods(new)) => {
            let pods = of_selectors(&old.pods, &new.pods);
            let namespaces = match (&old.namespaces, &new.namespaces) {
                (NamespaceMatch::Selected(old), NamespaceMatch::Selected(new)) => of_selectors(old, new),
                _ => Vec::new(),
            };
            pods.into_iter().chain(namespaces).collect()
        }
        (Peer::Nodes(old), Peer::Nodes(new)) => of_selectors(old, new),
        _ => Vec::new(),
    }
}

/// Returns the words of two selectors that differ in one requirement.
pub(crate) fn of_selectors(old: &Selector, new: &Selector) -> Vec<Words> {
    let only = |a: &Selector, b: &Selector| -> Vec<_> {
        a.requirements().iter().filter(|r| !b.requirements().contains(r)).cloned().collect()
    };
    let (gone, added) = (only(old, new), only(new, old));
    let ([gone], [added]) = (&gone[..], &added[..]) else { return Vec::new() };
    let (Test::In(from), Test::In(to)) = (&gone.test, &added.test) else { return Vec::new() };
    match (gone.key == added.key, from == to) {
        (false, true) => vec![(gone.key.to_string(), added.key.to_string())],
        (true, false) => {
            let gone: Vec<_> = from.difference(to).collect();
            let added: Vec<_> = to.difference(from).collect();
            match (&gone[..], &added[..]) {
                ([gone], [added]) => vec![(gone.to_string(), added.to_string())],
                _ => Vec::new(),
            }
        }
        _ => Vec::new(),
    }
}

/// Returns the words of two ports.
pub(crate) fn of_ports(old: &PortMatch, new: &PortMatch) -> Vec<Words> {
    let number = |port: &PortMatch| match port {
        PortMatch::Numbers { first, last, .. } if first == last => Some(first.to_string()),
        PortMatch::Numbers { .. } => None,
        PortMatch::Named { name, .. } => Some(name.to_string()),
    };
    let protocol = |port: &PortMatch| match port {
        PortMatch::Numbers { protocol, .. } => Some(*protocol),
        PortMatch::Named { protocol, .. } => *protocol,
    };
    match (number(old), number(new)) {
        (Some(a), Some(b)) if protocol(old) == protocol(new) => vec![(a, b)],
        (a, b) if a == b => match (protocol(old), protocol(new)) {
            (Some(a), Some(b)) => vec![(a.to_string(), b.to_string())],
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use palisade_policy::Protocol;

    use super::*;

    #[test]
    fn one_word_differs() {
        let of = |pairs: &[(&'static str, &'static str)]| Selector::of_labels(pairs.iter().copied());
        let words = |a: &str, b: &str| vec![(a.to_owned(), b.to_owned())];
        assert_eq!(of_selectors(&of(&[("app", "cart")]), &of(&[("app", "carts")])), words("cart", "carts"));
        assert_eq!(
            of_selectors(&of(&[("name", "shop"), ("a", "b")]), &of(&[("a", "b"), ("x", "shop")])),
            words("name", "x")
        );
        assert!(of_selectors(&of(&[("a", "b")]), &of(&[("c", "d")])).is_empty());
        assert!(of_selectors(&of(&[("a", "b")]), &of(&[("a", "b"), ("c", "d")])).is_empty());
    }

    #[test]
    fn numbers_names_and_protocols() {
        let tcp = |n| PortMatch::Numbers { protocol: Protocol::Tcp, first: n, last: n };
        let udp = PortMatch::Numbers { protocol: Protocol::Udp, first: 53, last: 53 };
        assert_eq!(of_ports(&tcp(80), &tcp(8080)), vec![("80".to_owned(), "8080".to_owned())]);
        assert_eq!(of_ports(&tcp(53), &udp), vec![("TCP".to_owned(), "UDP".to_owned())]);
        let named = PortMatch::Named { protocol: Some(Protocol::Tcp), name: "web".into() };
        assert_eq!(of_ports(&named, &tcp(8080)), vec![("web".to_owned(), "8080".to_owned())]);
    }
}
