//! Tabs, as go-yaml treats them.
//!
//! The parser follows YAML 1.2, in which a tab may separate tokens but never indents. go-yaml, which kubectl reads with,
//! follows libyaml: inside brackets a tab may also stand at the beginning of a line, and elsewhere it is refused there,
//! even where it indents nothing, and after `-`, `?` and a `:` without key. So a document with tabs is scanned for the
//! beginnings of its tokens, as libyaml's scanner (`yaml_parser_scan_to_next_token`) finds them. Tabs between the tokens
//! of brackets become spaces, which keeps all positions.

/// What the tabs of a document mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tabs {
    /// None needs to be treated.
    Legal,
    /// The text of the document with spaces in place of the tabs between the tokens of brackets. It has the same length.
    InFlow(String),
    /// go-yaml refuses the tab at this offset, with this message.
    Illegal(usize, &'static str),
}

const NO_TOKEN: &str = "found character that cannot start any token: a tab";
const INDENTATION: &str = "found a tab character that violates indentation";
const BLOCK: &str = "found a tab character where an indentation space is expected";

/// Checks the tabs of one document. `O(bytes)`.
pub(super) fn check(text: &str) -> Tabs {
    if !text.contains('\t') {
        return Tabs::Legal;
    }
    let mut scanner = Scanner {
        bytes: text.as_bytes(),
        at: 0,
        line_start: 0,
        flow: 0,
        key_allowed: true,
        key: None,
        indents: Vec::new(),
        in_flow: Vec::new(),
    };
    if let Err((at, message)) = scanner.scan() {
        return Tabs::Illegal(at, message);
    }
    if scanner.in_flow.is_empty() {
        return Tabs::Legal;
    }
    let mut spaced = text.as_bytes().to_vec();
    for at in scanner.in_flow {
        spaced[at] = b' ';
    }
    // A tab is one byte of ASCII, as a space.
    String::from_utf8(spaced).map_or(Tabs::Legal, Tabs::InFlow)
}

type Refused = (usize, &'static str);

/// Finds the beginnings of tokens.
struct Scanner<'b> {
    bytes: &'b [u8],
    at: usize,
    line_start: usize,
    /// How many brackets are open.
    flow: usize,
    /// Whether a key of a mapping may begin here.
    key_allowed: bool,
    /// Where the token that may be a key begins: its line and its column.
    key: Option<(usize, usize)>,
    /// The columns of the open block collections.
    indents: Vec<usize>,
    /// The tabs between the tokens of brackets.
    in_flow: Vec<usize>,
}

