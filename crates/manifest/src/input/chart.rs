//! Finds Helm charts, whose templates are no manifests.

use std::path::{Path, PathBuf};

use super::{Listed, display};

/// The directories of a chart whose files are templates, or charts with templates.
const TEMPLATES: &[&str] = &["templates", "charts"];

/// How far above an input a chart is looked for.
const LEVELS: usize = 16;

/// A Helm chart.
pub(super) struct Chart {
    /// Its absolute path.
    dir: PathBuf,
    /// Its path in messages.
    shown: String,
}

/// The charts of an input.
pub(super) struct Charts(Vec<Chart>);

impl Charts {
    /// Returns the charts among files, and the chart in which they are. Charts in a chart are parts of it.
    pub(super) fn of(files: &[Listed], above: Option<Chart>) -> Self {
        let mut charts: Vec<Chart> = above.into_iter().collect();
        let mut found: Vec<&Listed> = files.iter().filter(|file| is_chart(&file.place)).collect();
        found.sort_by_key(|file| file.place.components().count());
        for file in found {
            let (dir, shown) = (file.place.parent().unwrap_or(Path::new("")), shown_directory(&file.shown));
            let mut outer = charts.iter().filter_map(|chart| file.place.strip_prefix(&chart.dir).ok());
            if !outer.any(is_template) {
                charts.push(Chart { dir: dir.to_owned(), shown });
            }
        }
        Self(charts)
    }

    /// Returns the chart of which a file is a template, as messages name it.
    pub(super) fn of_template(&self, place: &Path) -> Option<&str> {
        let inside = |chart: &&Chart| place.strip_prefix(&chart.dir).is_ok_and(is_template);
        self.0.iter().find(inside).map(|chart| &*chart.shown)
    }
}

fn is_chart(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "Chart.yaml")
}

fn is_template(below: &Path) -> bool {
    below.components().next().is_some_and(|first| TEMPLATES.iter().any(|t| first.as_os_str() == *t))
        && below.components().nth(1).is_some()
}

/// Returns the chart of which a path on disk is a part.
pub(super) fn above(path: &Path) -> Option<Chart> {
    let place = std::path::absolute(path).ok()?;
    let dir = place.ancestors().skip(1).take(LEVELS).find(|dir| {
        let first = place.strip_prefix(dir).ok().and_then(|below| below.components().next());
        let inside = first.is_some_and(|first| TEMPLATES.iter().any(|t| first.as_os_str() == *t));
        inside && dir.join("Chart.yaml").is_file()
    })?;
    let levels = place.components().count() - dir.components().count();
    let shown = path.ancestors().nth(levels).filter(|p| path.is_relative() && !p.as_os_str().is_empty());
    Some(Chart { dir: dir.to_owned(), shown: display(shown.unwrap_or(dir)).to_string() })
}

/// Returns whether a file declares that a chart consists of other charts.
pub(super) fn has_dependencies(place: &Path, text: &str) -> bool {
    is_chart(place) && text.lines().any(|line| line.trim_end() == "dependencies:")
}

/// Returns the directory of a file, as messages name it.
pub(super) fn shown_directory(file: &Path) -> String {
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty());
    dir.map_or_else(|| ".".to_owned(), |dir| display(dir).to_string())
}
