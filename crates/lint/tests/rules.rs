//! Every rule finds its bad example, nothing in its good one, and its fix leaves nothing to find.

use palisade_lint::{Finding, Level, LintOptions, LintReport, Plugin, RULES, SourceText, fixed, lint};
use palisade_manifest::{Code, Input, LoadOptions, load};

fn of(text: &str) -> LintReport {
    let source = SourceText::new("policies.yaml", text);
    let input = Input::Text { name: "policies.yaml".to_owned(), text: text.to_owned() };
    let loaded = load(&[input], &LoadOptions::default());
    let options = LintOptions { default_namespace: "default", plugin: Some(Plugin::Weave) };
    lint(&loaded, &[source], RULES, &options)
}

fn by<'r>(report: &'r LintReport, code: &'r str) -> impl Iterator<Item = &'r Finding> {
    report.findings.iter().filter(move |finding| finding.rule.code == code)
}

#[test]
fn every_rule_finds_its_bad_example_and_nothing_in_its_good_one() {
    for rule in RULES {
        let bad = of(rule.bad);
        assert!(by(&bad, rule.code).count() > 0, "{}: {:?}", rule.name, bad.findings);
        assert!(by(&bad, rule.code).any(|f| f.level == rule.level), "{}: {:?}", rule.name, bad.findings);
        for finding in by(&bad, rule.code) {
            assert!(finding.origin.is_some() && finding.line.is_some(), "{finding:?}");
            assert!(finding.object.is_some(), "{finding:?}");
        }
        let good = of(rule.good);
        assert_eq!(by(&good, rule.code).count(), 0, "{}: {:?}", rule.name, good.findings);
        assert!(good.findings.iter().all(|f| f.level == Level::Note), "{}: {:?}", rule.name, good.findings);
        // What is right, and not enforced by agents of this version, is reported all the same.
        let other = good.other.iter().filter(|diagnostic| diagnostic.code != Code::NotEnforced);
        assert_eq!(other.count(), 0, "{}: {:?}", rule.name, good.other);
    }
}

#[test]
fn a_fix_leaves_nothing_for_its_rule_to_find() {
    for rule in RULES {
        let before = of(rule.bad);
        let fixes: Vec<_> = by(&before, rule.code).filter_map(|f| f.fix.as_ref()).collect();
        assert_eq!(!fixes.is_empty(), rule.fix.is_some(), "{}", rule.name);
        if fixes.is_empty() {
            continue;
        }
        let (text, made) = fixed(rule.bad, fixes.iter().copied());
        assert_eq!(made, fixes.len(), "{}", rule.name);
        let after = of(&text);
        assert_eq!(by(&after, rule.code).count(), 0, "{}:\n{text}", rule.name);
        assert!(after.other.is_empty(), "{}: {:?}\n{text}", rule.name, after.other);
        let again = fixed(&text, by(&after, rule.code).filter_map(|f| f.fix.as_ref()));
        assert_eq!(again, (text, 0), "{}", rule.name);
    }
}

#[test]
fn codes_and_names_are_unique_sorted_and_no_beginning_of_another() {
    assert!(RULES.is_sorted_by_key(|rule| rule.code));
    for (at, rule) in RULES.iter().enumerate() {
        assert!(
            RULES.iter().skip(at + 1).all(|r| r.code != rule.code && r.name != rule.name),
            "{}",
            rule.name
        );
        assert!(rule.code.starts_with("PAL") && rule.code.len() == 6);
        for sentence in [rule.what, rule.why] {
            assert!(sentence.ends_with('.') && !sentence.is_empty(), "{}", rule.name);
        }
    }
}

#[test]
fn comments_and_annotations_suppress_the_rules_that_they_name() {
    let rule = palisade_lint::rule("ports-in-own-rule").unwrap();
    let on_line =
        rule.bad.replace("- ports:\n    - port", "- ports: # palisade: ignore[PAL017] ours\n    - port");
    let above = rule
        .bad
        .replace("- ports:\n    - port", "# palisade: ignore[ports-in-own-rule]\n  - ports:\n    - port");
    let annotated = rule.bad.replace(
        "metadata: {name: db, namespace: shop}\nspec:\n  podSelector",
        "metadata: {name: db, namespace: shop, annotations: {palisade.dev/lint-ignore: PAL017}}\nspec:\n  podSelector",
    );
    for text in [on_line, above, annotated] {
        assert_ne!(text, rule.bad);
        let report = of(&text);
        assert_eq!(
            (by(&report, "PAL017").count(), report.suppressed),
            (0, 1),
            "{text}\n{:?}",
            report.findings
        );
        assert!(report.problems.is_empty());
    }
    let other =
        rule.bad.replace("- ports:\n    - port", "- ports: # palisade: ignore[PAL016, nonsense]\n    - port");
    let report = of(&other);
    assert_eq!((by(&report, "PAL017").count(), report.suppressed), (1, 0));
    assert_eq!(report.problems.len(), 1);
    assert_eq!(report.problems[0].word, "nonsense");
}

#[test]
fn fingerprints_differ_and_survive_lines_above() {
    let rule = palisade_lint::rule("typo-near-label").unwrap();
    let before = of(rule.bad);
    let after = of(&format!("# a comment\n\n{}", rule.bad));
    let prints = |report: &LintReport| -> Vec<String> {
        report.findings.iter().map(|f| f.fingerprint.clone()).collect()
    };
    assert_eq!(prints(&before), prints(&after));
    let mut all = prints(&before);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), before.findings.len());
}
