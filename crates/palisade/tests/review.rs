//! `palisade review` as users run it, on a repository with two revisions. `PALISADE_BLESS=1 cargo test` updates the snapshots.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

#[path = "support/schema.rs"]
mod schema;
mod support;

use std::{fs, path::Path, process::Command};

use schema::conforms;
use serde_json::Value;
use support::{program, recorded, refused, root, run};
use tempfile::TempDir;

/// Runs git in a directory, without the settings of the machine.
fn git(dir: &Path, words: &[&str]) {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]);
    command
        .args(words)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null");
    let output = command.output().expect("git runs");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A repository whose branch `main` has the shop below `deploy`, with its assertions.
struct Repository(TempDir);

impl Repository {
    fn shop() -> Self {
        let dir = TempDir::new().unwrap();
        let repository = Self(dir);
        fs::create_dir(repository.0.path().join("deploy")).unwrap();
        for entry in fs::read_dir(root().join("examples/shop")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                let name = path.file_name().unwrap().to_str().unwrap();
                repository.write(&format!("deploy/{name}"), &fs::read_to_string(&path).unwrap());
            }
        }
        let tests = fs::read_to_string(root().join("examples/shop.assertions.yaml")).unwrap();
        repository.write("deploy/tests.yaml", &tests);
        git(repository.0.path(), &["init", "-q", "-b", "main"]);
        repository.commit("base");
        git(repository.0.path(), &["checkout", "-q", "-b", "topic"]);
        repository
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.0.path().join(name)).unwrap();
        assert!(text.contains(from), "{from:?} is not in {text}");
        self.write(name, &text.replace(from, to));
    }

    fn commit(&self, message: &str) {
        git(self.0.path(), &["add", "-A", "."]);
        git(self.0.path(), &["commit", "-q", "--allow-empty", "-m", message]);
    }

    /// The extra dash of examples/shop-two-rules.
    fn two_rules(&self) {
        let text = fs::read_to_string(root().join("examples/shop-two-rules/backend-egress.yaml")).unwrap();
        self.write("deploy/backend-egress.yaml", &text);
    }

    #[track_caller]
    fn review(&self, words: &[&str]) -> (i32, String, String) {
        let words = ["review"].into_iter().chain(words.iter().copied());
        run(program(words).current_dir(self.0.path()))
    }
}

const RANGE: &[&str] = &["--git", "main..HEAD", "-f", "deploy"];

fn with<'a>(rest: &[&'a str]) -> Vec<&'a str> {
    [RANGE, rest].concat()
}

#[test]
fn the_pages_are_as_recorded() {
    let repository = Repository::shop();
    repository.two_rules();
    repository.commit("one more dash");
    for (form, file) in [("text", "shop.txt"), ("markdown", "shop.md"), ("json", "shop.json")] {
        let (code, out, err) = repository.review(&with(&["-o", form]));
        assert_eq!((code, &*err), (1, ""), "{out}");
        recorded(&format!("review/{file}"), &out);
    }
    let (_, text, _) = repository.review(RANGE);
    let first = "main → HEAD: 7 opened, 1 of them to the internet; 1 new finding; 2 assertions fail now\n";
    assert!(text.starts_with(first), "{text}");
    assert!(text.contains("fails; held before  the backend does not reach the internet\n"), "{text}");
    assert!(text.contains("+ shop/deployment/backend → data/statefulset/database  TCP 80\n"), "{text}");
    assert!(text.contains("[PAL017]: "), "{text}");
    // The same from the default path, against the merge base, and before the commit.
    for words in [&["--git", "main...HEAD"][..], &["--git", "HEAD~1"], &["--git", "main..", "-f", "."]] {
        let (code, out, err) = repository.review(words);
        assert_eq!((code, &*err), (1, ""), "{words:?}: {out}");
        assert!(
            out.contains(": 7 opened, 1 of them to the internet; 1 new finding; 2 assertions fail now\n"),
            "{out}"
        );
    }
}

