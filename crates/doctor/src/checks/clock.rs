//! `clock`: whether the clock agrees with the API server's.

use palisade_api::Rights;

use crate::finding::Outcome;

/// The largest difference between the clocks in seconds. Certificates, tokens and leases are valid for limited times.
const MAX_DIFFERENCE: i64 = 30;

pub(super) fn check(rights: &Rights) -> Outcome {
    match rights.clock_ahead {
        Some(ahead) if ahead.abs() <= MAX_DIFFERENCE => {
            Outcome::ok("this machine's clock agrees with the API server's")
        }
        Some(ahead) => Outcome::warn(
            format!(
                "this machine's clock is {} s {} the API server's",
                ahead.abs(),
                if ahead > 0 { "ahead of" } else { "behind" }
            ),
            "synchronize the clocks (NTP): certificates and tokens are valid for limited times",
        ),
        None => Outcome::unknown("the API server's replies have no date", "compare the clocks by hand"),
    }
}
