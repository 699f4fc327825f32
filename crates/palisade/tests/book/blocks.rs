//! The code blocks of a page, and the commands in them.

use std::ops::Range;

/// How a page marks a block that is not run here. The rest of the comment says what runs it instead, or why nothing does.
const MARK: &str = "<!-- not run here: ";

/// A fenced code block.
#[derive(Debug)]
pub(crate) struct Block {
    /// The word after the fence, such as `yaml`.
    pub(crate) language: String,
    /// The lines between the fences.
    pub(crate) lines: Range<usize>,
    /// What the mark before the block says, if there is one.
    pub(crate) not_run: Option<String>,
}

/// A command and what the page shows that it prints.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) command: String,
    /// The lines of the output.
    pub(crate) output: Range<usize>,
}

/// Returns the code blocks of a page.
pub(crate) fn blocks(lines: &[&str]) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut mark = None;
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at].trim_start();
        let fence = line.len() - line.trim_start_matches('`').len();
        if fence >= 3 {
            let start = at + 1;
            let closing = &line[..fence];
            let end = (start..lines.len()).find(|&i| lines[i].trim() == closing);
            let end = end.unwrap_or_else(|| panic!("line {}: a code block without an end", at + 1));
            blocks.push(Block {
                language: line[fence..].to_owned(),
                lines: start..end,
                not_run: mark.take(),
            });
            at = end;
        } else if let Some(reason) = line.strip_prefix(MARK) {
            mark = Some(reason.trim_end_matches("-->").trim().to_owned());
        } else if !line.is_empty() {
            mark = None;
        }
        at += 1;
    }
    blocks
}

/// Returns the commands of a block: the lines that begin with `$ `.
pub(crate) fn commands(lines: &[&str], block: &Block) -> Vec<Shown> {
    let starts: Vec<usize> = block.lines.clone().filter(|&i| lines[i].starts_with("$ ")).collect();
    let ends = starts.iter().skip(1).copied().chain([block.lines.end]);
    let shown = |(start, end): (usize, usize)| {
        let last = (start..end).rev().find(|&i| !lines[i].is_empty()).unwrap_or(start);
        Shown { command: lines[start][2..].to_owned(), output: start + 1..last + 1 }
    };
    starts.iter().copied().zip(ends).map(shown).collect()
}

/// Splits a command line into words, as a shell does: at spaces that are not in quotes.
pub(crate) fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in command.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '\'' || c == '"' => quote = Some(c),
            None if c == ' ' => words.push(String::new()),
            _ => words.last_mut().unwrap().push(c),
        }
    }
    assert!(quote.is_none(), "an open quote: {command}");
    words
}