#[test]
fn what_is_unchanged_is_no_finding() {
    let repository = Repository::shop();
    repository.two_rules();
    repository.commit("one more dash");
    let (code, out, err) = repository.review(&["--git", "HEAD..HEAD"]);
    assert_eq!((code, &*err), (0, ""), "{out}");
    assert!(
        out.starts_with("HEAD → HEAD: no connection changes; no new findings; 2 assertions fail as before\n"),
        "{out}"
    );
    assert!(out.contains("1 finding is older than the range, and not shown"), "{out}");
    assert!(out.contains("2 assertions fail as before, and are not listed"), "{out}");
    assert!(!out.contains("PAL017") && !out.contains("Connections"), "{out}");
    // The files as they are now are the same files.
    let (code, out, err) = repository.review(&["--git", "HEAD"]);
    assert_eq!((code, &*err), (0, ""), "{out}");
    assert!(out.contains("→ the working tree: no connection changes; no new findings;"), "{out}");
    // What closes is no failure, unless it is asked for.
    repository.edit("deploy/backend-from-frontend.yaml", "app: frontend", "app: nobody");
    repository.commit("closed");
    repository.write("deploy/tests.yaml", "");
    repository.commit("no assertions");
    let closed = ["--git", "HEAD~1..HEAD"];
    assert_eq!(repository.review(&closed).0, 0);
}

#[test]
fn fail_on_says_what_fails() {
    let repository = Repository::shop();
    fs::remove_file(repository.0.path().join("deploy/tests.yaml")).unwrap();
    repository.commit("no assertions");
    repository.edit("deploy/backend-from-frontend.yaml", "app: frontend", "app: monitoring");
    repository.commit("changed");
    let of = |words: &[&str]| {
        repository.review(&[&["--git", "HEAD~1..HEAD", "--ignore", "PAL"], words].concat()).0
    };
    assert_eq!(of(&[]), 0);
    assert_eq!(of(&["--fail-on", "findings"]), 0);
    assert_eq!(of(&["--fail-on", "changes"]), 1);
    // Of the same change backwards, what was closed opens.
    let back = repository.review(&["--git", "HEAD..HEAD~1", "--ignore", "PAL", "--fail-on", "opened"]);
    assert_eq!(back.0, 1, "{}", back.1);
}

#[test]
fn assertions_that_are_removed_or_weakened_are_seen() {
    let repository = Repository::shop();
    repository.two_rules();
    repository.edit(
        "deploy/tests.yaml",
        "  - name: the backend does not reach the internet\n    from: { namespace: shop, pods: { app: backend } }\n    to: internet\n    expect: deny\n",
        "",
    );
    repository.edit(
        "deploy/tests.yaml",
        "ports: [1-79, 81-65535, 1-65535/UDP]\n    expect: deny",
        "ports: [9]\n    expect: allow",
    );
    repository.commit("weakened");
    let (code, out, err) = repository.review(&with(&["--ignore", "PAL"]));
    assert_eq!((code, &*err), (0, ""), "{out}");
    assert!(out.contains("1 assertion removed; 1 assertion edited\n"), "{out}");
    assert!(out.contains("removed; it would fail  the backend does not reach the internet\n"), "{out}");
    let edited =
        "holds; edited, and as it was before, it would fail  the backend reaches no other port there\n";
    assert!(out.contains(edited), "{out}");
    // A file that is gone or that doesn't say its schema any more is no way around.
    repository.edit("deploy/tests.yaml", "schema: palisade.test/v1", "schema: none");
    repository.commit("hidden");
    let (_, out, _) = repository.review(RANGE);
    assert!(out.contains("6 assertions removed\n"), "{out}");
}

/// The table of lint is for reviews, too. A range that changes it is told.
#[test]
fn settings_of_lint_apply_and_their_change_is_said() {
    let repository = Repository::shop();
    repository.two_rules();
    repository.write("palisade.toml", "[lint]\nignore = ['PAL017']\n");
    repository.commit("hidden");
    let (code, out, _) = repository.review(RANGE);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("; no new findings; 2 assertions fail now\n"), "{out}");
    assert!(out.contains("settings change in the range, and may hide findings; "), "{out}");
    assert!(out.contains("now: palisade.toml\n"), "{out}");
    repository.write("palisade.toml", "[lint]\nignore = ['PAL017']\n[review]\nignore = ['PAL001']\n");
    let (_, out, _) = repository.review(&["--git", "main..HEAD~1", "--no-config"]);
    assert!(out.starts_with("main → HEAD~1: no connection changes; no new findings"), "{out}");
    let (_, out, _) = repository.review(RANGE);
    assert!(out.contains("; 1 new finding; "), "{out}");
}

#[test]
fn assertions_elsewhere_are_named() {
    let repository = Repository::shop();
    fs::rename(repository.0.path().join("deploy/tests.yaml"), repository.0.path().join("tests.yaml"))
        .unwrap();
    repository.commit("moved");
    repository.two_rules();
    repository.commit("one more dash");
    let range = ["--git", "HEAD~1..HEAD", "-f", "deploy"];
    let of = |words: &[&str]| repository.review(&[&range[..], words].concat());
    assert!(!of(&[]).1.contains("assertion"), "{}", of(&[]).1);
    assert!(
        of(&["-t", "tests.yaml"]).1.contains("; 2 assertions fail now\n"),
        "{}",
        of(&["-t", "tests.yaml"]).1
    );
    let (code, out, err) = of(&["-t", "deploy"]);
    assert_eq!((code, &*out), (2, ""));
    assert!(err.contains("deploy has no assertions"), "{err}");
    let (code, _, err) = of(&["-t", "deploy/backend-egress.yaml"]);
    assert!(code == 2 && err.contains("backend-egress.yaml"), "{err}");
}

