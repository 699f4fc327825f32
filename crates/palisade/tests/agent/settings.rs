//! Settings from flags, environment and file.

use std::fs;

use crate::stage::{palisade, run};

#[test]
fn flags_take_precedence_over_the_environment_the_file_and_the_defaults() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("agent.yaml");
    fs::write(&file, "log-level: debug\nlock-timeout: 7\nnode-name: from-file\nlisten: off\n").unwrap();
    let mut command = palisade(dir.path());
    command.args(["agent", "--print-config", "--node-name", "from-flag", "--config"]).arg(&file);
    command.env("PALISADE_NODE_NAME", "from-environment").env("PALISADE_LOG_LEVEL", "warn");
    let text = run(command.env("PALISADE_LOG_DROPS", "false"), 0);
    for line in [
        "node-name: from-flag",
        "log-level: warn",
        "log-drops: false",
        "lock-timeout: 7",
        "listen: \"off\"",
        "source: api",
    ] {
        assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
    }
    // The output is a settings file with the same settings.
    fs::write(&file, &text).unwrap();
    let again = run(palisade(dir.path()).args(["agent", "--print-config", "--config"]).arg(&file), 0);
    assert_eq!(again, text);
}

#[test]
fn invalid_settings_are_reported_with_their_line() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("agent.yaml");
    let of = |text: &str| {
        fs::write(&file, text).unwrap();
        run(palisade(dir.path()).args(["agent", "--print-config", "--config"]).arg(&file), 2)
    };
    let unknown = of("log-level: info\nlogdrops: false\n");
    assert!(unknown.contains("logdrops") && unknown.contains("line 2"), "{unknown}");
    let wrong = of("\nlock-timeout: soon\n");
    assert!(wrong.contains("line 2"), "{wrong}");
    let missing =
        run(palisade(dir.path()).args(["agent", "--print-config", "--config", "/nowhere/agent.yaml"]), 2);
    assert!(missing.contains("cannot read /nowhere/agent.yaml"), "{missing}");
    let flag = run(palisade(dir.path()).args(["agent", "--source", "dir:"]), 2);
    assert!(flag.contains("is not a source"), "{flag}");
    run(palisade(dir.path()).args(["agent", "--once", "--remove"]), 2);
}
