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
    assert!(text.starts_with("7 opened, 1 of them to the internet\n\n"), "{text}");
    assert!(text.contains("+ shop/deployment/backend → data/statefulset/database  TCP 80\n"), "{text}");
    let because = "because NetworkPolicy shop/backend-egress edited (examples/shop/backend-egress.yaml:3 → examples/shop-two";
    assert!(text.contains(because), "{text}");
    assert!(!text.contains("\n  - "), "{text}");
    // In the other direction, everything is closed.
    let back = answer(1, "diff examples/shop-two-rules examples/shop");
    assert!(back.starts_with("7 closed, 1 of them to the internet\n"), "{back}");
    assert!(back.contains("- shop/deployment/backend → data/statefulset/database  TCP 80\n"), "{back}");
    assert_eq!(text.replace("+ ", "- ").matches("- shop").count(), back.matches("- shop").count());
    assert_eq!(answer(0, "diff examples/shop examples/shop"), "no connection changes\n");
    let json: Value = serde_json::from_str(&answer(1, &format!("{SHOPS} -o json"))).unwrap();
    assert_eq!((&json["schema"], &json["result"]), (&"palisade.diff/v2".into(), &"different".into()));
    assert_eq!(json["changes"][0]["causes"][0]["cause"], 0);
    assert_eq!(json["causes"][0]["change"], "edited");
    assert_eq!(json["causes"][0]["after"]["line"], 3);
    assert_eq!(json["summary"]["opened"]["to_internet"], 1);
    let md = answer(0, "diff examples/shop examples/shop -o md");
    assert!(md.contains("**no connection changes**"), "{md}");
}

/// A directory with a copy of the shop.
fn shop() -> TempDir {
    let dir = TempDir::new().unwrap();
    for name in ["nodes.yaml", "workloads.yaml", "backend-egress.yaml", "backend-from-frontend.yaml"] {
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
    // The new pod takes no address from another pod: only its own connections are listed.
    assert!(out.starts_with("1 new workload\n\nnew workload data/pod/a-first ("), "{out}");
    assert!(out.contains("    may reach data/statefulset/database, ") && !out.contains("because"), "{out}");
    let (code, out, _) = run(palisade("diff").arg(dir.path()).arg("examples/shop"));
    assert_eq!(code, 1);
    assert!(out.starts_with("1 workload removed\n\nremoved workload data/pod/a-first ("), "{out}");
    assert!(out.contains("    could be reached from "), "{out}");
}

/// A copy of the shop with one more file.
fn shop_with(text: &str) -> TempDir {
    let dir = shop();
    fs::write(dir.path().join("more.yaml"), text).unwrap();
    dir
}

#[test]
fn a_policy_without_effect_is_listed_and_is_no_difference() {
    // What it allows is allowed by another policy, for every pod that may exist.
    let dir = shop_with(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: again, namespace: shop}\n\
         spec: {podSelector: {matchLabels: {app: backend}}, policyTypes: [Ingress]}\n",
    );
    let (code, out, _) = run(palisade("diff examples/shop").arg(dir.path()));
    assert_eq!(code, 0, "{out}");
    assert!(out.starts_with("no connection changes; 1 policy without effect\n"), "{out}");
    assert!(out.contains("  NetworkPolicy shop/again added ("), "{out}");
}