const REFUSED: &str = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: refused, namespace: shop}\n\
                       spec: {podSelector: {matchLabels: {app: [1]}}}\n";

#[test]
fn what_can_not_be_read_is_said() {
    let repository = Repository::shop();
    repository.write("deploy/broken.yaml", "kind: NetworkPolicy\nspec: [\n");
    repository.commit("broken");
    let (code, out, err) = repository.review(RANGE);
    assert_eq!((code, &*out), (2, ""), "{err}");
    assert!(err.contains("in HEAD: 1 error in the manifests; correct it, or use --keep-going"), "{err}");
    for form in ["text", "markdown"] {
        let (code, out, _) = repository.review(&with(&["--keep-going", "-o", form]));
        assert_eq!(code, 2, "{out}");
        assert!(out.to_lowercase().contains("incomplete") && out.contains("could not be read"), "{out}");
    }
    // What is broken on both sides is said once, also if another line moves it; what is newly broken is said too.
    repository.write("deploy/broken.yaml", "# moved\nkind: NetworkPolicy\nspec: [\n");
    repository.write("deploy/refused.yaml", REFUSED);
    repository.commit("moved");
    repository.edit("deploy/refused.yaml", "---", "# moved\n---");
    repository
        .write("deploy/broken.yaml", "kind: NetworkPolicy\nspec: [\n---\nkind: NetworkPolicy\nspec: [\n");
    repository.commit("two broken documents");
    let of = |range: &str| {
        let (code, out, err) = repository.review(&["--git", range, "-f", "deploy", "--keep-going"]);
        assert_eq!(code, 2, "{err}");
        let count = |text: &str, words: &str| text.matches(words).count();
        [
            count(&err, "error[syntax]"),
            count(&err, "error[wrong-type]"),
            count(&err, "was refused"),
            count(&out, "was refused"),
        ]
    };
    assert_eq!(of("HEAD~2..HEAD~1"), [1, 1, 1, 1]);
    assert_eq!(of("HEAD~1..HEAD"), [2, 1, 1, 1]);
    repository.write("deploy/refused.yaml", "");
    // A broken file of assertions after the change is an error; before it, its assertions count as new.
    repository.write("deploy/broken.yaml", "");
    repository.edit("deploy/tests.yaml", "expect: only", "expect: perhaps");
    repository.commit("broken assertions");
    let (code, out, err) = repository.review(RANGE);
    assert_eq!((code, &*out), (2, ""), "{err}");
    assert!(err.contains("must be allow, deny or only"), "{err}");
    repository.edit("deploy/tests.yaml", "expect: perhaps", "expect: only");
    repository.commit("mended");
    let (code, out, err) = repository.review(&["--git", "HEAD~1..HEAD"]);
    assert_eq!((code, &*err), (0, ""), "{out}");
    assert!(out.contains("the assertions of HEAD~1 can't be read, so all count as new: "), "{out}");
    assert!(out.contains("; 6 assertions added\n"), "{out}");
    // An assertion that matches nothing any more is no success.
    repository.write(
        "deploy/more.yaml",
        "schema: palisade.test/v1\nassertions:\n- {name: gone, from: {pods: {app: gone}}, to: shop/backend, expect: deny}\n",
    );
    repository.commit("matches nothing");
    let (code, out, _) = repository.review(&["--git", "HEAD~1..HEAD"]);
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("error; new  gone\n") && out.contains("it matches no pod that exists"), "{out}");
}

#[test]
fn a_file_that_is_renamed_has_no_new_findings() {
    let repository = Repository::shop();
    repository.two_rules();
    repository.commit("a finding");
    git(repository.0.path(), &["mv", "deploy/backend-egress.yaml", "deploy/renamed.yaml"]);
    repository.commit("renamed");
    let (code, out, err) = repository.review(&["--git", "HEAD~1..HEAD"]);
    assert_eq!((code, &*err), (0, ""), "{out}");
    assert!(out.contains("no new findings") && out.contains("1 finding is older than the range"), "{out}");
}

