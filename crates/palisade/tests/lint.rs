//! `palisade lint` as a user runs it.

mod support;

use std::{fs, io::Write as _, process::Stdio};

use support::{palisade, program, refused, root, run};

const TWO_RULES: &str = "lint -f examples/shop-two-rules";

#[test]
fn two_rules_where_one_was_meant_are_found_in_one_sentence() {
    let (code, out, err) = run(&mut palisade(TWO_RULES));
    assert_eq!((code, &*err), (1, ""), "{out}");
    let sentence = "the two list items are alternatives: the first allows every port to 192.168.1.0/24, and the second allows TCP 80 to every destination";
    assert!(out.contains(sentence) && out.contains("warning[PAL017]:"), "{out}");
    assert!(out.contains("examples/shop-two-rules/backend-egress.yaml:17:7"), "{out}");
    assert!(out.contains("applies to") && out.contains("shop/backend"), "{out}");
}

#[test]
fn clean_examples_and_layouts_have_no_warning() {
    let mut folders = Vec::new();
    for below in ["examples", "crates/palisade/tests/layouts"] {
        for entry in fs::read_dir(root().join(below)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            folders.push(format!("{below}/{name}"));
        }
    }
    let mut answered = 0;
    for folder in folders.iter().filter(|f| !f.contains("shop-two-rules") && !f.ends_with("README.md")) {
        let (code, out, err) = run(&mut palisade(&format!("lint -f {folder}")));
        // What has to be rendered first is an error, as for every verb.
        let said = !err.is_empty() || out.contains("error[PAL057]");
        assert!(code == 0 || (code == 2 && said), "{folder}: {out}{err}");
        let errors = out.matches("error[").count();
        let unrendered = if code == 2 { out.matches("error[PAL057]").count() } else { 0 };
        assert!(!out.contains("warning[") && errors == unrendered, "{folder}: {out}");
        assert!(
            code == 0 || !out.contains("no findings,") && !out.ends_with("no findings\n"),
            "{folder}: {out}"
        );
        answered += usize::from(code == 0);
    }
    assert!(answered >= 10, "{answered}");
}

#[test]
fn fix_and_diff_make_the_same_change_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("policies.yaml");
    let mut text = String::new();
    for name in ["workloads.yaml", "backend-egress.yaml"] {
        text += &fs::read_to_string(root().join("examples/shop-two-rules").join(name)).unwrap();
        text += "---\n";
    }
    fs::write(&file, &text).unwrap();
    let path = file.to_str().unwrap();
    let lint =
        |rest: &[&str]| run(&mut program(["lint", "-f", path].into_iter().chain(rest.iter().copied())));
    let (code, diff, err) = lint(&["--diff"]);
    assert_eq!((code, &*err), (1, ""));
    assert!(diff.contains("\n-    - ports:\n+      ports:\n"), "{diff}");
    assert_eq!(fs::read_to_string(&file).unwrap(), text, "--diff writes nothing");
    let (code, out, err) = lint(&["--fix"]);
    assert_eq!((code, &*err), (0, ""), "{out}");
    assert!(out.contains("1 corrected"), "{out}");
    assert_eq!(fs::read_to_string(&file).unwrap(), text.replace("    - ports:\n", "      ports:\n"));
    assert_eq!(lint(&["--diff"]), (0, String::new(), String::new()));
}

#[test]
fn a_difference_of_a_file_from_windows_is_what_fix_does() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("policy.yaml");
    let examples = root().join("examples/shop-two-rules");
    let text = ["workloads.yaml", "backend-egress.yaml"]
        .map(|name| fs::read_to_string(examples.join(name)).unwrap());
    let text = format!("\u{feff}{}", text.join("---\n").replace('\n', "\r\n"));
    let mut results = Vec::new();
    for option in ["--diff", "--fix"] {
        fs::write(&file, &text).unwrap();
        let (_, out, err) = run(palisade(&format!("lint -f policy.yaml {option}")).current_dir(dir.path()));
        assert_eq!(err, "", "{out}");
        if option == "--diff" {
            support::apply(dir.path(), &out);
        }
        results.push(fs::read_to_string(&file).unwrap());
    }
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0], text.replace("    - ports:\r\n", "      ports:\r\n"));
}

