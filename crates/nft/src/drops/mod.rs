//! Which packets were denied, and how many.
//!
//! * [`Reader`] hears of single packets over nflog: who, to whom, on which port, over which interface. The rules report at
//!   most [`LOG_RATE`](crate::LOG_RATE) a second each.
//! * [`Counters`] are exact and know no packets: how many each chain has dropped since it was made. [`Tally`] adds them
//!   up over chains that come and go.

mod counters;
mod packet;
mod reader;

pub use counters::{Counters, Counts, Tally};
pub use packet::{Headers, Transport};
pub use reader::{Drop, Event, Reader};
