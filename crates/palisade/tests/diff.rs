//! `palisade diff` as users run it, on directories and on revisions. `PALISADE_BLESS=1 cargo test` updates the snapshots.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

mod support;

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use support::{answer, palisade, recorded, refused, root, run};
use tempfile::TempDir;

const SHOPS: &str = "diff examples/shop examples/shop-two-rules";

#[test]
fn the_answers_are_as_recorded() {
    for (form, file) in [("text", "shop.txt"), ("json", "shop.json"), ("md", "shop.md")] {
        recorded(&format!("diff/{file}"), &answer(1, &format!("{SHOPS} -o {form}")));
    }
}

#[test]
fn changes_name_their_policies_and_the_exit_code_tells() {
    let text = answer(1, SHOPS);
    assert!(text.contains("+ shop/deployment/backend → data/statefulset/database  TCP 80\n"), "{text}");
    assert!(
        text.contains(
            "egress: NetworkPolicy shop/backend-egress edited (examples/shop/backend-egress.yaml:3 →"
        )
    );
    assert!(!text.contains("\n- "), "{text}");
    // In the other direction, everything is closed.
    let back = answer(1, "diff examples/shop-two-rules examples/shop");
    assert!(back.contains("- shop/deployment/backend → data/statefulset/database  TCP 80\n"), "{back}");
    assert_eq!(text.replace("+ ", "- ").matches("- shop").count(), back.matches("- shop").count());
    assert_eq!(answer(0, "diff examples/shop examples/shop"), "");
    let json: Value = serde_json::from_str(&answer(1, &format!("{SHOPS} -o json"))).unwrap();
    assert_eq!((&json["schema"], &json["same"]), (&"palisade.diff/v1".into(), &false.into()));
    assert_eq!(json["changes"][0]["causes"][0]["change"], "edited");
    assert_eq!(json["changes"][0]["causes"][0]["after"]["line"], 3);
    let md = answer(0, "diff examples/shop examples/shop -o md");
    assert!(md.contains("No connection is opened or closed."), "{md}");
}

/// A directory with a copy of the shop.
fn shop() -> TempDir {
    let dir = TempDir::new().unwrap();
    for name in ["workloads.yaml", "backend-egress.yaml", "backend-from-frontend.yaml"] {
        fs::copy(root().join("examples/shop").join(name), dir.path().join(name)).unwrap();
    }
    dir
}

fn git(dir: &Path, words: &[&str]) {
    let identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"];
    let mut command = Command::new("git");
    command.arg("-C").arg(dir).args(identity).args(words);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_new_workload_and_one_that_goes_are_told_as_such() {
    let dir = shop();
    let extra = "apiVersion: v1\nkind: Pod\nmetadata: {name: a-first, namespace: data}\nspec: {containers: [{name: c, image: i}]}\n";
    fs::write(dir.path().join("extra.yaml"), extra).unwrap();
    let (code, out, _) = run(palisade("diff examples/shop").arg(dir.path()));
    assert_eq!(code, 1);
    assert!(out.contains("+ data/pod/a-first → data/statefulset/database  all  (an end was added)"), "{out}");
    // The new pod takes no address from another pod: only its own connections are listed.
    assert!(out.lines().filter(|l| !l.starts_with(' ')).all(|l| l.contains("data/pod/a-first")), "{out}");
    let (_, out, _) = run(palisade("diff").arg(dir.path()).arg("examples/shop"));
    assert!(
        out.contains("- data/pod/a-first → data/statefulset/database  all  (an end was removed)"),
        "{out}"
    );
}

#[test]
fn a_policy_without_effect_is_listed_and_is_no_difference() {
    let dir = shop();
    let idle = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: idle, namespace: shop}\n\
                spec: {podSelector: {matchLabels: {app: nobody}}}\n";
    fs::write(dir.path().join("idle.yaml"), idle).unwrap();
    let (code, out, _) = run(palisade("diff examples/shop").arg(dir.path()));
    assert_eq!((code, &*out), (0, "no connection is changed by: NetworkPolicy shop/idle added\n"));
}

