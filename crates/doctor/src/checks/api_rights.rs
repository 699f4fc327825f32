//! `api-rights`, `api-services` and `api-reporting`: what the credentials may do.

use palisade_api::{Rights, rights::Purpose};

use crate::finding::{Outcome, Status};

/// Whether everything that decisions need may be listed and watched.
pub(super) fn enforcing(rights: &Rights) -> Outcome {
    check(
        rights,
        Purpose::Enforcing,
        Status::Fail,
        "an agent with these rights never programs its first rules",
        "bind the ClusterRole palisade-agent to the agent's service account (deploy/)",
    )
}

/// Whether Services may be listed and watched. Only some settings need them, and what these are is not known here.
pub(super) fn services(rights: &Rights) -> Outcome {
    let outcome = check(
        rights,
        Purpose::Services,
        Status::Ok,
        "needed only with --domain-names=on (no DNS server is trusted without) and with --flows=new or all (records don't name Services without)",
        "",
    );
    Outcome { cure: None, ..outcome }
}

/// Whether Events, conditions and the Lease may be written.
pub(super) fn reporting(rights: &Rights) -> Outcome {
    check(
        rights,
        Purpose::Reporting,
        Status::Warn,
        "an agent with these rights reports nothing in the cluster",
        "bind the ClusterRole and Role palisade-agent, or run the agent with --report-status=false",
    )
}

fn check(rights: &Rights, purpose: Purpose, status: Status, consequence: &str, cure: &str) -> Outcome {
    let needed = || rights.rights.iter().filter(|right| right.purpose == purpose);
    let missing: Vec<String> = needed().filter(|right| !right.allowed).map(ToString::to_string).collect();
    if missing.is_empty() {
        return Outcome::ok(format!("all {} rights are granted", needed().count()));
    }
    let found = format!("may not {}: {consequence}", missing.join(", may not "));
    Outcome { status, found, cure: Some(cure.to_owned()) }
}

#[cfg(test)]
mod tests {
    use palisade_api::{ResourceKind, rights::Right};

    use super::*;
    use crate::checks::{api_policies, clock};

    #[test]
    fn missing_rights_are_named() {
        let right = |purpose, verb, allowed| Right {
            purpose,
            verb,
            group: "",
            resource: "pods",
            namespace: None,
            name: None,
            allowed,
        };
        let mut rights = Rights {
            server: "https://10.0.0.1/".to_owned(),
            version: "v1.33.1".to_owned(),
            clock_ahead: Some(-3600),
            served: vec![(ResourceKind::ClusterNetworkPolicy, vec!["v1alpha2".to_owned()])],
            rights: vec![right(Purpose::Enforcing, "list", true), right(Purpose::Enforcing, "watch", false)],
        };
        let outcome = enforcing(&rights);
        assert!(
            outcome.status == Status::Fail && outcome.found.starts_with("may not watch pods: "),
            "{outcome:?}"
        );
        let outcome = clock::check(&rights);
        assert_eq!(
            (outcome.status, &*outcome.found),
            (Status::Warn, "this machine's clock is 3600 s behind the API server's")
        );
        let outcome = api_policies::check(&rights);
        assert_eq!(
            (outcome.status, &*outcome.found),
            (Status::Ok, "NetworkPolicy is served, and ClusterNetworkPolicy (v1alpha2)")
        );
        assert_eq!(reporting(&rights).status, Status::Ok);
        let services =
            services(&Rights { rights: vec![right(Purpose::Services, "list", false)], ..rights.clone() });
        assert!(
            services.status == Status::Ok
                && services.found.starts_with("may not list pods: needed only with --domain-names=on"),
            "{services:?}"
        );
        rights.rights = vec![right(Purpose::Reporting, "create", false)];
        assert_eq!(reporting(&rights).status, Status::Warn);
    }
}
