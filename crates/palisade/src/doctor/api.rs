//! What the API server says.

use palisade_agent::doctor::{Check, Status};
use palisade_api::{
    Access, AccessError, Rights,
    rights::{Purpose, RightsError},
};

/// How far the clocks may be apart, in seconds: certificates and tokens are valid by time, leases too.
const APART: i64 = 30;

const SERVER: &str = "api-server";

pub(super) fn checks(access: &Access) -> Vec<Check> {
    match Rights::ask_blocking(access) {
        Ok(rights) => findings(&rights),
        Err(RightsError::Access(AccessError::NoCluster)) => vec![Check::of(
            SERVER,
            Status::Unknown,
            "no cluster to ask: no kubeconfig and no service account",
            "set KUBECONFIG or name one with --kubeconfig; --offline leaves this out",
        )],
        Err(error) => vec![Check::of(
            SERVER,
            Status::Fail,
            format!("{:#}", anyhow::Error::new(error)),
            "make the API server reachable from this node with these credentials; until then the agent keeps the last rules",
        )],
    }
}

fn findings(rights: &Rights) -> Vec<Check> {
    let mut out = vec![Check::ok(SERVER, format!("{} answers at {}", rights.version, rights.server))];
    out.push(match rights.ahead {
        Some(ahead) if ahead.abs() <= APART => {
            Check::ok("clock", "this machine's clock agrees with the API server's")
        }
        Some(ahead) => Check::of(
            "clock",
            Status::Warn,
            format!(
                "this machine's clock is {} s {} the API server's",
                ahead.abs(),
                if ahead > 0 { "ahead of" } else { "behind" }
            ),
            "synchronise the clocks (NTP): certificates and tokens are valid by time",
        ),
        None => Check::of(
            "clock",
            Status::Unknown,
            "the API server does not tell the time",
            "compare the clocks by hand",
        ),
    });
    out.push(match &rights.served[..] {
        [] => Check::ok("api-policies", "NetworkPolicy is served, and no cluster-wide policy kind"),
        served => {
            let kinds: Vec<String> =
                served.iter().map(|(kind, versions)| format!("{kind} ({})", versions.join(", "))).collect();
            Check::ok("api-policies", format!("NetworkPolicy is served, and {}", kinds.join(", ")))
        }
    });
    let may = |id, purpose, status, without: &str, cure: &str| {
        let of = || rights.rights.iter().filter(|right| right.purpose == purpose);
        let missing: Vec<String> = of().filter(|right| !right.allowed).map(ToString::to_string).collect();
        if missing.is_empty() {
            Check::ok(id, format!("all {} rights are there", of().count()))
        } else {
            Check::of(id, status, format!("may not {}: {without}", missing.join(", may not ")), cure)
        }
    };
    out.push(may(
        "api-rights",
        Purpose::Enforcing,
        Status::Fail,
        "an agent with these rights never programs a first rule",
        "bind the ClusterRole palisade-agent to the agent's service account (deploy/)",
    ));
    out.push(may(
        "api-reporting",
        Purpose::Reporting,
        Status::Warn,
        "an agent with these rights reports nothing in the cluster",
        "bind the ClusterRole and Role palisade-agent, or switch --report-status off",
    ));
    out
}

#[cfg(test)]
mod tests {
    use palisade_api::{Kind, rights::Right};

    use super::*;

    #[test]
    fn what_is_missing_is_named_by_its_weight() {
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
            ahead: Some(-3600),
            served: vec![(Kind::ClusterNetworkPolicy, vec!["v1alpha2".to_owned()])],
            rights: vec![right(Purpose::Enforcing, "list", true), right(Purpose::Enforcing, "watch", false)],
        };
        let found = findings(&rights);
        let of = |id: &str| found.iter().find(|check| check.id == id).map(|c| (c.status, &*c.found));
        let (status, words) = of("api-rights").expect("it is checked");
        assert!(status == Status::Fail && words.starts_with("may not watch pods: "), "{words}");
        assert_eq!(
            of("clock"),
            Some((Status::Warn, "this machine's clock is 3600 s behind the API server's"))
        );
        assert_eq!(
            of("api-policies"),
            Some((Status::Ok, "NetworkPolicy is served, and ClusterNetworkPolicy (v1alpha2)"))
        );
        assert_eq!(of("api-reporting").map(|(status, _)| status), Some(Status::Ok));
        rights.rights = vec![right(Purpose::Reporting, "create", false)];
        let found = findings(&rights);
        assert!(found.iter().any(|c| c.id == "api-reporting" && c.status == Status::Warn));
    }
}