#[test]
fn what_git_does_not_have_is_said() {
    let repository = Repository::shop();
    let dir = repository.0.path();
    fs::create_dir(dir.join("deploy/vendor")).unwrap();
    let link = format!("160000,{},deploy/vendor", "1".repeat(40));
    git(dir, &["update-index", "--add", "--cacheinfo", &link]);
    repository.commit("a submodule");
    let (code, out, _) = repository.review(&["--git", "HEAD~1..HEAD"]);
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("submodules change in the range") && out.contains("deploy/vendor"), "{out}");
    repository.commit("the same submodule");
    assert_eq!(repository.review(&["--git", "HEAD~1..HEAD"]).0, 0);
    assert_eq!(repository.review(&["--git", "HEAD"]).0, 2, "the working tree may have its files");
    let clone = TempDir::new().unwrap();
    let from = format!("file://{}", dir.display());
    git(clone.path(), &["clone", "-q", "--depth", "1", &from, "."]);
    let (code, _, err) =
        run(program(["review", "--git", "HEAD~1..HEAD"].into_iter()).current_dir(clone.path()));
    assert!(code == 2 && err.contains("git fetch --unshallow"), "{err}");
}

#[test]
fn wrong_questions_are_errors() {
    refused("review", "--git");
    refused("review --git nowhere..HEAD -f examples/shop", "unknown revision `nowhere`");
    refused("review --git HEAD..HEAD -f nowhere", "neither HEAD:nowhere nor HEAD:nowhere has manifests");
    refused("review --git HEAD..HEAD -f -", "has no revisions");
    refused("review --git=--upload-pack=x..HEAD -f examples/shop", "unknown revision");
    refused("review --git HEAD..HEAD -f examples/shop --select PAX", "there is no rule `PAX`");
    refused(
        "review --git HEAD..HEAD -f examples/shop --max-size 5000 -o json",
        "JSON and YAML have everything",
    );
    refused("review --git HEAD..HEAD -f examples/shop --max-size 10", "2000");
}

/// Names that would be commands to a terminal, Markdown, GitHub or GitLab.
#[test]
fn odd_names_stay_text() {
    let repository = Repository::shop();
    let name = "x](https://evil.example) @everyone #1 !2 <img src=x> `a` |b| **c** \\u001b[31m\\n/close";
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: b, namespace: shop, ownerReferences: [{{apiVersion: v1, kind: \
         \"{name}\", name: w, uid: u}}]}}\nspec: {{containers: [{{name: c, image: i}}]}}\n"
    );
    repository.write("deploy/odd.yaml", &pod);
    repository.write("deploy/````.yaml", &pod.replace("name: b,", "name: c,"));
    repository.write(
        "deploy/more.yaml",
        &format!("schema: palisade.test/v1\nassertions:\n- {{name: \"{name}\", reason: \"```` {name}\", from: shop/frontend, to: internet, expect: deny}}\n"),
    );
    repository.commit("odd");
    let (code, out, err) = repository.review(&with(&["-o", "md"]));
    assert_eq!((code, &*err), (1, ""), "{out}");
    let outside = outside_of_fences(&out);
    let bare = without_escaped(&outside);
    for part in ["](http", "https://", "@everyone", "#1", "!2", "<img", "|b|", "**c**", " `a`"] {
        assert!(!bare.contains(part), "{part} in {outside}");
    }
    assert!(outside.contains("&#64;&#8203;everyone") && outside.contains("https:&#8203;//evil"), "{outside}");
    assert!(!out.contains('\u{1b}') && !out.lines().any(|line| line.starts_with("/close")), "{out}");
    let (_, out, _) = repository.review(&with(&["--color", "always"]));
    assert!(!out.contains("\u{1b}[31m\\n") && !out.lines().any(|line| line.starts_with("/close")), "{out}");
    assert!(out.contains("\\u{1b}[31m"), "{out}");
}

/// The text without the characters that a backslash makes literal.
fn without_escaped(text: &str) -> String {
    let mut out = String::new();
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        if c == '\\' {
            characters.next();
        } else {
            out.push(c);
        }
    }
    out
}

/// The lines that are not in code blocks, by the rules of CommonMark.
fn outside_of_fences(text: &str) -> String {
    let mut fence: Option<usize> = None;
    let mut out = String::new();
    for line in text.lines() {
        let ticks = line.trim_start().bytes().take_while(|b| *b == b'`').count();
        match fence {
            None if ticks >= 3 => fence = Some(ticks),
            Some(open) if ticks >= open && line.trim().bytes().all(|b| b == b'`') => fence = None,
            Some(_) => {}
            None => out = out + line + "\n",
        }
    }
    assert!(fence.is_none(), "{text}");
    out
}

#[test]
fn a_page_fits_and_says_what_it_leaves_out() {
    let repository = Repository::shop();
    // Each new workload has an item, and each policy a finding.
    let mut pods = String::new();
    for n in 0..90 {
        let long = "pod-with-a-name-that-is-long-".repeat(4);
        pods += &format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {long}{n}, namespace: shop, labels: {{app: a{n}}}}}\n\
             spec: {{containers: [{{name: c, image: i}}]}}\n---\n"
        );
    }
    for n in 0..30 {
        pods += &format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: policy-{n}, namespace: shop}}\n\
             spec: {{podSelector: {{matchLabels: {{ap: b{n}}}}}, policyTypes: [Ingress]}}\n---\n"
        );
    }
    repository.write("deploy/pods.yaml", &pods);
    repository.commit("many");
    let (code, whole, _) = repository.review(&with(&["--severity", "note"]));
    assert_eq!(code, 1);
    for (words, limit) in [
        (&["-o", "markdown"][..], 65_536),
        (&["-o", "markdown", "--max-size", "4000"], 4_000),
        (&["--max-size", "3000"], 3_000),
    ] {
        let (code, out, _) = repository.review(&[&with(words)[..], &["--severity", "note"]].concat());
        assert_eq!(code, 1);
        assert!(out.encode_utf16().count() <= limit && out.len() < whole.len(), "{}", out.len());
        let last = out.lines().last().unwrap();
        assert!(last.starts_with(&format!("Left out, as it does not fit in {limit} characters: ")), "{last}");
        assert!(last.contains("findings: ") || last.contains("workloads and policies: "), "{last}");
    }
    assert!(!whole.contains("Left out"));
}

