//! `palisade report` as users run it. What a browser does with the page, `.ci/steps/pages` checks.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

mod support;

use std::{collections::BTreeSet, fs};

use serde_json::Value;
use support::{answer, palisade, refused, run};
use tempfile::TempDir;

fn json(words: &str) -> Value {
    serde_json::from_str(&answer(0, &format!("report {words} -o json"))).unwrap()
}

fn number(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

/// Returns the pairs of a list of links, with their ports and families.
fn pairs(report: &Value, links: &str) -> BTreeSet<(String, String, String)> {
    let ends = report["ends"].as_array().unwrap();
    let set = |at: &Value| -> Vec<usize> {
        let runs = report["sets"][number(at)].as_array().unwrap();
        runs.iter().flat_map(|run| number(&run[0])..=number(&run[1])).collect()
    };
    let families = |value: &Value| -> Vec<String> {
        let named: Vec<String> =
            value.as_array().into_iter().flatten().map(|f| f.as_str().unwrap().to_owned()).collect();
        if named.is_empty() { vec!["IPv4".to_owned(), "IPv6".to_owned()] } else { named }
    };
    let mut out = BTreeSet::new();
    for link in report[links].as_array().unwrap() {
        let mut count = 0;
        for from in set(&link["from"]) {
            for to in set(&link["to"]) {
                let of = [&link["families"], &ends[from]["families"], &ends[to]["families"]].map(families);
                let shared: Vec<&String> =
                    of[0].iter().filter(|f| of[1].contains(f) && of[2].contains(f)).collect();
                if (from == to && ends[from]["several"] == false) || shared.is_empty() {
                    continue;
                }
                count += 1;
                let id = |end: usize| ends[end]["id"].as_str().unwrap().to_owned();
                let ports = &report["traffics"][number(&link["traffic"])]["ports"];
                assert!(out.insert((id(from), id(to), format!("{ports} {shared:?}"))), "a pair twice");
            }
        }
        assert_eq!(number(&link["pairs"]), count, "{link}");
    }
    out
}

/// The report says what `connections` says, and has a reason for each pair that is allowed or denied.
#[test]
fn links_are_the_connections() {
    for input in ["examples/shop", "examples/tiers", "examples/control-egress", "examples/segment"] {
        let report = json(&format!("-f {input}"));
        for (lists, option) in
            [(vec!["allowed"], ""), (vec!["denied_egress", "denied_ingress"], " --only-denied")]
        {
            let words = format!("connections -f {input} --no-fold -o json{option}");
            let all: Value = serde_json::from_str(&answer(0, &words)).unwrap();
            let expected: BTreeSet<_> = all["connections"]
                .as_array()
                .unwrap()
                .iter()
                .map(|c| {
                    let text = |field: &str| c[field].as_str().unwrap().to_owned();
                    let families: Vec<String> = serde_json::from_value(c["families"].clone()).unwrap();
                    (text("from"), text("to"), format!("{} {families:?}", c["ports"]))
                })
                .collect();
            let found: BTreeSet<_> = lists.iter().flat_map(|links| pairs(&report, links)).collect();
            assert_eq!(found, expected, "{input} {lists:?}");
            for links in lists {
                for link in report[links].as_array().unwrap() {
                    let reasons = &report["reasons"][number(&link["reasons"])];
                    let named = ["egress", "ingress"].map(|side| reasons[side].as_array().unwrap().len());
                    let of = match links {
                        "denied_egress" => &named[..1],
                        "denied_ingress" => &named[1..],
                        _ => &named[..],
                    };
                    assert!(of.iter().sum::<usize>() > 0, "{input}: {link}");
                    assert!(links == "allowed" || named.contains(&0), "{input}: one side's reasons: {link}");
                }
            }
        }
        assert!(number(&report["counts"]["connections"]) > 0);
    }
}

#[test]
fn reasons_lead_to_the_lines_that_decide() {
    let report = json("-f examples/shop");
    let deciders = report["deciders"].as_array().unwrap();
    let rule = deciders.iter().find(|d| d["text"].as_str().unwrap().contains("backend-egress, egress[0]"));
    let source = &report["sources"][number(&rule.unwrap()["sources"][0])];
    assert_eq!(source["file"], "examples/shop/backend-egress.yaml");
    let written = fs::read_to_string(support::root().join("examples/shop/backend-egress.yaml")).unwrap();
    let first = written.lines().nth(number(&source["line"]) - 1).unwrap();
    assert_eq!(source["lines"][0], first.trim_start());
    let policies = report["policies"].as_array().unwrap();
    let egress = policies.iter().find(|p| p["name"] == "NetworkPolicy shop/backend-egress").unwrap();
    assert_eq!((&egress["connections"], &egress["alone"]), (&1.into(), &1.into()));
    assert_eq!(egress["selects"][0], "shop/deployment/backend");
}

#[test]
fn policies_without_effect_are_first_and_say_why() {
    let report = json("-f crates/palisade/tests/cases/describe/idle.yaml");
    let policies = report["policies"].as_array().unwrap();
    assert_eq!(policies[0]["selects"].as_array().unwrap().len(), 0, "{}", policies[0]);
    let web = policies.iter().find(|p| p["name"] == "NetworkPolicy shop/web").unwrap();
    let text = web["does_nothing"].to_string();
    assert!(text.contains("did you mean app=gateway?"), "{text}");
    assert!(report["findings"].as_array().unwrap().iter().any(|f| f["level"] == "warning"));
}

/// The data of the page is what `-o json` prints, and the same input gives the same bytes.
#[test]
fn the_page_has_its_data_and_its_tables() {
    let page = answer(0, "report -f examples/tiers");
    assert_eq!(page, answer(0, "report -f examples/tiers -o html"));
    let data = page.split("id=\"data\">").nth(1).unwrap().split("</script>").next().unwrap();
    assert_eq!(serde_json::from_str::<Value>(data).unwrap(), json("-f examples/tiers"));
    let yaml: Value = serde_saphyr::from_str(&answer(0, "report -f examples/tiers -o yaml")).unwrap();
    assert_eq!(yaml, json("-f examples/tiers"));
    for part in [
        "<th scope=\"row\">monitoring</th>",
        "<th scope=\"row\">shop/deployment/web",
        "ClusterNetworkPolicy guardrails",
        "default-src 'none'",
    ] {
        assert!(page.contains(part), "no {part}");
    }
    assert!(!page.contains("unsafe-inline") && !page.contains("://") && !page.contains(" src="));
}

#[test]
fn nothing_from_a_manifest_is_markup() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("<script>window.x=1<script>'.yaml");
    let name = "</script><script>alert(1)</script><!--<img src=x onerror=a()>\\\"\\u2028\\u202e\\u001b[31m";
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  namespace: shop\n  labels: {{app: a}}\n  ownerReferences:\n  \
         - {{apiVersion: x/v1, kind: \"{name}\", name: \"{name}\", uid: u}}\nspec: {{containers: [{{name: c, image: i}}]}}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {{name: b, namespace: shop, labels: {{app: b}}}}\nspec: {{containers: [{{name: c, image: i}}]}}\n\
         ---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: shop}}\nspec:\n  \
         podSelector: {{matchLabels: {{app: a}}}}\n  ingress:\n  - from: # </script><script>alert(1)</script>\n    \
         - podSelector: {{matchLabels: {{app: b}}}}\n"
    );
    fs::write(&file, manifest).unwrap();
    let (code, page, err) = run(palisade("report -f").arg(dir.path()));
    assert_eq!(code, 0, "{err}");
    assert_eq!(page.matches("<script").count(), 2, "the data and the script");
    assert_eq!(page.matches("</script").count(), 2);
    for forbidden in ["<img", "<!--", "\u{1b}", "\u{2028}", "\u{202e}"] {
        assert!(!page.contains(forbidden), "{forbidden:?}");
    }
    assert!(page.contains("&lt;/script&gt;&lt;script&gt;alert(1)"), "the name is shown");
}

#[test]
fn what_could_not_be_read_is_said_and_is_no_success() {
    let dir = TempDir::new().unwrap();
    let pods =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, image: i}]}\n---\n";
    fs::write(dir.path().join("m.yaml"), format!("{pods}apiVersion: v1\nkind: Pod\nmetadata: 7\n")).unwrap();
    let (code, page, _) = run(palisade("report --keep-going -f").arg(dir.path()));
    assert_eq!(code, 2);
    assert!(page.contains("<li class=\"bad\">incomplete"), "{page}");
    refused("report", "-f PATH");
    fs::write(dir.path().join("m.yaml"), "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n").unwrap();
    let (code, _, err) = run(palisade("report -f").arg(dir.path()));
    assert_eq!(code, 2);
    assert!(err.contains("have no pods"), "{err}");
}

/// The pods of one workload have connections to each other, for whose reasons two of them are looked at.
#[test]
fn reasons_lose_no_connection() {
    let count = |words: &str| -> usize {
        let (code, out, err) = run(&mut palisade(words));
        assert_eq!(code, 0, "{err}");
        serde_json::from_str::<Value>(&out).unwrap()["connections"].as_array().unwrap().len()
    };
    let report: Value =
        serde_json::from_str(&run(&mut palisade("report -f examples/ingress -o json")).1).unwrap();
    let own = "shop/deployment/web".to_owned();
    assert!(pairs(&report, "allowed").iter().any(|(from, to, _)| *from == own && *to == own));
    assert_eq!(
        pairs(&report, "allowed").len(),
        count("connections -f examples/ingress --no-fold -o json"),
        "as many as without reasons"
    );
}
