//! Denied packets: single packets, and counts.
//!
//! * [`DropEventReader`] receives single packets over nflog: addresses, ports and interfaces. Of each sender at most
//!   [`LOG_RATE`](crate::LOG_RATE) packets per second are logged, and of all together
//!   [`LOG_TOTAL_RATE`](crate::LOG_TOTAL_RATE) of each direction.
//! * [`Counters`] are exact, but contain no packets: how many each chain has dropped since it was created. [`Tally`] adds
//!   them up across chains that come and go.

mod counters;
mod events;
mod packet;

pub use counters::{Counters, Counts, Tally};
#[cfg(fuzzing)]
pub(crate) use events::fuzz;
pub use events::{DropEvent, DropEventReader, DroppedPacket};
pub use packet::{Headers, TransportHeader};