/// The schema has those of the verbs whose answers a review has, with a prefix for their parts.
#[test]
fn the_schema_describes_the_answer() {
    let read = |name: &str| -> Value {
        serde_json::from_str(&fs::read_to_string(root().join(format!("docs/schemas/{name}.json"))).unwrap())
            .unwrap()
    };
    let schema = read("review");
    for verb in ["diff", "lint", "test"] {
        let own = fs::read_to_string(root().join(format!("docs/schemas/{verb}.json"))).unwrap();
        let own: Value = serde_json::from_str(&own.replace("#/$defs/", &format!("#/$defs/{verb}_"))).unwrap();
        for (name, part) in own["$defs"].as_object().unwrap() {
            let bundled = &schema["$defs"][format!("{verb}_{name}")];
            assert!(bundled == part || (verb == "test" && bundled.is_null()), "{verb}: {name}");
        }
        if verb == "diff" {
            assert_eq!(schema["$defs"]["diff"]["properties"], own["properties"]);
        }
    }
    let repository = Repository::shop();
    repository.two_rules();
    repository.commit("one more dash");
    repository.edit("deploy/tests.yaml", "name: the frontend reaches the backend", "name: renamed");
    repository.commit("renamed");
    for range in ["main..HEAD", "HEAD..main", "HEAD..HEAD", "HEAD~1..HEAD"] {
        let (code, out, err) = repository.review(&["--git", range, "-o", "json"]);
        assert!(code < 2, "{err}");
        conforms(&schema, &schema, &serde_json::from_str(&out).unwrap(), &format!("{range}: $"));
    }
}

#[test]
fn kustomizations_are_rendered_in_both_revisions() {
    let repository = Repository::shop();
    // A kubectl that prints the manifests of a directory, since the real one need not be installed.
    let bin = TempDir::new().unwrap();
    let script =
        "#!/bin/sh\n[ \"$1\" = kustomize ] && for file in \"$2\"/*.yaml; do cat \"$file\"; echo ---; done\n";
    fs::write(bin.path().join("kubectl"), script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(bin.path().join("kubectl"), mode).unwrap();
    fs::rename(repository.0.path().join("deploy/tests.yaml"), repository.0.path().join("tests.yaml"))
        .unwrap();
    repository.commit("moved");
    repository.two_rules();
    repository.commit("one more dash");
    let words = ["review", "--git", "HEAD~1..HEAD", "-k", "deploy", "-t", "tests.yaml"];
    let mut command = program(words.into_iter());
    let path = format!("{}:/usr/bin:/bin", bin.path().display());
    let (code, out, err) = run(command.current_dir(repository.0.path()).env("PATH", path));
    assert_eq!(code, 1, "{out}{err}");
    assert!(
        out.contains("7 opened, 1 of them to the internet; 1 new finding; 2 assertions fail now\n"),
        "{out}{err}"
    );
    assert!(out.contains("kustomize:deploy:"), "{out}");
}
