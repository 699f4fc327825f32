//! Addresses of host names, learned from answers of DNS servers.
//!
//! The core of a DNS proxy: functions and values without sockets and without a clock. Time is an argument.
//!
//! ```text
//!  query of a pod ──► Exchanges::ask ──────────────────────────────► to the server that it asked
//!                      trusted server? bounds of the pod
//!
//!  answer ──────────► Exchanges::answer ──► Answer ──► LearnedNames::learn ──► Change ──► compiler, kernel
//!                      id, question, source   │ chain of CNAMEs     names of rules, bounds,       │
//!                                             │                     addresses that may be learned │
//!                                             └──────── released to the pod after the commit ◄────┘
//!
//!  LearnedNames ──► encode ──► file ──► decode ──► LearnedNames, after a restart
//! ```
//!
//! Who sends what is hostile: pods send queries, and the owner of a zone decides what answers contain. So every
//! collection has a bound, and what is not understood is not learned.

#![forbid(unsafe_code)]

mod answer;
mod chain;
mod connections;
mod exchange;
mod framing;
mod learnable;
mod learned;
mod patterns;
mod query;
mod rate;
mod shares;
mod state;
mod stream;

pub use answer::{Answer, BadAnswer};
pub use chain::BadRecords;
pub use connections::{ConnectionLimits, Connections, Segment, Step};
pub use exchange::{Asked, Ends, ExchangeLimits, Exchanges, Refused};
pub use framing::{BadFrame, Frames, frame};
pub use learnable::{Learnable, NotLearnable};
pub use learned::{LearnLimits, LearnedNames, Outcome};
pub use patterns::Patterns;
pub use query::{BadQuery, Query};
pub use state::{BadState, decode, encode};

/// Seconds since 1970-01-01. The state on disk outlives the process, so a clock that begins with it wouldn't do.
pub type Seconds = u64;

/// The longest DNS message, which the length before a message on TCP limits (RFC 1035, section 4.2.2).
pub const MAX_MESSAGE: usize = 65_535;