#[test]
fn a_policy_that_selects_no_pod_changes_only_future_pods() {
    let dir = shop_with(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: idle, namespace: shop}\n\
         spec: {podSelector: {matchLabels: {app: nobody}}}\n",
    );
    let (code, out, _) = run(palisade("diff examples/shop").arg(dir.path()));
    assert_eq!(code, 1, "{out}");
    assert!(out.contains(" closed for pods that don't exist yet; 1 policy without effect\n"), "{out}");
    let row = "  - every pod of every namespace → pods app=nobody in namespace shop (none yet)  all\n";
    assert!(out.contains(row), "{out}");
    let row = "  - internet (0.0.0.0/0, ::/0) → pods app=nobody in namespace shop (none yet)  all\n";
    assert!(out.contains(row), "{out}");
    assert!(out.contains("): it selects no pod\n"), "{out}");
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
    assert_eq!((code, &*out, &*err), (0, "no connection changes\n", ""));
    // A directory that was deleted is still in the revisions.
    fs::create_dir(dir.path().join("sub")).unwrap();
    fs::rename(&policy, dir.path().join("sub/policy.yaml")).unwrap();
    fs::copy(dir.path().join("workloads.yaml"), dir.path().join("sub/workloads.yaml")).unwrap();
    git(dir.path(), &["add", "."]);
    git(dir.path(), &["commit", "-qm", "three"]);
    fs::remove_dir_all(dir.path().join("sub")).unwrap();
    let (code, out, err) = diff(&["--git", "HEAD..HEAD", "sub"]);
    assert_eq!((code, &*out, &*err), (0, "no connection changes\n", ""));
    // A directory that is new or deleted counts as empty on the other side.
    let (code, out, err) = diff(&["--git", "HEAD~1..HEAD", "sub"]);
    assert_eq!((code, &*err), (1, "note: HEAD~1:sub has no manifests: compared as empty\n"));
    assert!(out.contains(" new workloads") && out.contains("new workload shop/deployment/backend"), "{out}");
    let (code, out, err) = diff(&["--git", "HEAD", "sub"]);
    assert_eq!((code, &*err), (1, "note: sub has no manifests: compared as empty\n"));
    assert!(out.contains(" workloads removed"), "{out}");

    let fails = |words: &[&str], part: &str| {
        let (code, out, err) = diff(words);
        assert_eq!((code, &*out), (2, ""), "{words:?}");
        assert!(err.contains(part), "{words:?}: no {part:?} in {err}");
    };
    fails(&["--git", "nowhere..HEAD", "."], "unknown revision `nowhere`");
    fails(&["--git", "main..nowhere", "."], "unknown revision `nowhere`");
    fails(&["--git=--upload-pack=x..HEAD", "."], "unknown revision");
    fails(&["--git", "main..topic", "none"], "neither main:none nor topic:none has manifests");
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
    assert!(out.contains("&lt;img src=x&gt;\\|&#64;&#8203;everyone") && !out.contains("<img"), "{out}");
}

/// Compares both sides of a case in tests/cases/diff.
fn case(code: i32, name: &str) -> String {
    let dir = format!("crates/palisade/tests/cases/diff/{name}");
    let (got, out, err) = run(&mut palisade(&format!("diff {dir}/a {dir}/b")));
    assert_eq!(got, code, "{name}: {out}{err}");
    out
}

#[test]
fn connections_of_the_ingress_controller_are_compared() {
    let out = case(1, "new-ingress");
    assert!(out.starts_with("1 opened, 1 of them from the ingress controller\n"), "{out}");
    assert!(
        out.contains("because Ingress shop/in added (crates/palisade/tests/cases/diff/new-ingress/b/y.yaml:")
    );
    assert!(out.contains("  + {ingress-controller} → shop/pod/web  TCP 8080\n"), "{out}");
    let out = case(1, "ingress-cut-off");
    assert!(out.starts_with("1 closed, 1 of them from the ingress controller\n"), "{out}");
    assert!(out.contains("because NetworkPolicy shop/p edited ("), "{out}");
    assert!(out.contains("  - {ingress-controller} → shop/pod/web  TCP 8080\n"), "{out}");
}

#[test]
fn connections_with_nodes_are_compared() {
    let out = case(1, "nodes-denied");
    assert!(out.starts_with("1 closed\n\nbecause ClusterNetworkPolicy p added ("), "{out}");
    assert!(out.contains("  - shop/pod/web → node n1, n2  all (IPv4)\n"), "{out}");
}

#[test]
fn a_label_that_moves_pods_out_of_a_peer_is_the_cause() {
    let out = case(1, "label-moved");
    let because = "because Namespace shop: team=shop → store (crates/palisade/tests/cases/diff/label-moved/b/m.yaml:3)\n";
    assert!(out.starts_with(&format!("1 closed\n\n{because}")), "{out}");
    assert!(out.contains("  - shop/pod/web → data/pod/db  all\n") && !out.contains("NetworkPolicy"), "{out}");
}

