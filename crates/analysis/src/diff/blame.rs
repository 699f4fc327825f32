//! Finds the edits that cause a difference: those whose reversal undoes it.

use palisade_policy::Traffic;

/// Returns the edits that cause the difference of two verdicts. `allowed` returns the traffic that is allowed with some
/// edits reversed; only differences in `changed` count.
///
/// An edit is a cause if reversing it alone undoes some of the difference. What no single reversal undoes, because
/// several edits have the same effect, is undone by a minimal set of them. So reversing all causes undoes all of it.
/// `O(edits)` calls of `allowed`.
pub(super) fn causes(
    edits: usize,
    changed: &Traffic,
    mut allowed: impl FnMut(&[bool]) -> Traffic,
) -> Vec<usize> {
    let is = allowed(&vec![false; edits]);
    let was = allowed(&vec![true; edits]);
    let mut left = either(&is, &was).intersection(changed);
    if left.is_none() {
        return Vec::new();
    }
    if edits == 1 {
        return vec![0];
    }
    let mut found = Vec::new();
    for edit in 0..edits {
        let mut reversed = vec![false; edits];
        reversed[edit] = true;
        let undone = either(&is, &allowed(&reversed)).intersection(changed).intersection(&either(&is, &was));
        if !undone.is_none() {
            found.push(edit);
            left = left.difference(&undone);
        }
    }
    if !left.is_none() {
        let mut reversed = vec![true; edits];
        for edit in 0..edits {
            reversed[edit] = false;
            if !either(&was, &allowed(&reversed)).intersection(&left).is_none() {
                reversed[edit] = true;
            }
        }
        found.extend((0..edits).filter(|edit| reversed[*edit]));
        found.sort_unstable();
        found.dedup();
    }
    found
}

/// Returns the traffic that is in exactly one of two sets.
fn either(a: &Traffic, b: &Traffic) -> Traffic {
    a.difference(b).union(&b.difference(a))
}

#[cfg(test)]
mod tests {
    use palisade_policy::{PortSet, Protocol};

    use super::*;

    fn tcp(first: u16, last: u16) -> Traffic {
        Traffic::of(Protocol::Tcp, PortSet::range(first, last))
    }

    #[test]
    fn an_edit_whose_reversal_undoes_the_difference_is_the_cause() {
        let only = |reversed: &[bool]| if reversed[1] { tcp(80, 80) } else { tcp(80, 90) };
        assert_eq!(causes(3, &Traffic::all(), only), [1]);
    }

    #[test]
    fn edits_that_are_only_effective_together_are_causes_each() {
        let both = |reversed: &[bool]| if reversed[0] || reversed[2] { Traffic::none() } else { tcp(1, 2) };
        assert_eq!(causes(3, &Traffic::all(), both), [0, 2]);
    }

    #[test]
    fn edits_with_the_same_effect_are_causes_together() {
        let same = |reversed: &[bool]| if reversed[0] && reversed[2] { Traffic::none() } else { tcp(1, 2) };
        assert_eq!(causes(3, &Traffic::all(), same), [0, 2]);
    }

    #[test]
    fn each_port_has_its_cause() {
        let each = |reversed: &[bool]| {
            let of = |edit: usize, port| if reversed[edit] { Traffic::none() } else { tcp(port, port) };
            of(0, 1).union(&of(1, 2))
        };
        assert_eq!(causes(2, &Traffic::all(), each), [0, 1]);
        assert_eq!(causes(2, &tcp(2, 2), each), [1]);
        assert!(causes(2, &tcp(3, 3), each).is_empty());
    }
}
