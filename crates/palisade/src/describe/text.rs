//! A description as text.

use std::fmt::Write as _;

use palisade_analysis::{
    ConnectionEnd, Description,
    describe::{Effect, PeerTraffic, PodsDescription, PolicyEffect, Side},
};
use palisade_manifest::Loaded;
use palisade_policy::{Action, Direction, Tier};

use super::exposure;
use crate::{
    addresses, connection_ends, entrances, escape,
    output::{Style, styled},
    traffic::{VisibleTraffic, family_names},
};

/// Renders the description, with colors; the writer strips them where they don't belong.
pub(crate) fn text(description: &Description, loaded: &Loaded) -> String {
    let mut out = String::new();
    for (i, part) in description.parts.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        describe(part, loaded, &mut out);
    }
    out
}

fn describe(part: &PodsDescription, loaded: &Loaded, out: &mut String) {
    let name = name(&part.end);
    let pods = match &part.end {
        ConnectionEnd::Workload(w) if w.whole && w.pods.len() > 1 => format!(" ({} pods)", w.pods.len()),
        _ => String::new(),
    };
    let at =
        connection_ends::origin_of(&part.end, loaded).map(|s| format!("  {}", escape::plain(&s.to_string())));
    _ = writeln!(out, "{}{pods}{}", styled(Style::Strong, &name), at.unwrap_or_default());
    for side in &part.sides {
        describe_side(side, loaded, out);
    }
}

fn describe_side(side: &Side, loaded: &Loaded, out: &mut String) {
    let (reach, own) = match side.direction {
        Direction::Egress => ("may reach", "to"),
        Direction::Ingress => ("may be reached by", "from"),
    };
    let state = state(side);
    _ = writeln!(out, "\n{}: {state}", styled(Style::Strong, &side.direction.to_string()));
    for policy in &side.policies {
        describe_policy(policy, own, out);
    }
    if side.peers.is_empty() {
        _ = writeln!(out, "  {reach}: {}", styled(Style::Bad, "none"));
    } else {
        _ = writeln!(out, "  {reach}:");
    }
    peers(&side.peers, loaded, out);
    if !side.undecided.is_empty() {
        _ = writeln!(
            out,
            "  {} (depends on pod addresses; {}):",
            styled(Style::Strong, "undecided"),
            addresses::CURE
        );
        peers(&side.undecided, loaded, out);
        for line in addresses::reasons(&side.questions) {
            _ = writeln!(out, "    {}", escape::plain(&line));
        }
    }
    for blocked in &side.blocked {
        let routes = escape::plain(&entrances::routes(&blocked.through, &loaded.routes)).into_owned();
        let traffic = VisibleTraffic::of(&blocked.traffic).text();
        _ = writeln!(out, "  {} {traffic}, requested by {routes}", styled(Style::Bad, "forwarding denied:"));
    }
    describe_exposure(side, out);
}

/// Says whether policies isolate the pods in a direction.
pub(super) fn state(side: &Side) -> &'static str {
    match (side.isolated, side.policies.is_empty()) {
        (true, _) => "isolated: only what policies allow",
        (false, true) => "no policy applies: everything is allowed on this side",
        (false, false) => "not isolated: everything except what policies deny",
    }
}

/// Adds a line for each peer.
fn peers(peers: &[PeerTraffic], loaded: &Loaded, out: &mut String) {
    let lines: Vec<(String, String)> = peers
        .iter()
        .map(|peer| {
            let outside = matches!(peer.end, ConnectionEnd::External(_));
            let families = match (outside, peer.families.v4 && peer.families.v6) {
                (false, false) => format!(" ({})", family_names(peer.families).join("")),
                _ => String::new(),
            };
            let through = match &peer.through[..] {
                [] => String::new(),
                some => format!("  {}", escape::plain(&entrances::routes(some, &loaded.routes))),
            };
            (name(&peer.end), format!("{}{families}{through}", VisibleTraffic::of(&peer.traffic).text()))
        })
        .collect();
    columns(&lines, "    ", out);
}

fn columns(lines: &[(String, String)], indent: &str, out: &mut String) {
    let width = lines.iter().map(|(left, _)| left.chars().count()).max().unwrap_or(0);
    for (left, right) in lines {
        _ = writeln!(out, "{indent}{left:<width$}  {right}");
    }
}

fn describe_policy(policy: &PolicyEffect, own: &str, out: &mut String) {
    let at = policy.origin.as_ref().map(|s| format!(" ({s})")).unwrap_or_default();
    let tier = match policy.tier {
        Tier::Developer => "isolates",
        Tier::Admin => "admin tier",
        Tier::Baseline => "baseline tier",
    };
    _ = writeln!(out, "  {}: {tier}", escape::plain(&format!("{}{at}", policy.policy)));
    if policy.effects.is_empty() {
        _ = writeln!(out, "    matches no existing pod");
    }
    // Ends with the same effect share a line.
    let mut by_effect: Vec<(&Effect, Vec<&Effect>)> = Vec::new();
    for effect in &policy.effects {
        let same =
            |e: &Effect| (e.action, &e.matches, &e.alone) == (effect.action, &effect.matches, &effect.alone);
        match by_effect.iter_mut().find(|(first, _)| same(first)) {
            Some((_, all)) => all.push(effect),
            None => by_effect.push((effect, vec![effect])),
        }
    }
    for (first, all) in by_effect {
        let action = match first.action {
            Action::Accept => styled(Style::Good, "allows"),
            Action::Deny => styled(Style::Bad, "denies"),
            Action::Pass => "passes".to_owned(),
        };
        let others = if first.alone == first.matches {
            String::new()
        } else if first.alone.is_none() {
            " (other policies too)".to_owned()
        } else {
            format!(" (only this policy: {})", VisibleTraffic::of(&first.alone).text())
        };
        let ends = connection_ends::abbreviated(&all, |effect| name(&effect.end));
        _ = writeln!(out, "    {action} {} {own} {ends}{others}", VisibleTraffic::of(&first.matches).text());
    }
}

fn describe_exposure(side: &Side, out: &mut String) {
    _ = writeln!(out, "  exposure:");
    columns(&exposure::lines(&side.internet, &side.exposure), "    ", out);
}

fn name(end: &ConnectionEnd) -> String {
    escape::plain(&connection_ends::name(end)).into_owned()
}