#[test]
fn pods_that_do_not_exist_yet_are_compared() {
    let out = case(1, "future-pods");
    assert!(
        out.starts_with(
            "1 opened for pods that don't exist yet\n\nbecause NetworkPolicy data/redis edited ("
        )
    );
    // Pods app=api of the namespace were allowed before.
    let row = "  + pods cache-client=true of every namespace (none yet) (some of them) → data/pod/redis  TCP 6379\n";
    assert!(out.contains(row), "{out}");
    let out = case(1, "policies-only");
    let row = "  + every pod of every namespace (none yet) (some of them) → pods app=db in namespace data (none yet)  all\n";
    assert!(out.contains("because NetworkPolicy data/db edited (") && out.contains(row), "{out}");
}

/// A set of which only a part changes is not named as a whole.
#[test]
fn only_the_pods_that_change_are_named() {
    let text = |peer: &str| {
        format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: mon}}}}\n---\n\
             {{apiVersion: v1, kind: Pod, metadata: {{name: web, namespace: shop, labels: {{app: web}}}}, spec: {{containers: [{{name: c}}]}}}}\n---\n\
             {{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: web, namespace: shop}}, spec: {{podSelector: {{matchLabels: {{app: web}}}}, \
             ingress: [{{from: [{{podSelector: {{}}}}{peer}]}}]}}}}\n"
        )
    };
    let more = ", {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: mon}}}";
    let dir = sides(&text(""), &text(more));
    for (from, to, sign) in [("a", "b", "+"), ("b", "a", "-")] {
        let (from, to) = (dir.path().join(from), dir.path().join(to));
        let (_, out, _) = run(&mut palisade(&format!("diff {} {}", from.display(), to.display())));
        assert!(
            out.contains(&format!("  {sign} every pod in namespace mon (none yet) → shop/pod/web  all\n")),
            "{out}"
        );
        assert!(!out.contains("mon, shop"), "{out}");
    }
}

/// Two directories of one file each.
fn sides(before: &str, after: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (side, text) in [("a", before), ("b", after)] {
        fs::create_dir(dir.path().join(side)).unwrap();
        fs::write(dir.path().join(side).join("m.yaml"), text).unwrap();
    }
    dir
}

/// Compares the sides; returns the exit code, the answer and messages.
fn compared(before: &str, after: &str) -> (i32, String, String) {
    run(palisade("diff a b").current_dir(sides(before, after).path()))
}

const TWO_PODS: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: shop}}\n---\n\
    apiVersion: v1\nkind: Namespace\nmetadata: {name: data}\n---\n\
    apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop, labels: {app: web}}\n\
    spec: {containers: [{name: c, image: i}]}\n---\n\
    apiVersion: v1\nkind: Pod\nmetadata: {name: db, namespace: data, labels: {app: db}}\n\
    spec: {containers: [{name: c, image: i, ports: [{name: sql, containerPort: 5432}]}]}\n---\n";

fn policy(name: &str, rest: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: data}}\n\
         spec: {{podSelector: {{matchLabels: {{app: db}}}}, policyTypes: [Ingress], {rest}}}\n---\n"
    )
}

#[test]
fn a_renamed_policy_changes_nothing() {
    let of = |name| TWO_PODS.to_owned() + &policy(name, "ingress: [{from: [{podSelector: {}}]}]");
    let (code, out, _) = compared(&of("one"), &of("two"));
    assert_eq!(code, 0, "{out}");
    assert!(out.starts_with("no connection changes; 1 policy renamed\n"), "{out}");
    assert!(out.contains("NetworkPolicy data/two renamed from one (a/m.yaml:"), "{out}");
}

