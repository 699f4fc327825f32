//! Reads YAML files of our own formats, with the position of everything that is wrong.

use anyhow::{Result, bail};
use palisade_manifest::{
    printable,
    scalar::Scalar,
    tree::{At, Documents, Limits, Value},
};

/// Where something is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A file and its text.
pub(crate) struct Fields<'s> {
    pub(crate) name: &'s str,
    pub(crate) text: &'s str,
}

impl Fields<'_> {
    /// Calls `read` with each document of the file that is not empty. Returns their number.
    ///
    /// # Errors
    /// When the file is no YAML, or `read` fails.
    pub(crate) fn documents(&self, mut read: impl FnMut(&At<'_>) -> Result<()>) -> Result<usize> {
        let mut documents = 0;
        for document in Documents::new(self.text, Limits::default()) {
            let tree = match document {
                Ok(tree) => tree,
                Err(problems) => {
                    let Some(problem) = problems.first() else { continue };
                    bail!("{}: {}", self.place_at(problem.span.start), problem.message);
                }
            };
            if let Some(problem) = tree.warnings().first() {
                bail!("{}: {}", self.place_at(problem.span.start), problem.message);
            }
            if !tree.is_empty() {
                documents += 1;
                read(&tree.root())?;
            }
        }
        Ok(documents)
    }

    fn place_at(&self, offset: u32) -> Place {
        let before = self.text.get(..offset as usize).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
        Place { file: self.name.to_owned(), line, column }
    }

    /// Returns where a value is.
    pub(crate) fn place(&self, at: &At<'_>) -> Place {
        self.place_at(at.span().start)
    }

    /// Fails with the place of a value and the fields that lead to it.
    pub(crate) fn error<T>(&self, at: &At<'_>, message: &str) -> Result<T> {
        let path = at.path();
        match path.trim_start_matches('.') {
            // The whole document.
            "" => bail!("{}: {message}", self.place(at)),
            path => bail!("{}: {path}: {message}", self.place(at)),
        }
    }

    /// Checks that a mapping has only these keys.
    pub(crate) fn only(&self, at: &At<'_>, keys: &[&str]) -> Result<()> {
        if !matches!(at.value(), Value::Mapping(_)) {
            return self.error(at, "must be a mapping");
        }
        for (key, position, _) in at.entries() {
            if !keys.contains(&key) {
                let near = palisade_names::near(key, keys.iter().map(|known| (*known, (*known).to_owned())));
                let suggestion = match near.first() {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("there are {}", keys.join(", ")),
                };
                let key = printable(key);
                return self.error(&position, &format!("unknown field `{key}`; {suggestion}"));
            }
        }
        Ok(())
    }

    /// Reads a list, or a single value as a list.
    pub(crate) fn list<T>(&self, at: &At<'_>, read: impl Fn(&At<'_>) -> Result<T>) -> Result<Vec<T>> {
        match at.value() {
            Value::Sequence(_) => at.items().map(|item| read(&item)).collect(),
            _ => Ok(vec![read(at)?]),
        }
    }

    /// Reads a text.
    pub(crate) fn text_of(&self, at: &At<'_>) -> Result<String> {
        match at.value() {
            Value::Scalar(Scalar::Str(text)) => Ok(text.clone().into_owned()),
            Value::Scalar(_) => self.error(at, "must be text; put it in quotes"),
            _ => self.error(at, "must be text"),
        }
    }
}