impl Scanner<'_> {
    fn scan(&mut self) -> Result<(), Refused> {
        loop {
            self.skip_to_token()?;
            if self.at >= self.bytes.len() {
                return Ok(());
            }
            let column = self.column();
            // What follows the end of the document is not read.
            if column == 0 && self.bytes[self.at..].starts_with(b"...") && self.is_blank(3) {
                return Ok(());
            }
            if self.flow == 0 {
                while self.indents.last().is_some_and(|indent| *indent > column) {
                    self.indents.pop();
                }
            }
            self.token(column)?;
        }
    }

    fn column(&self) -> usize {
        self.at - self.line_start
    }

    fn byte(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    /// Whether the byte ends a word: white space, or the end of the text.
    fn is_blank(&self, ahead: usize) -> bool {
        self.byte(ahead).is_none_or(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r'))
    }

    fn line_break(&mut self) {
        if self.byte(0) == Some(b'\r') && self.byte(1) == Some(b'\n') {
            self.at += 1;
        }
        self.at += 1;
        self.line_start = self.at;
    }

    fn skip_to_token(&mut self) -> Result<(), Refused> {
        loop {
            match self.byte(0) {
                Some(b' ') => self.at += 1,
                Some(b'\t') if self.flow > 0 => {
                    self.in_flow.push(self.at);
                    self.at += 1;
                }
                Some(b'\t') if !self.key_allowed => self.at += 1,
                Some(b'\t') => return Err((self.at, NO_TOKEN)),
                Some(b'#') => self.skip_line(),
                Some(b'\n' | b'\r') => {
                    self.line_break();
                    self.key_allowed |= self.flow == 0;
                }
                _ => return Ok(()),
            }
        }
    }

    fn skip_line(&mut self) {
        while !matches!(self.byte(0), None | Some(b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn token(&mut self, column: usize) -> Result<(), Refused> {
        let in_flow = self.flow > 0;
        let Some(byte) = self.byte(0) else { return Ok(()) };
        match byte {
            b'%' if column == 0 => self.skip_line(),
            b'[' | b'{' => {
                self.may_be_key(column);
                self.flow += 1;
                self.one(true);
            }
            b']' | b'}' => {
                self.flow = self.flow.saturating_sub(1);
                self.one(false);
            }
            b',' if in_flow => self.one(true),
            b'-' | b'?' if self.is_blank(1) && (!in_flow || byte == b'?') => {
                self.indent(column);
                self.one(!in_flow);
            }
            b':' if in_flow || self.is_blank(1) => {
                match self.key.take().filter(|(line, _)| *line == self.line_start || in_flow) {
                    Some((_, column)) => {
                        self.indent(column);
                        self.one(false);
                    }
                    None => {
                        self.indent(column);
                        self.one(!in_flow);
                    }
                }
            }
            b'*' | b'&' | b'!' => {
                self.may_be_key(column);
                self.key_allowed = false;
                let ends = |byte| matches!(byte, Some(b',' | b']' | b'}'));
                while !(self.is_blank(0) || in_flow && ends(self.byte(0))) {
                    self.at += 1;
                }
            }
            b'|' | b'>' if !in_flow => return self.block_scalar(),
            b'\'' | b'"' => {
                self.may_be_key(column);
                self.key_allowed = false;
                self.quoted(byte);
            }
            _ => {
                self.may_be_key(column);
                self.key_allowed = false;
                return self.plain();
            }
        }
        Ok(())
    }

    /// Consumes an indicator.
    fn one(&mut self, key_allowed: bool) {
        self.at += 1;
        self.key_allowed = key_allowed;
    }

    fn may_be_key(&mut self, column: usize) {
        // Within brackets, keys have no effect on the indentation.
        if self.flow == 0 && self.key_allowed {
            self.key = Some((self.line_start, column));
        }
    }

    fn indent(&mut self, column: usize) {
        if self.flow == 0 && self.indents.last().is_none_or(|indent| *indent < column) {
            self.indents.push(column);
        }
    }

    /// The column that the content of a block scalar, and the next lines of a plain one, must reach.
    fn next_indent(&self) -> usize {
        self.indents.last().map_or(0, |indent| indent + 1)
    }

    fn quoted(&mut self, quote: u8) {
        self.at += 1;
        while let Some(byte) = self.byte(0) {
            match byte {
                b'\n' | b'\r' => {
                    self.line_break();
                    continue;
                }
                b'\\' if quote == b'"' && !matches!(self.byte(1), Some(b'\n' | b'\r')) => self.at += 1,
                b'\'' if quote == b'\'' && self.byte(1) == Some(b'\'') => self.at += 1,
                _ if byte == quote => {
                    self.at += 1;
                    return;
                }
                _ => {}
            }
            self.at += 1;
        }
    }

    fn plain(&mut self) -> Result<(), Refused> {
        let indent = self.next_indent();
        let mut next_line = false;
        loop {
            if self.byte(0) == Some(b'#') {
                break;
            }
            let before = self.at;
            while let Some(byte) = self.byte(0) {
                let ends = self.is_blank(0)
                    || (byte == b':' && self.is_blank(1))
                    || (self.flow > 0 && self.ends_in_flow(byte));
                if ends {
                    break;
                }
                self.at += 1;
            }
            if !self.is_blank(0) || self.at >= self.bytes.len() {
                // An indicator alone, which the parser refuses or has its own rule for.
                self.at += usize::from(self.at == before && self.at < self.bytes.len() && !next_line);
                break;
            }
            while let Some(byte) = self.byte(0).filter(|_| self.is_blank(0)) {
                match byte {
                    b'\n' | b'\r' => {
                        self.line_break();
                        next_line = true;
                    }
                    b'\t' if next_line && self.column() < indent => return Err((self.at, INDENTATION)),
                    _ => self.at += 1,
                }
            }
            if self.flow == 0 && self.column() < indent {
                break;
            }
        }
        self.key_allowed |= next_line;
        Ok(())
    }

    fn ends_in_flow(&self, byte: u8) -> bool {
        match byte {
            b',' | b'[' | b']' | b'{' | b'}' => true,
            b'?' => self.is_blank(1),
            // After a quoted key, as in JSON.
            b':' => matches!(self.byte(1), Some(b',' | b'[' | b']' | b'{' | b'}')),
            _ => false,
        }
    }

    /// A block scalar ends at the first line with less indentation than its first one.
    fn block_scalar(&mut self) -> Result<(), Refused> {
        self.key_allowed = true;
        self.key = None;
        let parent = self.indents.last().copied();
        let mut indent = None;
        self.at += 1;
        while let Some(byte @ (b'0'..=b'9' | b'+' | b'-')) = self.byte(0) {
            if byte.is_ascii_digit() {
                indent = Some(parent.unwrap_or(0) + usize::from(byte - b'0'));
            }
            self.at += 1;
        }
        self.skip_line();
        let least = self.next_indent().max(1);
        while self.at < self.bytes.len() {
            self.line_break();
            let spaces = self.bytes[self.at..].iter().take_while(|b| **b == b' ').count();
            let column = spaces.min(indent.unwrap_or(usize::MAX));
            self.at += column;
            match self.byte(0) {
                None => return Ok(()),
                Some(b'\n' | b'\r') => continue,
                Some(b'\t') if indent.is_none_or(|indent| column < indent) => return Err((self.at, BLOCK)),
                Some(_) => {}
            }
            let wanted = *indent.get_or_insert(column.max(least));
            if column < wanted {
                return Ok(());
            }
            self.skip_line();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What kubectl accepts and refuses, as its decoder does.
    #[test]
    fn tabs_are_accepted_and_refused_where_kubectl_does() {
        for legal in [
            "a:\t1\nb:\t{x: 1}\n",
            "\"a\":\t1\n",
            "a\t: 1\n",
            "a: 1\t# c\n",
            "a: 1 \t \n",
            "a: x\ty\n",
            "a: \"x\ty\"\n",
            "a: \"x\n\ty\"\n",
            "a: |\n  x\ty\n  \tz\n",
            "a: |\t\n  x\n",
            "a: x\n  \ty\n",
            "a: &x\t1\n",
            "a: !!str\t1\n",
            "# \t\na: 1\n",
            "a: 1\n...\n\tx\n",
            "- a:\n    b: |\n      x\n      \ty\n- c:\t1\n",
        ] {
            assert_eq!(check(legal), Tabs::Legal, "{legal:?}");
        }
        for (illegal, at) in [
            ("a:\n\tb: 1\n", 3),
            ("-\ta\n", 1),
            ("?\ta\n:\tb\n", 1),
            ("\ta: 1\n", 0),
            ("a:\n  b: 1\n \tc: 1\n", 11),
            ("a: 1\n\t# c\nb: 2\n", 5),
            ("a: 1\n\t\nb: 2\n", 5),
            ("a:\n  \t{x: 1}\n", 5),
            ("a: x\n\ty\n", 5),
            ("a: |\n\tx\n", 5),
            ("a: |\n  x\n\t\n", 9),
        ] {
            let Tabs::Illegal(place, _) = check(illegal) else { panic!("{illegal:?}: {:?}", check(illegal)) };
            assert_eq!(place, at, "{illegal:?}");
        }
        for (text, spaced) in [
            ("a: [\n\t\"x\",\n\t\"y\"\n    ]\n", "a: [\n \"x\",\n \"y\"\n    ]\n"),
            ("a: {\n\tx: 1,\n\ty: [2,\t3]\n\t}\nb:\t1\n", "a: {\n x: 1,\n y: [2, 3]\n }\nb:\t1\n"),
            ("a: [\"x\n\ty\",\n\tz\tw]\n", "a: [\"x\n\ty\",\n z\tw]\n"),
            ("a: [x, # \t]\n\ty]\n", "a: [x, # \t]\n y]\n"),
            ("a: 'it''s [\t'\nb: [\t]\n", "a: 'it''s [\t'\nb: [ ]\n"),
            ("a: x [\ty\nb: [\t]\n", "a: x [\ty\nb: [ ]\n"),
        ] {
            assert_eq!(check(text), Tabs::InFlow(spaced.to_owned()), "{text:?}");
        }
    }

    const SCRAPS: &[&str] = &[
        "\n",
        "\n  ",
        "\n\t",
        "\t",
        " ",
        "- ",
        "a: ",
        "b:\t",
        "? ",
        "[",
        "]",
        "{",
        "}",
        ",",
        "\"x\"",
        "'y'",
        "\"x\n\ty\"",
        "# c",
        "&a ",
        "*a",
        "!!str ",
        "|\n",
        ">-\n",
        "x",
        "y z",
        "\nk: ",
        ",\n\t",
        "\n...\n",
        "\r\n",
        "é",
        "\\",
        "%",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Only tabs change, only to spaces, and what was treated once needs no treatment again.
        #[test]
        fn only_tabs_become_spaces(scraps in prop::collection::vec(prop::sample::select(SCRAPS), 0..40)) {
            let text = scraps.concat();
            match check(&text) {
                Tabs::Legal => {}
                Tabs::Illegal(at, _) => prop_assert_eq!(text.as_bytes()[at], b'\t'),
                Tabs::InFlow(spaced) => {
                    prop_assert_eq!(spaced.len(), text.len());
                    for (old, new) in text.bytes().zip(spaced.bytes()) {
                        prop_assert!(old == new || (old == b'\t' && new == b' '));
                    }
                    prop_assert_eq!(check(&spaced), Tabs::Legal);
                }
            }
        }
    }
}