#[test]
fn moving_objects_within_files_is_no_change() {
    let policy = policy("one", "ingress: []");
    let before = TWO_PODS.to_owned() + &policy;
    let (code, out, _) = compared(&before, &format!("# moved\n\n\n{policy}{TWO_PODS}"));
    assert_eq!((code, &*out), (0, "no connection changes\n"));
}

#[test]
fn a_named_port_and_a_pod_label_are_causes() {
    let policies = policy("one", "ingress: [{ports: [{port: sql}]}]");
    let before = TWO_PODS.to_owned() + &policies;
    let (code, out, _) = compared(&before, &before.replace("5432", "5433"));
    assert_eq!(code, 1);
    assert!(out.contains("because Pod data/db: other ports (b/m.yaml:"), "{out}");
    assert!(out.contains("  + shop/pod/web → data/pod/db  TCP 5433\n"), "{out}");
    let (code, out, _) =
        compared(&before, &before.replace("labels: {app: db}}\nspec", "labels: {app: x}}\nspec"));
    assert_eq!(code, 1);
    assert!(out.contains("because Pod data/db: app=db → x (b/m.yaml:"), "{out}");
    assert!(out.starts_with("") && out.contains("  + shop/pod/web → data/pod/db  "), "{out}");
}

#[test]
fn sides_without_anything_to_compare_are_no_success() {
    let (code, out, err) = compared("", "# nothing\n");
    assert_eq!((code, &*out), (2, ""));
    assert!(err.contains("have no manifests: nothing can be compared"), "{err}");
    let (code, out, err) = compared(TWO_PODS, "");
    assert_eq!((code, &*err), (1, "note: b has no manifests: compared as empty\n"), "{out}");
    assert!(out.starts_with("2 workloads removed\n"), "{out}");
    let service =
        "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: data}\nspec: {ports: [{port: 1}]}\n";
    let (code, _, err) = compared(service, service);
    assert_eq!(code, 2);
    assert!(err.contains("undecided: neither side has pods"), "{err}");
}

#[test]
fn a_workload_that_loses_dns_is_named() {
    let deny = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: out, namespace: shop}\n\
                spec: {podSelector: {}, policyTypes: [Egress]}\n";
    let (code, out, _) = compared(TWO_PODS, &(TWO_PODS.to_owned() + deny));
    assert_eq!(code, 1);
    assert!(out.lines().next().unwrap().contains("; closes DNS for 1 workload"), "{out}");
    assert!(out.contains("\ncloses DNS for shop/pod/web\n"), "{out}");
}

#[test]
fn a_comment_fits_a_pull_request_and_pages_stand_alone() {
    let mut pods = String::new();
    for n in 0..400 {
        pods += &format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: pod-with-a-long-name-{n}, namespace: shop, labels: {{app: a{n}}}}}\n\
             spec: {{containers: [{{name: c, image: i}}]}}\n---\n"
        );
    }
    let dir = sides(TWO_PODS, &(TWO_PODS.to_owned() + &pods));
    let (code, out, _) = run(palisade("diff a b -o md").current_dir(dir.path()));
    assert_eq!(code, 1);
    assert!(out.chars().count() < 65_536 && out.contains(" did not fit: "), "{}", out.len());
    for form in ["html", "svg"] {
        let out = answer(1, &format!("{SHOPS} -o {form}"));
        assert!(out.contains("7 opened, 1 of them to the internet") && !out.contains("<script"), "{out}");
        assert!(out.contains("<svg xmlns=") && out.contains("shop/deployment/backend"), "{out}");
    }
}

#[test]
fn bad_questions_get_clear_errors() {
    refused("diff examples/shop", "two paths are required");
    refused("diff - -", "standard input");
    refused("diff examples/shop examples/none", "examples/none");
    refused("diff", "required");
}

