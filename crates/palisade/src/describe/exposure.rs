//! Exposure as lines of text and as JSON values.

use palisade_analysis::{
    Exposure,
    describe::InternetTraffic,
    exposure::{ExposureRow, Reached},
};
use palisade_policy::Traffic;
use serde::Serialize;

use crate::{
    future_pods::{JsonFuturePods, JsonPodTraffic, condition_text, pods_text, traffic_text},
    traffic::{JsonTraffic, VisibleTraffic},
};

/// How many other rows a row refers to by their conditions.
const MOST_CONDITIONS: usize = 2;

/// Returns the lines of a table: who is exposed, and to what.
pub(super) fn lines(internet: &[InternetTraffic], exposure: &Exposure) -> Vec<(String, String)> {
    let mut out = vec![("public internet".to_owned(), internet_text(internet))];
    out.extend(rows(exposure));
    out
}

/// Returns the lines for pods: any pod, and the sets of pods that rules tell apart.
pub(crate) fn rows(exposure: &Exposure) -> Vec<(String, String)> {
    let any_pod = ("any pod, regardless of labels".to_owned(), any_pod_text(exposure));
    let rows = exposure.rows.iter().map(|row| (row_name(row), row_text(row, exposure.exact)));
    std::iter::once(any_pod).chain(rows).collect()
}

/// Formats the traffic with the public internet: `all`, `nothing`, `IPv4 nothing, IPv6 all`.
fn internet_text(internet: &[InternetTraffic]) -> String {
    let shown = |t: &Traffic| {
        let shown = VisibleTraffic::of(t);
        if shown.is_none() { "nothing".to_owned() } else { shown.text() }
    };
    let one = |i: &InternetTraffic| match i.all == i.some {
        true => shown(&i.all),
        false if VisibleTraffic::of(&i.all).is_none() => format!("{} with parts of it", shown(&i.some)),
        false => format!("{}, with parts of it {}", shown(&i.all), shown(&i.some)),
    };
    match internet {
        [] => "nothing".to_owned(),
        [only] => format!("{} ({})", one(only), only.family),
        [v4, v6] if (&v4.all, &v4.some) == (&v6.all, &v6.some) => one(v4),
        both => {
            let words: Vec<String> = both.iter().map(|i| format!("{}: {}", i.family, one(i))).collect();
            words.join("; ")
        }
    }
}

fn any_pod_text(exposure: &Exposure) -> String {
    let Reached { all, some } = &exposure.any_pod;
    match exposure.exact {
        true => traffic_text(all),
        false => format!(
            "at least {}, at most {} (bounds: rules distinguish too many sets of pods)",
            traffic_text(all),
            traffic_text(some)
        ),
    }
}

/// Formats the pods of a row: `pods app=frontend in namespace shop (none exists yet)`.
fn row_name(row: &ExposureRow) -> String {
    let none = if row.exists { "" } else { " (none exists yet)" };
    format!("{}{none}", pods_text(&row.set))
}

fn row_text(row: &ExposureRow, exact: bool) -> String {
    let Reached { all, some } = &row.reached;
    let mut out = traffic_text(all);
    if !exact {
        return format!("at least {out}, at most {}", traffic_text(some));
    }
    let more = row.more.iter().take(MOST_CONDITIONS);
    let more: Vec<String> =
        more.map(|m| format!("{} {}", traffic_text(&m.traffic), condition_text(&m.condition))).collect();
    if !more.is_empty() {
        out += &format!(" for all of them; also {}", more.join(", "));
    }
    match row.more.len().saturating_sub(more.len()) {
        0 => {}
        1 => out += ", and by 1 other row",
        n => out += &format!(", and by {n} other rows"),
    }
    if row.set.addresses.is_some() {
        out += " (depends on pod addresses)";
    }
    out
}

/// The exposure in one direction, as JSON.
#[derive(Serialize)]
pub(super) struct JsonExposure {
    internet: Vec<JsonInternet>,
    any_pod: JsonReached,
    rows: Vec<JsonRow>,
    /// False: the rows are bounds.
    exact: bool,
}

#[derive(Serialize)]
struct JsonInternet {
    family: String,
    all: JsonTraffic,
    some: JsonTraffic,
}

/// What pods get, as JSON.
#[derive(Serialize)]
pub(super) struct JsonReached {
    all: JsonPodTraffic,
    some: JsonPodTraffic,
}

#[derive(Serialize)]
struct JsonRow {
    pods: JsonFuturePods,
    exists: bool,
    #[serde(flatten)]
    reached: JsonReached,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    more: Vec<JsonMore>,
}

/// What those pods of a row get that other rows contain, too.
#[derive(Serialize)]
struct JsonMore {
    condition: JsonFuturePods,
    traffic: JsonPodTraffic,
}

impl From<&Reached> for JsonReached {
    fn from(reached: &Reached) -> Self {
        Self { all: (&reached.all).into(), some: (&reached.some).into() }
    }
}

/// Returns the exposure as a JSON value.
pub(super) fn json(internet: &[InternetTraffic], exposure: &Exposure) -> JsonExposure {
    let row = |row: &ExposureRow| JsonRow {
        pods: (&row.set).into(),
        exists: row.exists,
        reached: (&row.reached).into(),
        more: row
            .more
            .iter()
            .map(|m| JsonMore { condition: (&m.condition).into(), traffic: (&m.traffic).into() })
            .collect(),
    };
    let internet = internet.iter().map(|i| JsonInternet {
        family: i.family.to_string(),
        all: (&i.all).into(),
        some: (&i.some).into(),
    });
    JsonExposure {
        internet: internet.collect(),
        any_pod: (&exposure.any_pod).into(),
        rows: exposure.rows.iter().map(row).collect(),
        exact: exposure.exact,
    }
}