#[test]
fn only_what_is_shown_is_corrected() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("policy.yaml");
    let rule = palisade_lint::rule("missing-policy-types").unwrap();
    let text = rule.bad.replace("  egress: []\n", "");
    fs::write(&file, &text).unwrap();
    let fix = |rest: &[&str]| {
        let words = ["lint", "--fix", "-f", file.to_str().unwrap()].into_iter().chain(rest.iter().copied());
        assert_eq!(run(&mut program(words)).0, 0);
        fs::read_to_string(&file).unwrap()
    };
    assert_eq!(fix(&[]), text);
    assert!(fix(&["--severity", "note", "--select", "PAL001"]).contains("policyTypes: [Ingress]"));
}

#[test]
fn a_baseline_hides_what_it_has_and_one_of_another_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lint.json");
    let path = file.to_str().unwrap();
    let (code, out, _) = run(&mut palisade(&format!("{TWO_RULES} --write-baseline {path}")));
    assert_eq!(code, 0, "{out}");
    let (code, out, _) = run(&mut palisade(&format!("{TWO_RULES} --baseline {path}")));
    assert!(code == 0 && out.contains("in the baseline"), "{out}");
    fs::write(&file, "{\"schema\": \"palisade.lint-baseline/v9\"}").unwrap();
    refused(&format!("{TWO_RULES} --baseline {path}"), "of another version");
    fs::write(&file, "half").unwrap();
    refused(&format!("{TWO_RULES} --baseline {path}"), "is not a baseline");
}

#[test]
fn rules_are_selected_by_code_name_and_beginning() {
    for (words, code) in [
        ("--select PAL017", 1),
        ("--select ports-in-own-rule", 1),
        ("--select PAL01", 1),
        ("--select ports", 1),
        ("--ignore PAL017", 0),
        ("--select PAL016", 0),
        ("--severity error", 0),
        ("--severity error --strict", 1),
    ] {
        assert_eq!(run(&mut palisade(&format!("{TWO_RULES} {words}"))).0, code, "{words}");
    }
    refused(&format!("{TWO_RULES} --select PAL999"), "there is no rule `PAL999`");
    refused("lint --explain ports-in-own-rul", "did you mean `ports-in-own-rule`?");
    for word in ["PAL999", "quarterly-report", "x"] {
        let (code, _, err) = run(&mut palisade(&format!("{TWO_RULES} --select {word}")));
        assert!(code == 2 && err.contains("there is no rule `") && !err.contains("did you mean"), "{err}");
    }
    refused(&format!("{TWO_RULES} --ignore pal17"), "did you mean `PAL017`?");
    let (code, out, _) = run(&mut palisade("lint --explain PAL017"));
    assert!(code == 0 && out.contains("PAL017 ports-in-own-rule") && out.contains("Not in:"), "{out}");
}

/// Names that would break each format, in what a file may have: a file's name, labels, and text.
const HOSTILE: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: shop}
spec:
  podSelector: {}
  policyTypes: [Ingress]
  ingress:
  - from: []
    \"x<y>&\\\"%,:::error::\\e[31m\\u202e\": 1
";

#[test]
fn hostile_names_stay_data_in_every_format() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a,b:c%&<\u{202e}\u{1b}[31m'\".yaml");
    fs::write(&file, HOSTILE).unwrap();
    let path = file.to_str().unwrap();
    for format in ["text", "json", "sarif", "github", "gitlab", "junit"] {
        let (code, out, _) = run(&mut program(["lint", "-f", path, "-o", format].into_iter()));
        assert_eq!(code, 1, "{format}: {out}");
        assert!(!out.contains('\u{1b}') && !out.contains('\u{202e}'), "{format}: {out:?}");
        match format {
            "json" | "sarif" | "gitlab" => drop(serde_json::from_str::<serde_json::Value>(&out).unwrap()),
            "github" => {
                let lines: Vec<&str> = out.lines().collect();
                assert!(lines.len() >= 2 && lines.iter().all(|l| l.starts_with("::")), "{out}");
                let begin = |l: &str| l.split("::").nth(1).unwrap_or_default().to_owned();
                assert!(lines.iter().all(|l| begin(l).matches("line=").count() == 1), "{out}");
            }
            "junit" => assert_eq!(out.matches("<failure").count(), out.matches("<testcase").count(), "{out}"),
            _ => {}
        }
    }
}