#[test]
fn an_object_that_is_not_evaluated_is_never_no_change() {
    let dir = tempfile::tempdir().expect("a directory");
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop}\nspec: {containers: [{name: c, image: i}]}\n";
    let cilium = "---\napiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: open, namespace: shop}\nspec: {}\n";
    for (file, text) in [("a.yaml", pod.to_owned()), ("b.yaml", format!("{pod}{cilium}"))] {
        fs::write(dir.path().join(file), text).expect("it can be written");
    }
    let (code, out, err) = run(palisade("diff a.yaml b.yaml").current_dir(dir.path()));
    assert_eq!((code, &*out), (2, "no connection changes\n"), "{err}");
    assert!(
        err.contains("undecided: an object is on one side only, and not evaluated: CiliumNetworkPolicy open"),
        "{err}"
    );
    // On both sides it is no change.
    let (code, _, _) = run(palisade("diff b.yaml b.yaml").current_dir(dir.path()));
    assert_eq!(code, 0);
}

#[test]
fn what_git_does_not_have_is_said_and_the_rest_compared() {
    let dir = shop();
    let at = |name: &str| dir.path().join(name);
    let policy = fs::read_to_string(at("backend-from-frontend.yaml")).unwrap();
    fs::create_dir(at("shared")).unwrap();
    fs::rename(at("backend-from-frontend.yaml"), at("shared/policy")).unwrap();
    std::os::unix::fs::symlink("shared/policy", at("linked.yaml")).unwrap();
    git(dir.path(), &["init", "-q"]);
    let commit = || {
        git(dir.path(), &["add", "-A", "."]);
        git(dir.path(), &["commit", "-qm", "next"]);
    };
    commit();
    let verb = |words: &str| run(palisade(words).current_dir(dir.path()));
    // What a link leads to is read, and compared.
    fs::write(at("shared/policy"), policy.replace("app: frontend", "app: nobody")).unwrap();
    commit();
    let (code, out, err) = verb("diff --git HEAD~1..HEAD .");
    assert_eq!((code, &*err), (1, ""), "{out}");
    assert!(out.contains("- shop/deployment/frontend → shop/deployment/backend  all"), "{out}");
    assert_eq!(verb("review --git HEAD~1..HEAD").0, 0);
    // Links out of the repository, to nothing, to themselves and to a directory are said, once each.
    for (name, to) in [
        ("outside.yaml", "../outside.yaml"),
        ("absolute.yaml", "/etc/hostname"),
        ("nothing.yaml", "none"),
        ("loop.yaml", "loop.yaml"),
        ("directory.yaml", "shared"),
    ] {
        std::os::unix::fs::symlink(to, at(name)).unwrap();
    }
    commit();
    let links = "symbolic links that lead to no file of the revision are not read: ";
    for (words, page) in [
        ("diff --git HEAD~1..HEAD .", "no connection changes"),
        ("review --git HEAD~1..HEAD", "no new findings"),
        ("lint --git HEAD~1..HEAD -f .", ""),
    ] {
        let (code, out, err) = verb(words);
        assert_eq!(code, 2, "{words}: {out}{err}");
        assert!(out.contains(page), "{words}: {out}{err}");
        let all = format!("{out}{err}");
        assert_eq!(all.matches(links).count(), 1, "{words}: {all}");
        assert!(all.contains("absolute.yaml") && !all.contains("linked.yaml"), "{words}: {all}");
    }
    // A submodule has its files in another repository.
    git(
        dir.path(),
        &["rm", "-q", "outside.yaml", "absolute.yaml", "nothing.yaml", "loop.yaml", "directory.yaml"],
    );
    commit();
    fs::create_dir(at("vendor")).unwrap();
    let module = format!("160000,{},vendor", "1".repeat(40));
    git(dir.path(), &["update-index", "--add", "--cacheinfo", &module]);
    git(dir.path(), &["commit", "-qm", "a submodule"]);
    for words in ["diff --git HEAD~1..HEAD .", "lint --git HEAD~1..HEAD -f ."] {
        let (code, out, err) = verb(words);
        assert_eq!(code, 2, "{words}: {out}{err}");
        assert!(err.contains("submodules change in the range") && err.contains("vendor"), "{words}: {err}");
    }
    assert_eq!(verb("diff --git HEAD..HEAD .").0, 0);
    assert_eq!(verb("lint --git HEAD..HEAD -f .").0, 0);
}
