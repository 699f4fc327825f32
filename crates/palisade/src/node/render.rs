//! The agent's replies as tables and as JSON.

use std::{borrow::Cow, fmt::Write as _};

use anyhow::Result;
use palisade_agent::{
    socket::{Errors, Response, ReviewView, Status, Verified, WatchView},
    view::{PeerSetView, PlanView, PodView, PolicyTableView, ProfileView},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    columns::columns,
    escape,
    output::{Encoding, Style, styled},
};

/// Renders a reply as text.
///
/// # Errors
/// When the answer can't be made plain, which would be a fault of the program.
pub(super) fn text(reply: &Response) -> Result<String> {
    // The text has its lines and colors already; the writer escapes everything else.
    if let Response::Explained(explained) = reply {
        return Ok(explained.text.clone());
    }
    Ok(match &plain(reply)? {
        Response::Status(status) => self::status(status),
        Response::Pods(pods) => self::pods(pods),
        Response::Profiles(profiles) => self::profiles(profiles),
        Response::Tables(tables) => self::tables(tables),
        Response::Groups(groups) => self::groups(groups, MAX_MEMBERS),
        Response::Errors(errors) => self::errors(errors),
        Response::Verified(verified) => self::verified(verified),
        // No question of `palisade node` has these answers.
        Response::Explained(_)
        | Response::Flows(_)
        | Response::Done
        | Response::PodStarted(_)
        | Response::PodIsHeld(_) => String::new(),
        Response::Error(error) => format!("{error}\n"),
    })
}

/// Escapes all strings of a value: names of objects and processes may have any character.
fn plain<T: Serialize + DeserializeOwned>(value: &T) -> Result<T> {
    fn walk(value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Cow::Owned(plain) = escape::plain(text) {
                    *text = plain;
                }
            }
            Value::Array(all) => all.iter_mut().for_each(walk),
            Value::Object(all) => all.values_mut().for_each(walk),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut json = serde_json::to_value(value)?;
    walk(&mut json);
    Ok(serde_json::from_value(json)?)
}

/// Encodes a reply for programs.
pub(super) fn document(reply: &Response, encoding: Encoding) -> Result<String> {
    let value = match reply {
        Response::Status(status) => named("status", status),
        Response::Pods(pods) => named("pods", pods),
        Response::Profiles(profiles) => named("profiles", profiles),
        Response::Tables(tables) => named("tables", tables),
        Response::Groups(groups) => named("groups", groups),
        Response::Errors(errors) => named("errors", errors),
        Response::Explained(explained) => explained.json.clone(),
        Response::Verified(verified) => named("verify", verified),
        // Nothing that `palisade node` asks for is answered by these.
        Response::Flows(_) | Response::Done | Response::PodStarted(_) | Response::PodIsHeld(_) => {
            named("done", &true)
        }
        Response::Error(error) => named("error", error),
    };
    encoding.encode(&value)
}

/// Renders a plan as text.
///
/// # Errors
/// As [`text`].
pub(crate) fn plan_text(plan: &PlanView, nftables: &str) -> Result<String> {
    let plan = plain(plan)?;
    let heading = |text: &str| format!("{}\n", styled(Style::Strong, text));
    let mut out = format!("node {}\n\n", plan.node);
    out += &(heading("pods") + &pods(&plan.pods) + "\n");
    out += &(heading("profiles") + &profiles(&plan.profiles) + "\n");
    out += &(heading("policy tables") + &tables(&plan.tables) + "\n");
    out += &(heading("peer sets") + &groups(&plan.groups, usize::MAX) + "\n");
    out += &(heading("nftables") + nftables);
    Ok(out)
}

/// Encodes a plan for programs.
pub(crate) fn plan_document(plan: &PlanView, nftables: &str, encoding: Encoding) -> Result<String> {
    #[derive(Serialize)]
    struct Whole<'a> {
        #[serde(flatten)]
        plan: &'a PlanView,
        nftables: &'a str,
    }
    encoding.encode(&named("plan", &Whole { plan, nftables }))
}

fn named(name: &str, value: &impl Serialize) -> Value {
    serde_json::json!({ "schema": format!("palisade.node.{name}/v1"), name: value })
}

/// The most members of a peer set that text shows. JSON has all of them.
const MAX_MEMBERS: usize = 8;

