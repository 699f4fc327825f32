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
    command.env("PALISADE_ALLOW_SOURCE", "192.0.2.10/32,2001:db8::7/64");
    let text = run(command.env("PALISADE_LOG_DROPS", "false"), 0);
    for line in [
        "node-name: from-flag",
        "log-level: warn",
        "log-drops: false",
        "lock-timeout: 7",
        "listen: \"off\"",
        "source: api",
        "allow-source:",
        "- 192.0.2.10/32",
        "- 2001:db8::/64",
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
    assert!(
        unknown.contains("agent.yaml:2:1: unknown key `logdrops`; did you mean `log-drops`?"),
        "{unknown}"
    );
    let wrong = of("\nlock-timeout: soon\n");
    assert!(wrong.contains("agent.yaml:2:15: "), "{wrong}");
    let missing =
        run(palisade(dir.path()).args(["agent", "--print-config", "--config", "/nowhere/agent.yaml"]), 2);
    assert!(missing.contains("cannot read /nowhere/agent.yaml"), "{missing}");
    let flag = run(palisade(dir.path()).args(["agent", "--source", "dir:"]), 2);
    assert!(flag.contains("is not a source"), "{flag}");
    let everything = run(palisade(dir.path()).args(["agent", "--allow-source", "::/0"]), 2);
    assert!(everything.contains("use --source-check=off"), "{everything}");
    let number = of("allow-source: [192.0.2.10/32, 192.0.2.1]\n");
    assert!(
        number.contains("\"192.0.2.1\" is not a network") && number.contains("agent.yaml:1:"),
        "{number}"
    );
    run(palisade(dir.path()).args(["agent", "--once", "--remove"]), 2);
}
