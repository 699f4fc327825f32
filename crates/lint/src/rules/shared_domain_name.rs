//! `shared-domain-name`: finds domain names that cover every customer of a cloud or content delivery network.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::{DomainPattern, Peer};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL069",
    name: "shared-domain-name",
    level: Level::Warning,
    what: "Finds wildcards in domainNames that cover every customer of a cloud, a hosting service or a content delivery network.",
    why: "Below these names, anybody can have a host: *.s3.amazonaws.com has the buckets of everybody, and *.github.io the pages of everybody. A pod that is allowed to reach all of them can send data to anyone. List the hosts that are meant.",
    fix: None,
    bad: BAD,
    good: GOOD,
    check,
};

const BAD: &str = concat!(
    shop!(),
    r#"apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: storage}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: shop}}}
  egress:
  - action: Accept
    to: [{domainNames: ["*.s3.eu-west-1.amazonaws.com"]}]
"#
);

const GOOD: &str = concat!(
    shop!(),
    r#"apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: storage}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: shop}}}
  egress:
  - action: Accept
    to: [{domainNames: [shop-receipts.s3.eu-west-1.amazonaws.com]}]
"#
);

/// Names below which customers have hosts, without regions, and whose they are. Each is on its provider's pages about endpoints or
/// custom domains, and most are in the private section of the Public Suffix List.
const SHARED: [(&str, &str); 40] = [
    ("akamaiedge.net", "Akamai"),
    ("akamaized.net", "Akamai"),
    ("edgekey.net", "Akamai"),
    ("edgesuite.net", "Akamai"),
    ("cloudfront.net", "Amazon CloudFront"),
    ("awsapps.com", "Amazon Web Services"),
    ("awsglobalaccelerator.com", "Amazon Web Services"),
    ("compute.amazonaws.com", "Amazon Web Services"),
    ("elb.amazonaws.com", "Amazon Web Services"),
    ("execute-api.amazonaws.com", "Amazon Web Services"),
    ("s3.amazonaws.com", "Amazon S3"),
    ("elasticbeanstalk.com", "Amazon Web Services"),
    ("on.aws", "Amazon Web Services"),
    ("azureedge.net", "Azure"),
    ("azurefd.net", "Azure"),
    ("azurewebsites.net", "Azure"),
    ("blob.core.windows.net", "Azure Storage"),
    ("cloudapp.azure.com", "Azure"),
    ("cloudapp.net", "Azure"),
    ("trafficmanager.net", "Azure"),
    ("r2.cloudflarestorage.com", "Cloudflare"),
    ("pages.dev", "Cloudflare"),
    ("r2.dev", "Cloudflare"),
    ("workers.dev", "Cloudflare"),
    ("digitaloceanspaces.com", "DigitalOcean"),
    ("ondigitalocean.app", "DigitalOcean"),
    ("fastly.net", "Fastly"),
    ("fastlylb.net", "Fastly"),
    ("github.io", "GitHub"),
    ("githubusercontent.com", "GitHub"),
    ("appspot.com", "Google Cloud"),
    ("cloudfunctions.net", "Google Cloud"),
    ("firebaseapp.com", "Google Cloud"),
    ("googleusercontent.com", "Google Cloud"),
    ("run.app", "Google Cloud"),
    ("storage.googleapis.com", "Google Cloud Storage"),
    ("web.app", "Google Cloud"),
    ("herokuapp.com", "Heroku"),
    ("netlify.app", "Netlify"),
    ("vercel.app", "Vercel"),
];

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = Vec::new();
    for (policy, _, rule) in cx.rules() {
        for entry in rule.peers.iter().flatten() {
            let Peer::DomainName(pattern) = &entry.peer else { continue };
            let Some(provider) = provider(pattern) else { continue };
            let message = format!(
                "`{pattern}` has the hosts of every customer of {provider}: its pods can send data to anyone there; list \
                 the hosts that are meant"
            );
            out.push(Found::of(&policy.key, entry.origin.as_ref().or(rule.origin.as_ref()), message));
        }
    }
    out
}

/// Returns the provider whose customers all have hosts that a pattern matches.
fn provider(pattern: &DomainPattern) -> Option<&'static str> {
    if !pattern.is_wildcard() {
        return None;
    }
    // With a region, `s3.eu-west-1.amazonaws.com`, it has the customers of this region.
    let labels = pattern.name().split('.').filter(|label| !is_region(label));
    let suffix = labels.collect::<Vec<_>>().join(".");
    // `*.windows.net` covers `*.blob.core.windows.net`.
    let covers =
        |shared: &str| shared.strip_suffix(&*suffix).is_some_and(|l| l.is_empty() || l.ends_with('.'));
    SHARED.iter().find(|(shared, _)| covers(shared)).map(|(_, provider)| *provider)
}

/// Returns whether a label is the name of a region: `eu-west-1`, `us-gov-east-1`; or a variant of a service's name.
fn is_region(label: &str) -> bool {
    let mut words = label.split('-');
    let number = words.next_back().unwrap_or_default();
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let first = words.next().unwrap_or_default();
    let known = first.len() == 2
        && words.clone().next().is_some()
        && words.all(|w| w.bytes().all(|b| b.is_ascii_lowercase()));
    label == "dualstack" || (digits && known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_over_the_hosts_of_all_customers_are_found() {
        let of = |text: &str| provider(&DomainPattern::new(text));
        for shared in [
            "*.amazonaws.com",
            "*.s3.amazonaws.com",
            "*.s3.eu-west-1.amazonaws.com",
            "*.s3.dualstack.us-gov-east-1.amazonaws.com",
            "*.eu-west-1.amazonaws.com",
            "*.CloudFront.net.",
            "*.azureedge.net",
            "*.windows.net",
            "*.core.windows.net",
            "*.googleapis.com",
            "*.github.io",
        ] {
            assert!(of(shared).is_some(), "{shared}");
        }
        for own in [
            "*.example.com",
            "d111111abcdef8.cloudfront.net",
            "*.receipts.s3.amazonaws.com",
            "*.shop.github.io",
            "amazonaws.com",
            "*.notamazonaws.com",
            "*.s3.example.com",
            "*.eu-west-1.example.com",
            "*.aws.example.com",
        ] {
            assert_eq!(of(own), None, "{own}");
        }
    }
}
