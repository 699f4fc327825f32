//! A page for each verb, from its `--help`: what clap prints is what the page has.

use std::fmt::Write as _;

use super::{cell, up_to_date};
use crate::support::{program, run};

/// An entry of a list of options or arguments.
struct Entry {
    /// `-f, --file <PATH>`
    term: String,
    /// The lines below it, without their indentation.
    lines: Vec<String>,
}

fn help(verb: &[&str]) -> String {
    let words = verb.iter().copied().chain(["--help"]);
    let (code, text, err) = run(program(words).env_remove("COLUMNS"));
    assert_eq!((code, &*err), (0, ""), "{verb:?}");
    text
}

/// The verbs that a help text lists, with what they do.
fn verbs(help: &str) -> Vec<(String, String)> {
    let mut verbs: Vec<(String, String)> = Vec::new();
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    for line in listed.take_while(|line| !line.is_empty()) {
        let (name, does) = line.trim_start().split_once("  ").unwrap_or(("", line));
        if line.starts_with("   ") {
            let last = verbs.last_mut().unwrap();
            last.1 += " ";
            last.1 += line.trim();
        } else {
            verbs.push((name.to_owned(), does.trim().to_owned()));
        }
    }
    verbs.retain(|(name, _)| name != "help");
    verbs
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn entries(lines: &[&str]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in lines {
        let text = line.trim();
        if indentation(line) < 8 && text.starts_with(['-', '<', '[']) {
            entries.push(Entry { term: text.to_owned(), lines: Vec::new() });
        } else if let Some(entry) = entries.last_mut() {
            entry.lines.push(text.to_owned());
        }
    }
    entries
}

/// The description of an entry in one cell: its paragraphs, the possible values, the default.
fn description(lines: &[String]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut begins = true;
    for line in lines {
        let own_line = line.starts_with("- ") || line.starts_with('[') || line == "Possible values:";
        match parts.last_mut() {
            _ if line.is_empty() => begins = true,
            Some(part) if !begins && !own_line => {
                *part += " ";
                *part += line;
            }
            _ => {
                parts.push(line.clone());
                begins = false;
            }
        }
    }
    let shown = |part: &String| {
        if let Some((value, does)) = part.strip_prefix("- ").and_then(|value| value.split_once(':')) {
            format!("`{value}`: {}", cell(does.trim()))
        } else if let Some(facts) = part.strip_prefix('[').and_then(|part| part.strip_suffix(']')) {
            // The environment variable and the default are on one line or on two.
            match facts.split_once(": ") {
                Some(("env", name)) => format!("environment: `{name}`"),
                Some(("default", value)) => format!("default: `{value}`"),
                _ => cell(part),
            }
        } else {
            cell(part)
        }
    };
    let parts = parts.iter().filter(|part| *part != "Possible values:");
    parts.map(shown).collect::<Vec<_>>().join("<br>")
}

/// One block of a help text: lines up to the next line that is not indented after an empty one.
fn blocks(help: &str) -> Vec<Vec<&str>> {
    let mut blocks: Vec<Vec<&str>> = Vec::new();
    let mut after_empty = true;
    for line in help.lines() {
        let is_start = after_empty && !line.is_empty() && indentation(line) == 0;
        if is_start || blocks.is_empty() {
            blocks.push(Vec::new());
        }
        blocks.last_mut().unwrap().push(line);
        after_empty = line.is_empty();
    }
    for block in &mut blocks {
        while block.last().is_some_and(|line| line.is_empty()) {
            block.pop();
        }
    }
    blocks
}

/// A help text as Markdown. `level` is that of the headings below the verb's.
fn markdown(help: &str, level: &str) -> String {
    let mut page = String::new();
    for block in blocks(help) {
        let heading = block[0].strip_suffix(':').filter(|_| block.len() > 1 && indentation(block[1]) > 0);
        match heading {
            _ if block[0].starts_with("Usage: ") => {
                let usage: Vec<&str> =
                    block.iter().map(|line| line.trim_start_matches("Usage: ").trim()).collect();
                writeln!(page, "```text\n{}\n```\n", usage.join("\n")).unwrap();
            }
            Some("Commands") => {}
            Some(heading) if !entries(&block[1..]).is_empty() => {
                writeln!(page, "{level} {heading}\n\n| | |\n| --- | --- |").unwrap();
                for Entry { term, lines } in entries(&block[1..]) {
                    writeln!(page, "| `{}` | {} |", term.replace('|', "\\|"), description(&lines)).unwrap();
                }
                page.push('\n');
            }
            Some(heading) => {
                let lines: Vec<&str> = block[1..].iter().map(|line| line.trim_start()).collect();
                writeln!(page, "{level} {heading}\n\n```text\n{}\n```\n", lines.join("\n")).unwrap();
            }
            None => writeln!(page, "{}\n", block.join("\n").replace('<', "&lt;")).unwrap(),
        }
    }
    page
}

/// The page of a verb, with the verbs below it.
fn page(verb: &str) -> String {
    let text = help(&[verb]);
    let inner = verbs(&text);
    let mut page = format!("# palisade {verb}\n\n{}", markdown(&text, "##"));
    if !inner.is_empty() {
        page += "## Verbs\n\n| | |\n| --- | --- |\n";
        for (name, does) in &inner {
            writeln!(page, "| [`palisade {verb} {name}`](#palisade-{verb}-{name}) | {} |", cell(does))
                .unwrap();
        }
        page.push('\n');
    }
    for (name, _) in &inner {
        write!(page, "## palisade {verb} {name}\n\n{}", markdown(&help(&[verb, name]), "###")).unwrap();
    }
    page.trim_end().to_owned() + "\n"
}

/// A row with the exit codes that a help text names, if it does.
fn exit_codes(verb: &str, help: &str) -> String {
    let line = blocks(help).into_iter().find_map(|block| block[0].strip_prefix("Exit codes: "));
    line.map_or(String::new(), |codes| {
        format!("| `palisade {verb}` | {} |\n", cell(codes.trim_end_matches('.')))
    })
}

#[test]
fn every_verb_has_a_page() {
    let text = help(&[]);
    let mut index = "# Options of every verb\n\n<!-- Written from `palisade --help` by crates/palisade/tests/book. -->\n\n\
         What `--help` prints, as pages. [cli.md](../cli.md) describes what the verbs are for and how they answer.\n\n\
         | verb | |\n| --- | --- |\n"
        .to_owned();
    let mut codes = String::new();
    for (verb, does) in verbs(&text) {
        writeln!(index, "| [`palisade {verb}`](palisade-{verb}.md) | {} |", cell(&does)).unwrap();
        up_to_date(&format!("palisade-{verb}.md"), &page(&verb));
        let text = help(&[&verb]);
        codes += &exit_codes(&verb, &text);
        for (inner, _) in verbs(&text) {
            codes += &exit_codes(&format!("{verb} {inner}"), &help(&[&verb, &inner]));
        }
    }
    write!(index, "\n## Exit codes\n\n0 is yes (allowed, identical, done), 1 is no (denied, different), 2 is an error, or an answer that may be wrong.\n\n\
         | verb | |\n| --- | --- |\n{codes}").unwrap();
    up_to_date("commands.md", &index);
}
