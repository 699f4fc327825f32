//! The messages that transactions consist of.

use std::sync::Arc;

use super::{Chain, Element, Name, Set};

/// The most elements of one message: the largest element takes 124 bytes, a netlink attribute holds at most 64 KiB.
pub(crate) const ELEMENTS_PER_MESSAGE: usize = 500;

/// One message of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// Creates the table.
    CreateTable,
    /// Clears the flags of a dormant table.
    WakeTable,
    /// Deletes the table with its content.
    DeleteTable,
    /// Creates a set.
    CreateSet(Arc<Set>),
    /// Deletes a set that no rule uses.
    DeleteSet(Name),
    /// Adds at most [`ELEMENTS_PER_MESSAGE`] elements.
    AddElements(Arc<Set>, Vec<Element>),
    /// Removes at most [`ELEMENTS_PER_MESSAGE`] elements.
    RemoveElements(Arc<Set>, Vec<Element>),
    /// Removes all elements of a set.
    FlushSet(Name),
    /// Creates a chain without rules.
    CreateChain(Arc<Chain>),
    /// Appends the rule with this index to its chain.
    AddRule(Arc<Chain>, usize),
    /// Deletes all rules of a chain.
    FlushChain(Name),
    /// Deletes a chain to which no rule jumps.
    DeleteChain(Name),
    /// Deletes a stateful object by its `NFT_OBJECT_*` type and name. The agent creates none.
    DeleteObject(u32, Name),
    /// Deletes a flow table. The agent creates none.
    DeleteFlowTable(Name),
    /// One of these in the table `bridge palisade`.
    Bridged(Box<Message>),
}

impl Message {
    /// Returns the messages that create a chain with its rules.
    pub(crate) fn create_chain(chain: &Arc<Chain>) -> impl Iterator<Item = Self> {
        [Self::CreateChain(chain.clone())].into_iter().chain(Self::add_rules(chain))
    }

    /// Returns the messages that append all rules of a chain.
    pub(crate) fn add_rules(chain: &Arc<Chain>) -> impl Iterator<Item = Self> {
        let chain = chain.clone();
        (0..chain.rules.len()).map(move |index| Self::AddRule(chain.clone(), index))
    }
}