#[test]
fn sarif_has_rules_positions_and_fingerprints() {
    let (code, out, _) = run(&mut palisade(&format!("{TWO_RULES} -o sarif")));
    assert_eq!(code, 1);
    let sarif: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(sarif["version"], "2.1.0");
    let run = &sarif["runs"][0];
    let result = &run["results"][0];
    let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
    assert_eq!(run["tool"]["driver"]["rules"][index]["id"], result["ruleId"]);
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "examples/shop-two-rules/backend-egress.yaml");
    assert_eq!(place["region"]["startLine"], 17);
    assert_eq!(result["partialFingerprints"]["palisade/v1"].as_str().unwrap().len(), 16);
}

#[test]
fn half_written_files_are_an_error_and_standard_input_is_read() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("half.yaml"), "kind: [\n").unwrap();
    let (code, _, err) = run(&mut program(["lint", "-f", dir.path().to_str().unwrap()].into_iter()));
    assert!(code == 2 && err.contains("half.yaml:"), "{err}");
    refused("lint -f crates/palisade/tests/layouts/argocd", "nothing that policies depend on");
    let text = fs::read_to_string(root().join("examples/shop-two-rules/backend-egress.yaml")).unwrap();
    let mut command = palisade("lint -f -");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.code() == Some(1) && out.contains("-:17:7"), "{out}");
}

#[test]
fn what_is_not_rendered_or_misspelt_is_never_clean() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("policies.yaml");
    let lint = |rule: &str, rest: &str| {
        fs::write(&file, palisade_lint::rule(rule).unwrap().bad).unwrap();
        run(&mut program(["lint", "-f", file.to_str().unwrap()].into_iter().chain(rest.split_whitespace())))
    };
    // A template is an error even for those who don't ask for its rule, as nothing is known of what it becomes.
    for rest in ["", "--ignore not-rendered", "--select PAL017", "--severity error -o json"] {
        let (code, out, err) = lint("not-rendered", rest);
        assert_eq!(code, 2, "{rest}: {out}{err}");
    }
    let (_, out, err) = lint("not-rendered", "");
    assert!(out.contains("error[PAL057]") && out.contains("envsubst") && err.is_empty(), "{out}{err}");
    // So is an object that the rules don't speak of because theirs is not among those that are checked.
    for (rule, named) in [("kind-or-group-misspelt", "error[PAL056]"), ("deprecated-api", "error[PAL014]")] {
        let (code, out, err) = lint(rule, "");
        assert!(code == 1 && out.contains(named) && err.is_empty(), "{rule}: {out}{err}");
        for rest in ["--select PAL017", &format!("--ignore {rule}")] {
            let (code, out, err) = lint(rule, rest);
            assert!(code == 2 && err.contains("no matches for kind"), "{rule} {rest}: {out}{err}");
        }
        let (code, out, err) = lint(rule, "--fix");
        assert!(code == 0 && out.contains("1 corrected"), "{rule}: {out}{err}");
    }
}

#[test]
fn policies_are_found_however_their_kind_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("policies.yaml");
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: db, namespace: shop}\nspec: {containers: [{name: a, image: a}]}\n---\n";
    for kind in ["NetworkPolicy", "\"NetworkPolicy\"", "\"Network\\u0050olicy\"", "\"Network\\\n  Policy\""] {
        let policy = format!(
            "{pod}apiVersion: networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: db, namespace: shop}}\n\
             spec:\n  podSelector: {{}}\n  egress: []\n"
        );
        fs::write(&file, &policy).unwrap();
        let (code, out, err) = run(&mut program(["lint", "-f", file.to_str().unwrap()].into_iter()));
        assert_eq!((code, &*err), (1, ""), "{kind}: {out}");
        assert!(out.contains("[PAL001]"), "{kind}: {out}");
    }
}

