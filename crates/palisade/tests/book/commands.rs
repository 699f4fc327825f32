//! Commands in code blocks are run, and print what the block shows.

use std::{
    fs,
    io::{self, Read as _},
    process::Command,
    sync::{Mutex, PoisonError},
};

use crate::{
    blessed,
    blocks::{Shown, blocks, commands, words},
    markdown,
    support::{program, root},
};

/// Pages whose every command must be run by a test: a reader types them one after the other.
const STRICT: &str = "docs/start/";
/// Languages of blocks that are no commands.
const NO_COMMANDS: [&str; 5] = ["yaml", "toml", "diff", "json", "text"];

/// Two tests write to the same pages.
static ONE_WRITER: Mutex<()> = Mutex::new(());

/// The README, those of the examples, and the documentation.
fn pages() -> Vec<String> {
    let mut pages = vec!["README.md".to_owned()];
    pages.extend(markdown("examples"));
    pages.extend(markdown("docs"));
    pages
}

/// What a command of a page prints. `code` is the exit code of the one before it, and becomes this one's.
fn printed(command: &str, code: &mut i32) -> String {
    let words = words(command);
    if command == "echo $?" {
        return format!("{code}\n");
    }
    let (got, text) = match &*words[0] {
        "palisade" => both_outputs(program(words[1..].iter().map(String::as_str))),
        "cat" => (0, fs::read_to_string(root().join(&words[1])).unwrap()),
        other => panic!("`{other}` can't be run here: mark the block (crates/palisade/tests/book/blocks.rs)"),
    };
    *code = got;
    text
}

/// Runs a program. Returns its exit code and what a terminal shows: both outputs in the order in which they are written.
fn both_outputs(mut command: Command) -> (i32, String) {
    let (mut reader, writer) = io::pipe().unwrap();
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut child = command.spawn().unwrap();
    // It holds the other end of the pipe.
    drop(command);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    (child.wait().unwrap().code().unwrap(), text)
}

/// Replaces durations, which differ from run to run.
fn without_times(text: &str) -> String {
    let line = |line: &str| {
        let mut shown: Vec<&str> = Vec::new();
        for word in line.split(' ') {
            let unit = word.trim_end_matches([',', ';', ')', '.']);
            match shown.last_mut() {
                Some(number) if ["s", "ms", "µs"].contains(&unit) && number.parse::<f64>().is_ok() => {
                    *number = "N";
                }
                _ => shown.push(word),
            }
        }
        shown.join(" ")
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Runs the commands of all pages that `wanted` selects. Returns their number.
fn check(wanted: fn(&[String]) -> bool) -> usize {
    let _writing = ONE_WRITER.lock().unwrap_or_else(PoisonError::into_inner);
    let mut differing = Vec::new();
    let mut count = 0;
    for page in pages() {
        let path = root().join(&page);
        let text = fs::read_to_string(&path).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        let mut replaced = Vec::new();
        for block in blocks(&lines).iter().filter(|block| block.not_run.is_none()) {
            let mut code = 0;
            for Shown { command, output } in commands(&lines, block) {
                if !wanted(&words(&command)) {
                    continue;
                }
                let shown = lines[output.clone()].join("\n");
                let printed = printed(&command, &mut code);
                count += 1;
                if without_times(printed.trim_end()) != without_times(&shown) {
                    differing.push(format!("{page}: $ {command}\n{printed}"));
                    replaced.push((output, printed));
                }
            }
        }
        if blessed() && !replaced.is_empty() {
            for (output, printed) in replaced.iter().rev() {
                lines.splice(output.clone(), printed.trim_end().lines());
            }
            fs::write(&path, lines.join("\n") + "\n").unwrap();
        }
    }
    assert!(
        blessed() || differing.is_empty(),
        "these commands print something else than the pages show. If this is intended, run with PALISADE_BLESS=1:\n\n{}",
        differing.join("\n")
    );
    count
}

fn is_lab(words: &[String]) -> bool {
    words.get(1).is_some_and(|verb| verb == "lab")
}

#[test]
fn commands_print_what_the_pages_show() {
    let count = check(|words| !is_lab(words));
    assert!(count > 12, "only {count} commands were run");
}

#[cfg(feature = "lab")]
#[test]
fn commands_of_the_lab_print_what_the_pages_show() {
    let count = check(is_lab);
    assert!(count > 0, "no command was run");
}

/// A first page must work: each of its commands is run here, or its mark names a file of the repository that runs it.
#[test]
fn every_command_of_the_first_pages_is_run() {
    let mut strict = 0;
    for page in pages().iter().filter(|page| page.starts_with(STRICT)) {
        let text = fs::read_to_string(root().join(page)).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for block in blocks(&lines) {
            if NO_COMMANDS.contains(&&*block.language) {
                continue;
            }
            strict += 1;
            let place = format!("{page}:{}", block.lines.start);
            match &block.not_run {
                Some(reason) => {
                    let file = reason.split([' ', ',']).find(|word| word.contains('/'));
                    let file = file.unwrap_or_else(|| panic!("{place}: what runs it? {reason}"));
                    assert!(root().join(file).exists(), "{place}: there is no {file}");
                }
                None => {
                    let first = lines[block.lines.start];
                    assert!(first.starts_with("$ "), "{place}: neither a command nor marked: {first}");
                }
            }
        }
    }
    assert!(strict > 10, "only {strict} blocks");
}

#[test]
fn durations_are_not_compared() {
    assert_eq!(
        without_times("in 65 ms, in 0.5 s; 868 probes"),
        without_times("in 1.2 s, in 7 ms; 868 probes")
    );
    assert_ne!(without_times("868 probes"), without_times("869 probes"));
}