fn status(status: &Status) -> String {
    let state = match &status.not_ready {
        None => styled(Style::Good, "ready"),
        Some(why) => format!("{}: {why}", styled(Style::Bad, "not ready")),
    };
    let mut out = String::new();
    let mut line = |name: &str, value: String| _ = writeln!(out, "{name:<12} {value}");
    line("state", state);
    line(
        "agent",
        format!("{}, process {}, up {}", status.version, status.pid, time_text(status.uptime_seconds)),
    );
    line("node", status.node.clone());
    line("source", status.source.clone());
    line("generation", status.generation.to_string());
    let policies: Vec<String> =
        status.policies.iter().filter(|(_, n)| *n > 0).map(|(kind, n)| format!("{kind} {n}")).collect();
    let policies = if policies.is_empty() { "none".to_owned() } else { policies.join(", ") };
    line("policies", policies);
    if status.mode == "audit" || status.audited_policies > 0 {
        let default = if status.mode == "audit" { " (audit is the agent's mode)" } else { "" };
        line(
            "audit",
            format!(
                "{} {} in audit mode{default}; addresses selected for ingress {}, for egress {}",
                status.audited_policies,
                if status.audited_policies == 1 { "policy" } else { "policies" },
                status.audited_ingress,
                status.audited_egress
            ),
        );
    }
    line(
        "cluster",
        format!("{} namespaces, {} nodes, {} pods", status.namespaces, status.nodes, status.pods),
    );
    line(
        "this node",
        format!(
            "{} pods; addresses isolated for ingress {}, for egress {}",
            status.local_pods, status.isolated_ingress, status.isolated_egress
        ),
    );
    line(
        "plan",
        format!(
            "{} policy tables, {} peer sets with {} elements",
            status.tables, status.groups, status.elements
        ),
    );
    if status.unusable_objects > 0 {
        let count = format!("{} (see `palisade node errors`)", status.unusable_objects);
        line("unusable", styled(Style::Bad, &count));
    }
    for (direction, address) in &status.cut_off {
        line("cut off", styled(Style::Bad, &format!("{address} {direction}")));
    }
    for (direction, address) in &status.not_enforced {
        line("NOT ENFORCED", styled(Style::Bad, &format!("{address} {direction}")));
    }
    for bridge in &status.bypassing_bridges {
        let found = format!("packets between pods on {bridge}: it does not pass them to netfilter");
        line("NOT ENFORCED", styled(Style::Bad, &found));
    }
    if !status.unbound_ports.is_empty() {
        let ports = status.unbound_ports.join(", ");
        line("unbound", styled(Style::Bad, &format!("bridge ports whose pods are not known: {ports}")));
    }
    let errors = format!("{} in the last hour", status.errors_last_hour);
    line("errors", errors);
    let drops = status
        .drops_last_minute
        .map_or_else(|| "not counted".to_owned(), |n| format!("{n} packets in the last minute"));
    line("drops", drops);
    if let Some(audited) = status.audited_last_minute.filter(|n| *n > 0 || status.audited_policies > 0) {
        line("would deny", format!("{audited} connections in the last minute, by policies in audit mode"));
    }
    let flows = match (&*status.flows, &status.flows_problem) {
        ("new", None) => "new connections and drops are recorded".to_owned(),
        ("all", None) => "new and ended connections and drops are recorded".to_owned(),
        (_, Some(why)) => styled(Style::Bad, &format!("connections are not recorded: {why}")),
        _ => "drops are recorded".to_owned(),
    };
    line("flows", flows);
    line("source check", status.source_check.clone());
    line("pods wait", held_by(&status.held_by));
    if let Some(review) = &status.unreviewed {
        line("connections", unreviewed(review));
    }
    if !status.watches.is_empty() {
        let row = |w: &WatchView| {
            let why = w.why.clone().unwrap_or_default();
            vec![w.kind.clone(), w.state.clone(), time_text(w.for_seconds), why]
        };
        let rows: Vec<Vec<String>> = status.watches.iter().map(row).collect();
        out += "\n";
        out += &columns(&["WATCH", "STATE", "FOR", "WHY"], &rows);
    }
    out
}

