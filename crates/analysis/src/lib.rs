//! Questions about a whole cluster.
//!
//! [`palisade_policy::reference`] decides one connection. This crate answers for all of them at once:
//! * [`Connections`]: all allowed connections between workloads and with the outside.
//! * [`describe()`]: a workload's connections, the policies behind them, and its exposure.
//! * [`overview()`]: for each workload, whether policies isolate it, and whether it reaches DNS and the internet.
//! * [`diff()`]: the connections that a change of the cluster allows or denies, and the edits that cause it.
//! * [`assertion::check`]: whether an assertion holds, for pods that exist and for those that may.
//! * [`replay::judge`]: what the policies decide about recorded connections.
//! * [`suggest::suggest`]: policies that allow the connections that were seen.
//! * [`explain()`]: what decides the connections between two ends; [`edit`]: what would change the verdict.
//!
//! All results are values: nothing here prints or reads files. The meaning of policies is in the policy crate. Whole
//! clusters are affordable because pods that no policy distinguishes are evaluated once (module `reach`).

#![forbid(unsafe_code)]

pub mod alike;
pub mod assertion;
pub mod causes;
mod classes;
mod connections;
mod controller;
mod cover;
pub mod describe;
pub mod diff;
pub mod edit;
mod end;
pub mod explain;
pub mod exposure;
mod families;
mod fold;
mod grouping;
mod hypothetical;
mod judge;
mod matching;
mod numbering;
pub mod overview;
mod places;
mod public;
mod query;
mod reach;
mod reasons;
pub mod regions;
pub mod replay;
mod representative;
pub mod shape;
mod space;
pub mod suggest;
mod traffics;

pub use connections::{Connections, Edge, UnaffectedPod, UndecidedEdge};
pub use controller::{BlockedTraffic, ControllerRoutes};
pub use describe::{Description, describe};
pub use diff::{Diff, DiffSide, UndecidedChange, diff};
pub use end::{ConnectionEnd, ExternalRanges, NodeAddresses, WorkloadPods};
pub use explain::{Explanation, explain};
pub use exposure::{Exposure, PodSet, exposure, exposure_change};
pub use families::Families;
pub use fold::{EdgeLabels, FoldSelection, FoldedConnections, FoldedEdge};
pub use judge::{AddressQuestion, Judge, JudgedSide, Judgement, Questions};
pub use overview::{Overview, overview};
pub use query::{ConnectionsOptions, EndFilter, GroupBy};
pub use reasons::{EdgeReasons, Reasoner};
