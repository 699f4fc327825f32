//! The page of the rules of `palisade lint`.

use palisade_lint::RULES;

use super::up_to_date;

#[test]
fn rules() {
    let mut page = String::from(
        "# Rules of lint\n\nWhat [`palisade lint`](palisade-lint.md) finds. `palisade lint --explain RULE` prints the same. This page is written from the code.\n\n",
    );
    page += "| code | name | level | finds | `--fix` |\n| --- | --- | --- | --- | --- |\n";
    for rule in RULES {
        let what = rule.what.trim_start_matches("Finds ").trim_end_matches('.');
        let fix = if rule.fix.is_some() { "yes" } else { "" };
        let (code, name) = (rule.code, rule.name);
        let anchor = format!("{} {name}", code.to_lowercase()).replace(' ', "-");
        page += &format!(
            "| [{code}](#{anchor}) | {name} | {} | {} | {fix} |\n",
            rule.level.as_str(),
            super::cell(what)
        );
    }
    for rule in RULES {
        page += &format!("\n## {} {}\n\n{} {}\n\n", rule.code, rule.name, rule.what, rule.why);
        if let Some(fix) = rule.fix {
            page += &format!("`--fix`: {fix}\n\n");
        }
        page += &format!("Found in:\n\n```yaml\n{}```\n\nNot in:\n\n```yaml\n{}```\n", rule.bad, rule.good);
    }
    up_to_date("lint.md", &page);
}