#[test]
fn revisions_of_a_path_are_compared() {
    let dir = shop();
    let policy = dir.path().join("backend-from-frontend.yaml");
    fs::write(dir.path().join("notes.md"), "not: [a manifest").unwrap();
    git(dir.path(), &["init", "-q"]);
    git(dir.path(), &["add", "."]);
    git(dir.path(), &["commit", "-qm", "one"]);
    git(dir.path(), &["checkout", "-qb", "topic"]);
    let narrower = fs::read_to_string(&policy).unwrap().replace("app: frontend", "app: nobody");
    fs::write(&policy, narrower).unwrap();
    git(dir.path(), &["commit", "-qam", "two"]);
    let diff = |words: &[&str]| run(palisade("diff").args(words).current_dir(dir.path()));
    for revisions in ["main..topic", "main..HEAD", "main..", "main...topic", "main", "HEAD~1..HEAD"] {
        let (code, out, err) = diff(&["--git", revisions, "."]);
        assert_eq!((code, &*err), (1, ""), "{revisions}: {out}");
        assert!(
            out.contains("- shop/deployment/frontend → shop/deployment/backend  all"),
            "{revisions}: {out}"
        );
        assert!(out.contains("NetworkPolicy shop/backend-from-frontend edited"), "{revisions}: {out}");
    }
    let (_, out, _) = diff(&["--git", "main..topic", "."]);
    assert!(out.contains("main:") && out.contains("topic:"), "{out}");
    assert_eq!(diff(&["--git", "main..main", "."]).0, 0);
    assert_eq!(diff(&["--git", "HEAD", "."]).0, 0);
    // From another directory, and with a single file.
    let (code, ..) = run(palisade("diff --git main..topic").arg(dir.path()));
    assert_eq!(code, 1);
    let (code, out, err) = diff(&["--git", "main..topic", "workloads.yaml"]);
    assert_eq!((code, &*out, &*err), (0, "", ""));
    // A directory that was deleted is still in the revisions.
    fs::create_dir(dir.path().join("sub")).unwrap();
    fs::rename(&policy, dir.path().join("sub/policy.yaml")).unwrap();
    fs::copy(dir.path().join("workloads.yaml"), dir.path().join("sub/workloads.yaml")).unwrap();
    git(dir.path(), &["add", "."]);
    git(dir.path(), &["commit", "-qm", "three"]);
    fs::remove_dir_all(dir.path().join("sub")).unwrap();
    let (code, out, err) = diff(&["--git", "HEAD..HEAD", "sub"]);
    assert_eq!((code, &*out, &*err), (0, "", ""));

    let fails = |words: &[&str], part: &str| {
        let (code, out, err) = diff(words);
        assert_eq!((code, &*out), (2, ""), "{words:?}");
        assert!(err.contains(part), "{words:?}: no {part:?} in {err}");
    };
    fails(&["--git", "nowhere..HEAD", "."], "unknown revision `nowhere`");
    fails(&["--git", "main..nowhere", "."], "unknown revision `nowhere`");
    fails(&["--git=--upload-pack=x..HEAD", "."], "unknown revision");
    fails(&["--git", "main..topic", "none"], "has no none");
    fails(&["--git", "main..topic", "-"], "no revisions");
    fails(&["--git", "main..topic", ".", "."], "two were given");
}

#[test]
fn a_path_outside_any_repository_is_an_error() {
    let dir = shop();
    let (code, out, err) =
        run(palisade("diff --git main..HEAD").arg(dir.path()).env("GIT_CEILING_DIRECTORIES", dir.path()));
    assert_eq!((code, &*out), (2, ""));
    assert!(err.contains("not in a git repository"), "{err}");
    let (code, _, err) = run(palisade("diff --git main..HEAD .").env("PATH", "/nonexistent"));
    assert_eq!(code, 2);
    assert!(err.contains("can't run `git`"), "{err}");
}

#[test]
fn odd_names_stay_text_in_markdown() {
    let dir = shop();
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: b, namespace: shop, ownerReferences: [{apiVersion: v1, kind: \
               '<img src=x>|@everyone', name: w, uid: u}]}\nspec: {containers: [{name: c, image: i}]}\n";
    fs::write(dir.path().join("odd.yaml"), pod).unwrap();
    let (code, out, _) = run(palisade("diff -o md examples/shop").arg(dir.path()));
    assert_eq!(code, 1);
    assert!(out.contains("&lt;img src=x&gt;\\|&#64;everyone") && !out.contains("<img"), "{out}");
}

#[test]
fn bad_questions_get_clear_errors() {
    refused("diff examples/shop", "two paths are required");
    refused("diff - -", "standard input");
    refused("diff examples/shop examples/none", "examples/none");
    refused("diff", "required");
}