/// What holds pods until they are isolated.
fn held_by(holders: &[String]) -> String {
    if holders.is_empty() {
        return "no: they start before they are isolated".to_owned();
    }
    let names = holders.iter().map(|holder| match &**holder {
        "nri" => "NRI",
        "cni" => "the CNI plugin",
        other => other,
    });
    format!("until they are isolated, by {}", names.collect::<Vec<_>>().join(" and "))
}

/// Describes a review of established connections that is not finished.
fn unreviewed(review: &ReviewView) -> String {
    let ReviewView { for_milliseconds, state, left, failure } = review;
    let left = left.map(|left| format!(", {left} left")).unwrap_or_default();
    let failure = failure.as_ref().map(|why| format!("; the last attempt failed: {why}")).unwrap_or_default();
    let since = format!("{}.{} s", for_milliseconds / 1000, for_milliseconds % 1000 / 100);
    format!("not all re-evaluated since a change {since} ago ({state}{left}){failure}")
}

fn time_text(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn pods(pods: &[PodView]) -> String {
    if pods.is_empty() {
        return "no running pods on this node\n".to_owned();
    }
    let row = |pod: &PodView| {
        let table = |table: &Option<String>, direction: &str| match table {
            _ if pod.not_enforced.iter().any(|d| d == direction) => "NOT ENFORCED".to_owned(),
            _ if pod.cut_off.iter().any(|d| d == direction) => "cut off".to_owned(),
            Some(table) => table.clone(),
            None if pod.audit.iter().any(|d| d == direction) => "open (audit)".to_owned(),
            None => "open".to_owned(),
        };
        let addresses: Vec<String> = pod.addresses.iter().map(ToString::to_string).collect();
        let note = pod.address_owned_by.as_ref().map(|other| format!("address belongs to {other}"));
        vec![
            format!("{}/{}", pod.namespace, pod.name),
            addresses.join(" "),
            table(&pod.ingress, "ingress"),
            table(&pod.egress, "egress"),
            note.unwrap_or_default(),
        ]
    };
    let rows: Vec<Vec<String>> = pods.iter().map(row).collect();
    columns(&["POD", "ADDRESSES", "INGRESS", "EGRESS", ""], &rows)
}

fn profiles(profiles: &[ProfileView]) -> String {
    if profiles.is_empty() {
        return "no policy isolates a pod of this node\n".to_owned();
    }
    let mut out = String::new();
    for profile in profiles {
        _ = writeln!(out, "{} {}{}", profile.direction, profile.table, audit(&profile.mode));
        _ = writeln!(out, "  policies  {}", profile.policies.join(", "));
        _ = writeln!(out, "  pods      {}", profile.pods.join(", "));
    }
    out
}

/// What a heading says of the mode.
fn audit(mode: &str) -> &'static str {
    if mode == "audit" { " (audit: drops nothing)" } else { "" }
}

fn tables(tables: &[PolicyTableView]) -> String {
    if tables.is_empty() {
        return "no policy tables: everything is allowed\n".to_owned();
    }
    let mut out = String::new();
    for table in tables {
        let (direction, of) = (&table.direction, audit(&table.mode));
        _ = writeln!(out, "{direction} {}{of}, used by {} addresses", table.id, table.addresses);
        for row in &table.rows {
            _ = writeln!(out, "  {:<6} {}  {}", row.of, row.group, row.traffic);
        }
        _ = writeln!(out, "  all other peers  {}", table.rest);
    }
    out
}

fn groups(groups: &[PeerSetView], shown: usize) -> String {
    if groups.is_empty() {
        return "no peer sets\n".to_owned();
    }
    let mut out = String::new();
    for group in groups {
        let (members, tables) = (group.members.len(), group.tables);
        let what = if group.of == "pods" { "pod addresses" } else { "ranges" };
        let table = crate::inputs::plural(tables, "table");
        _ = writeln!(out, "{}  {members} {what}, used by {tables} {table}", group.id);
        let mut named: Vec<String> = group.members.iter().take(shown).cloned().collect();
        if members > shown {
            named.push(format!("and {} more", members - shown));
        }
        if !named.is_empty() {
            _ = writeln!(out, "  {}", named.join(" "));
        }
    }
    out
}