#[test]
fn settings_come_from_palisade_toml_but_not_those_that_write() {
    let dir = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(root().join("examples/shop-two-rules/backend-egress.yaml")).unwrap();
    fs::write(dir.path().join("policy.yaml"), text).unwrap();
    let lint = |settings: &str| {
        fs::write(dir.path().join("palisade.toml"), settings).unwrap();
        run(&mut program(["lint", "-f", dir.path().to_str().unwrap()].into_iter()))
    };
    assert_eq!(lint("[lint]\n").0, 1);
    assert_eq!(lint("[lint]\nignore = [\"PAL017\"]\n").0, 0);
    assert_eq!(lint("[lint]\nseverity = \"error\"\n").0, 0);
    for (word, near) in [("port-in-own-rule", Some("`ports-in-own-rule`")), ("quarterly-report", None)] {
        let (code, _, err) = lint(&format!("[lint]\nselect = [\"{word}\"]\n"));
        assert!(code == 2 && err.contains(&format!("there is no rule `{word}`")), "{err}");
        assert_eq!(err.contains("did you mean"), near.is_some(), "{err}");
        assert!(near.is_none_or(|near| err.contains(near)), "{err}");
    }
    let (code, _, err) = lint("[lint]\nfix = true\n");
    assert!(code == 2 && err.contains("on the command line only"), "{err}");
}

/// Runs git in a directory, without the settings of the machine.
fn git(dir: &std::path::Path, words: &[&str]) {
    let mut command = std::process::Command::new("git");
    command.current_dir(dir).args(["-c", "user.name=a", "-c", "user.email=a@example.org"]).args(words);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    let output = command.output().expect("git runs");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn of_a_range_only_what_it_introduced_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join("deploy").join(name);
    let example = |name: &str| fs::read_to_string(root().join("examples/shop-two-rules").join(name)).unwrap();
    fs::create_dir(dir.path().join("deploy")).unwrap();
    fs::write(at("workloads.yaml"), example("workloads.yaml")).unwrap();
    fs::write(at("old.yaml"), example("backend-egress.yaml")).unwrap();
    git(dir.path(), &["init", "-q", "-b", "main"]);
    git(dir.path(), &["add", "."]);
    git(dir.path(), &["commit", "-q", "-m", "one"]);
    let lint = |rest: &[&str]| {
        let mut command = program(["lint", "-f", "deploy"].into_iter().chain(rest.iter().copied()));
        run(command.current_dir(dir.path()))
    };
    let (code, out, err) = lint(&["--git", "HEAD"]);
    assert_eq!((code, &*err), (0, ""), "{out}");
    assert!(out.contains(" older than the range"), "{out}");
    // Lines above don't make an old finding new.
    let old = format!("# moved\n{}", example("backend-egress.yaml"));
    fs::write(at("old.yaml"), old).unwrap();
    let new = example("backend-egress.yaml").replace("name: backend-egress", "name: another");
    fs::write(at("new.yaml"), new).unwrap();
    git(dir.path(), &["add", "."]);
    git(dir.path(), &["commit", "-q", "-m", "two"]);
    for range in ["HEAD~1..HEAD", "HEAD~1...HEAD", "HEAD~1"] {
        let (code, out, err) = lint(&["--git", range]);
        assert_eq!((code, &*err), (1, ""), "{range}: {out}");
        assert!(
            out.contains("--> deploy/new.yaml:17:7") && !out.contains("--> deploy/old.yaml"),
            "{range}: {out}"
        );
    }
    // Nor is a finding new of which no policy is in the file.
    let report = |rest: &[&str]| lint(&[&["--strict"], rest].concat()).1;
    let at = |text: &str| text.matches("--> deploy/workloads.yaml").count();
    assert!(at(&report(&[])) > 0);
    assert_eq!(at(&report(&["--git", "HEAD"])), 0, "{}", report(&["--git", "HEAD"]));
    let (code, out, err) = lint(&["--git", "nowhere..HEAD"]);
    assert!(code == 2 && out.is_empty() && err.contains("unknown revision `nowhere`"), "{out}{err}");
}
