//! No policy has a rule: nothing was meant to be allowed.

use super::{
    Finding,
    case::{Case, short_text},
};

pub(crate) fn find(case: &Case<'_>) -> Vec<Finding> {
    let mut isolating = case.walk.policies.iter().filter(|step| step.tier == super::tier()).peekable();
    if !case.is_denied || isolating.peek().is_none() || isolating.clone().any(|step| !step.rules.is_empty()) {
        return Vec::new();
    }
    let origin = isolating.peek().and_then(|step| step.origin.clone());
    let names: Vec<String> = isolating.map(|step| step.policy.to_string()).collect();
    let verb = if names.len() == 1 { "isolates" } else { "isolate" };
    vec![Finding {
        code: "no-rule",
        text: format!(
            "{} {verb} {} for {}, and no policy has a rule that allows anything",
            names.join(" and "),
            short_text(case.subject),
            case.direction
        ),
        origin,
        mend: None,
    }]
}