fn errors(errors: &Errors) -> String {
    let mut out = String::new();
    for object in &errors.objects {
        let path = object.path.as_ref().map(|p| format!("{p}: ")).unwrap_or_default();
        _ = writeln!(out, "{}: {}: {path}{}", object.severity, object.object, object.message);
    }
    for event in &errors.events {
        _ = writeln!(out, "{}  {}: {}", utc(event.time), event.stage, event.message);
    }
    if out.is_empty() { "no errors\n".to_owned() } else { out }
}

/// Formats seconds since the epoch: `2026-03-01T12:00:00Z`. Uses Howard Hinnant's `civil_from_days`.
fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn verified(verified: &Verified) -> String {
    let compared = format!(
        "compared {} chains, {} rules, {} sets and {} elements; simulated {} packets\n",
        verified.chains, verified.rules, verified.sets, verified.elements, verified.flows
    );
    if verified.equal {
        return format!("{}: {compared}", styled(Style::Good, "the kernel matches the plan"));
    }
    let mut out = format!("{}: {compared}", styled(Style::Bad, "the kernel does not match the plan"));
    if verified.behind {
        out += "  the kernel rejected the latest plan: see `palisade node errors`\n";
    }
    for difference in &verified.differences {
        _ = writeln!(out, "  {difference}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names as a malicious tenant or program may choose them.
    #[test]
    fn hostile_names_are_escaped() {
        use palisade_agent::socket::{ErrorView, ObjectError};
        let name = format!("x\u{1b}[2J\u{1b}[31m\n\r\u{7}\u{9b}\u{202e}{}", "y".repeat(64 << 10));
        let of = || name.clone();
        let pod = PodView {
            not_enforced: Vec::new(),
            namespace: of(),
            name: of(),
            addresses: Vec::new(),
            ingress: Some(of()),
            egress: None,
            audit: Vec::new(),
            cut_off: Vec::new(),
            address_owned_by: Some(of()),
        };
        let profile = ProfileView {
            direction: of(),
            mode: of(),
            table: of(),
            policies: vec![of(), of()],
            pods: vec![of()],
        };
        let watch = WatchView { kind: of(), state: of(), why: Some(of()), for_seconds: 1 };
        let status = Status {
            node: of(),
            source: of(),
            not_ready: Some(of()),
            watches: vec![watch],
            held_by: vec![of()],
            source_check: of(),
            unbound_ports: vec![of()],
            bypassing_bridges: vec![of()],
            ..Status::default()
        };
        let object = ObjectError { object: of(), severity: of(), path: Some(of()), message: of() };
        let event = ErrorView { time: 0, stage: of(), message: of() };
        let group = PeerSetView { id: of(), of: of(), tables: 1, members: vec![of()] };
        let verified = Verified { differences: vec![of()], ..Verified::default() };
        let replies = [
            (Response::Status(Box::new(status)), 19),
            (Response::Pods(vec![pod.clone()]), 2),
            (Response::Profiles(vec![profile.clone()]), 3),
            (Response::Errors(Errors { events: vec![event], objects: vec![object] }), 2),
            (Response::Groups(vec![group.clone()]), 2),
            (Response::Verified(verified), 2),
            (Response::Error(of()), 1),
        ];
        let odd = |c: char| palisade_manifest::needs_escape(c) && c != '\n';
        for (reply, lines) in replies {
            // Our own colors go where they don't belong; a name has none.
            let shown = anstream::adapter::strip_str(&text(&reply).unwrap()).to_string();
            assert!(!shown.contains(odd), "{shown:.200}");
            assert_eq!(shown.lines().count(), lines, "{shown:.200}");
            assert!(!document(&reply, Encoding::Json).unwrap().contains(odd));
        }
        let plan = PlanView {
            node: of(),
            pods: vec![pod],
            profiles: vec![profile],
            tables: Vec::new(),
            groups: vec![group],
        };
        let shown = anstream::adapter::strip_str(&plan_text(&plan, "").unwrap()).to_string();
        assert!(!shown.contains(odd), "{shown:.200}");
        assert!(!plan_document(&plan, "", Encoding::Json).unwrap().contains(odd));
    }

    #[test]
    fn seconds_are_dates() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_772_323_199), "2026-02-28T23:59:59Z");
        assert_eq!(utc(4_107_542_400), "2100-03-01T00:00:00Z");
    }
}
