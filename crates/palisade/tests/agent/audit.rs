//! Audit mode: what a policy would drop passes, and is logged, counted and recorded, until the policy is enforced.

use serde_json::Value;

use super::stage::{Stage, policy, run};

/// Returns the policy with an annotation.
fn annotated(mode: &str) -> String {
    policy("web").replace(
        "namespace: shop}",
        &format!("namespace: shop, annotations: {{palisade.dev/mode: {mode}}}}}"),
    )
}

fn flows(stage: &Stage, words: &[&str]) -> String {
    run(&mut stage.flows(words), 0)
}

#[test]
fn a_policy_in_audit_mode_drops_nothing_and_says_what_it_would_drop() {
    let stage = Stage::new();
    stage.write("policy.yaml", &annotated("audit"));
    let agent = stage.agent(&[]);
    agent.until("agent is ready");
    assert!(stage.answers("web", "db:5432") && stage.answers("other", "db:5432"));
    let log = agent.until("audited packets");
    for word in
        ["shop/other (10.244.7.3)", "shop/db (10.244.7.1)", "ingress", "5432", "NetworkPolicy shop/db-from"]
    {
        assert!(log.lines().last().unwrap().contains(word), "no {word} in {log}");
    }
    let seen = flows(&stage, &["--verdict", "audited"]);
    assert!(seen.contains("shop/other") && seen.contains("audited by ingress policies"), "{seen}");
    assert!(
        seen.contains("NetworkPolicy shop/db-from is in audit mode") && !seen.contains("shop/web"),
        "{seen}"
    );
    assert!(flows(&stage, &["--verdict", "dropped"]).contains("no flows"));
    let json = flows(&stage, &["-o", "json", "--last", "1"]);
    let record: Value = serde_json::from_str(json.lines().find(|l| l.starts_with('{')).unwrap()).unwrap();
    assert_eq!((&record["verdict"], &record["direction"]), (&"audited".into(), &"ingress".into()));
    assert_eq!(record["policies"][0]["name"], "db-from");
    assert_eq!((&record["rule"]["field"], &record["rule"]["decided"]), (&"ingress[0]".into(), &false.into()));

    let status = run(&mut stage.node(&["status"]), 0);
    assert!(
        status.contains("1 policy in audit mode; addresses selected for ingress 1, for egress 0"),
        "{status}"
    );
    assert!(run(&mut stage.node(&["pods"]), 0).contains("open (audit)"));
    assert!(run(&mut stage.node(&["profiles"]), 0).contains("(audit: drops nothing)"));
    assert!(run(&mut stage.node(&["verify"]), 0).contains("the kernel matches the plan"));
    let explained = run(&mut stage.node(&["explain", "-n", "shop", "other", "db:5432"]), 0);
    assert!(
        explained.contains("would be denied by NetworkPolicy shop/db-from, which is in audit mode"),
        "{explained}"
    );

    // A typing error enforces, and is said.
    stage.write("policy.yaml", &annotated("Audit"));
    agent.until("is neither");
    stage.until_answers("other", "db:5432", false);
    assert!(stage.answers("web", "db:5432"));
    // A namespace's label counts for policies without an annotation.
    let labelled =
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {palisade.dev/mode: audit}}\n---";
    stage.write("policy.yaml", &format!("{labelled}{}", policy("web")));
    stage.until_answers("other", "db:5432", true);
    stage.write("policy.yaml", &format!("{labelled}{}", annotated("enforce")));
    stage.until_answers("other", "db:5432", false);
    agent.stop();
}

#[test]
fn an_agent_in_audit_mode_enforces_only_what_says_so() {
    let stage = Stage::new();
    stage.write("policy.yaml", &policy("web"));
    let agent = stage.agent(&["--mode", "audit"]);
    let log = agent.until("agent is ready");
    assert!(log.contains("audit mode: policies deny nothing"), "{log}");
    assert!(stage.answers("other", "db:5432"));
    agent.until("audited packets");
    let status = run(&mut stage.node(&["status"]), 0);
    assert!(status.contains("(audit is the agent's mode)"), "{status}");
    stage.write("policy.yaml", &annotated("enforce"));
    stage.until_answers("other", "db:5432", false);
    agent.stop();
    // Enforced from the start on, what was in audit mode drops.
    stage.write("policy.yaml", &policy("web"));
    let agent = stage.agent(&[]);
    agent.until("agent is ready");
    assert!(!stage.answers("other", "db:5432") && stage.answers("web", "db:5432"));
    agent.stop();
}
