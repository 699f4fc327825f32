//! An explanation as a tree.

use std::fmt::Write as _;

use palisade_analysis::edit::{Edit, PairChange};
use palisade_policy::{
    Action, Direction, Endpoint, Origin, Tier, Traffic, Verdict,
    walk::{Decider, EntryStep, PolicyStep, RuleStep, Walk},
};

use super::{
    answer::{Answer, ExplainedPairs, Pair},
    suggestion::Suggestion,
};
use crate::{
    addresses,
    can::endpoint_name,
    connection_ends, escape,
    output::{Style, styled},
    reasons::{called, families_text},
    traffic::{VisibleTraffic, range_text},
    verdict::Conclusion,
};

/// Renders the trees, with colors; the writer strips them where they don't belong.
///
/// If some of the cluster could not be read (`incomplete`), the answer is undecided.
pub(crate) fn text(answer: &Answer, to_deny: bool, incomplete: bool) -> String {
    let mut out = String::new();
    for cause in &answer.causes {
        let text = format!("{}{}", cause.text, origin_text(cause.origin.as_ref()));
        _ = writeln!(out, "{} {}", styled(Style::Strong, "cause:"), escape::plain(&text));
    }
    if !answer.causes.is_empty() {
        out.push('\n');
    }
    if let Some(audited) = &answer.audited {
        let traffic = VisibleTraffic::of(&audited.traffic).text();
        let text = format!("{traffic} {}", audited.text());
        _ = writeln!(out, "{} {}\n", styled(Style::Strong, "audit:"), escape::plain(&text));
    }
    for note in &answer.notes {
        _ = writeln!(out, "note: {}\n", escape::plain(&note.text));
    }
    if let Some(host) = &answer.resolved {
        let word = styled(Style::Strong, &format!("once {host} is resolved"));
        _ = writeln!(out, "{word}, with agents that learn addresses (--domain-names=on):\n");
    }
    if let Some(undecided) = &answer.undecided {
        let word = styled(Conclusion::Undecided.style(), Conclusion::Undecided.word());
        _ = writeln!(out, "{word}: {}\n", escape::plain(&undecided.text));
    }
    if incomplete {
        let word = styled(Conclusion::Undecided.style(), Conclusion::Undecided.word());
        _ = writeln!(out, "{word}: not all of the cluster could be read; below is what could be read\n");
    }
    for (i, group) in answer.groups.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        let head = format!("{} → {}", answer.source, answer.destination);
        _ = writeln!(out, "{}  {}", styled(Style::Strong, &escape::plain(&head)), scope(group, answer));
        for part in &group.explanation.parts {
            _ = writeln!(
                out,
                "{}  {}  egress: {}; ingress: {}",
                verdict(part.verdict),
                VisibleTraffic::of(&part.traffic).text(),
                decider(&part.egress.1, Direction::Egress),
                decider(&part.ingress.1, Direction::Ingress)
            );
        }
        undecided(group, &mut out);
        for walk in [&group.explanation.egress, &group.explanation.ingress] {
            direction(walk, &group.traffic, &mut out);
        }
    }
    suggestions(answer, to_deny, &mut out);
    out
}

/// Adds the traffic that depends on addresses that are not known, and the rules that ask for them.
fn undecided(group: &ExplainedPairs, out: &mut String) {
    let traffic = &group.explanation.undecided;
    if traffic.is_none() {
        return;
    }
    let word = styled(Conclusion::Undecided.style(), Conclusion::Undecided.word());
    let traffic = VisibleTraffic::of(traffic).text();
    _ = writeln!(out, "{word}  {traffic}  depends on pod addresses; {}", addresses::CURE);
    for line in addresses::reasons(&group.explanation.questions) {
        _ = writeln!(out, "  {}", escape::plain(&line));
    }
    _ = writeln!(out, "  below, one of the possible addresses is assumed");
}
/// The most pairs that are listed.
const LISTED: usize = 4;

/// Formats the pairs and families of a group.
fn scope(group: &ExplainedPairs, answer: &Answer) -> String {
    let families = families_text(group.families());
    let mut pairs: Vec<String> = group.pairs.iter().map(pair).collect();
    pairs.sort();
    pairs.dedup();
    let only = answer.groups.len() == 1 || pairs.len() == 1 && pairs[0].is_empty();
    let pairs = if only {
        String::new()
    } else {
        let shown: Vec<String> = pairs.iter().take(LISTED).cloned().collect();
        let more = group.count().max(pairs.len()) - shown.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!(", {}{more}", shown.join(", "))
    };
    format!("{}, {families}{pairs}", VisibleTraffic::of(&group.traffic).text())
}

fn pair(pair: &Pair) -> String {
    let name = |end: &Endpoint| match (end, &pair.region) {
        (Endpoint::External(_), Some(region)) => connection_ends::abbreviated(&region.ranges, range_text),
        (Endpoint::External(address), None) => address.to_string(),
        _ => endpoint_name(end),
    };
    format!("{} → {}", name(&pair.source), name(&pair.destination))
}

fn verdict(verdict: Verdict) -> String {
    let (style, word) = if verdict.is_allow() { (Style::Good, "allowed") } else { (Style::Bad, "denied ") };
    styled(style, word)
}

fn origin_text(at: Option<&Origin>) -> String {
    at.map(|s| format!(" ({})", escape::plain(&s.to_string()))).unwrap_or_default()
}

/// Formats what decides.
pub(crate) fn decider(decider: &Decider, direction: Direction) -> String {
    let own = if direction == Direction::Egress { "the source" } else { "the destination" };
    match decider {
        Decider::Itself => "a pod always reaches itself".to_owned(),
        Decider::NoSubject => format!("{own} is not a pod on the cluster network"),
        Decider::OwnNode => "a pod's own node is always allowed".to_owned(),
        Decider::NotIsolated => format!("no policy isolates {own}"),
        Decider::Hairpin => "a pod can reach itself through a service".to_owned(),
        Decider::Rule(rule) => {
            let place = origin_text(rule.origin.as_ref());
            format!("{}, {direction}[{}]{}{place}", rule.policy, rule.index, called(rule))
        }
        Decider::Isolated(policies) => {
            let names: Vec<String> = policies.iter().map(ToString::to_string).collect();
            format!("isolated by {}, and no rule matches", connection_ends::abbreviated(&names, Clone::clone))
        }
    }
}

/// Renders one direction: policies, rules, peers and ports.
fn direction(walk: &Walk, asked: &Traffic, out: &mut String) {
    let allowed = walk.allowed();
    let says = if allowed == *asked {
        styled(Style::Good, "allows it")
    } else if allowed.is_none() {
        styled(Style::Bad, "denies it")
    } else {
        format!("allows {} of it", VisibleTraffic::of(&allowed).text())
    };
    let subject = walk.subject.as_ref().map(|key| format!(" of {key}")).unwrap_or_default();
    _ = writeln!(out, "\n{}{subject}: {says}", styled(Style::Strong, &walk.direction.to_string()));
    if walk.policies.is_empty() {
        for part in &walk.parts {
            _ = writeln!(out, "└─ {}", decider(&part.decider, walk.direction));
        }
        return;
    }
    let mut tree = Tree { out };
    let mut nodes: Vec<Node> = walk.policies.iter().map(|p| policy(p, walk.direction)).collect();
    let last = walk.parts.iter().filter(|part| !matches!(part.decider, Decider::Rule(_)));
    nodes.extend(last.map(|part| {
        let what = VisibleTraffic::of(&part.traffic).text();
        Node::leaf(format!("{} {what}: {}", verdict(part.verdict), decider(&part.decider, walk.direction)))
    }));
    tree.draw(&nodes, "");
}

/// A line of a tree and its children.
struct Node {
    text: String,
    below: Vec<Node>,
}

impl Node {
    fn leaf(text: String) -> Self {
        Self { text, below: Vec::new() }
    }
}

struct Tree<'o> {
    out: &'o mut String,
}

impl Tree<'_> {
    fn draw(&mut self, nodes: &[Node], indent: &str) {
        for (i, node) in nodes.iter().enumerate() {
            let is_last = i + 1 == nodes.len();
            let (branch, inner) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            _ = writeln!(self.out, "{indent}{branch}{}", node.text);
            self.draw(&node.below, &format!("{indent}{inner}"));
        }
    }
}

fn policy(step: &PolicyStep, direction: Direction) -> Node {
    let tier = match step.tier {
        Tier::Admin => format!("admin tier, priority {}: ", step.priority),
        Tier::Developer => String::new(),
        Tier::Baseline if step.priority == i32::MAX => "baseline tier: ".to_owned(),
        Tier::Baseline => format!("baseline tier, priority {}: ", step.priority),
    };
    let mut below: Vec<Node> = step.rules.iter().map(|r| rule(r, direction)).collect();
    if below.is_empty() {
        below.push(Node::leaf(format!("no {direction} rules: allows nothing")));
    }
    let text =
        format!("{tier}{}{}", escape::plain(&step.policy.to_string()), origin_text(step.origin.as_ref()));
    Node { text, below }
}

fn rule(step: &RuleStep, direction: Direction) -> Node {
    let word = match step.action {
        Action::Accept => "allows",
        Action::Deny => "denies",
        Action::Pass => "passes",
    };
    let does = if !step.takes.is_none() {
        let style = if step.action == Action::Deny { Style::Bad } else { Style::Good };
        styled(style, &format!("{word} {}", VisibleTraffic::of(&step.takes).text()))
    } else if step.peer_matches && !step.holds.is_none() {
        format!("{word} {}, already decided by an earlier rule", VisibleTraffic::of(&step.holds).text())
    } else {
        let why = match (step.peer_matches, step.holds.is_none()) {
            (true, _) => "the peer matches, the port does not",
            (false, false) => "the port matches, the peer does not",
            (false, true) => "neither peer nor port matches",
        };
        format!("does not match: {why}")
    };
    let (called, place) = (called(&step.rule), origin_text(step.rule.origin.as_ref()));
    let text = format!("{direction}[{}]{called}{place} {does}", step.rule.index);
    let mut below = entries(step.peers.as_deref(), "peer", "every peer");
    below.extend(entries(step.ports.as_deref(), "port", "every port"));
    Node { text, below }
}

fn entries(steps: Option<&[EntryStep]>, word: &str, all: &str) -> Vec<Node> {
    let Some(steps) = steps else { return vec![Node::leaf(format!("✓ {all}"))] };
    let line = |entry: &EntryStep| {
        let mark = if entry.matches { styled(Style::Good, "✓") } else { styled(Style::Bad, "✗") };
        let text = palisade_names::describe_entry(&entry.entry);
        // `every TCP port` and `port "http"/TCP` have the word already.
        let word = if word == "port" && text.contains(word) { String::new() } else { format!("{word} ") };
        Node::leaf(format!("{mark} {word}{}{}", escape::plain(&text), origin_text(entry.origin.as_ref())))
    };
    steps.iter().map(line).collect()
}

/// The most other connections that are listed for an edit; the rest is counted.
const MAX_CHANGES: usize = 10;

fn suggestions(answer: &Answer, to_deny: bool, out: &mut String) {
    let wish = if to_deny { "deny" } else { "allow" };
    let wanted = if to_deny { Conclusion::Allowed } else { Conclusion::Denied };
    let is_wanted = answer.conclusion() == wanted;
    // Of every port, only the declared ones are to be allowed.
    let what = match answer.every_port && !to_deny {
        true => {
            let all = answer.wanted.pairs.iter().map(|pair| &pair.traffic);
            let all = all.fold(Traffic::none(), |sum, traffic| sum.union(traffic));
            format!("{}, which the destination declares", VisibleTraffic::of(&all).text())
        }
        false => "it".to_owned(),
    };
    let Some((first, others)) = answer.suggestions.split_first() else {
        if is_wanted && answer.wanted.pairs.is_empty() {
            _ = writeln!(out, "\nGive a port to see how to {wish} it.");
        } else if is_wanted {
            _ = writeln!(out, "\nNo edit of the policies was found that would {wish} it.");
        }
        return;
    };
    let heading = styled(Style::Strong, &format!("To {wish} {what}"));
    _ = writeln!(out, "\n{heading}: {}.", escape::plain(&first.text()));
    changes(first, out);
    for patch in &first.patches {
        out.push_str(&patch.patch);
    }
    first.commands.iter().for_each(|command| out.push_str(command));
    for text in &first.by_hand {
        for line in text.lines() {
            _ = writeln!(out, "    {line}");
        }
    }
    for other in others {
        _ = writeln!(out, "\n{}: {}.", styled(Style::Strong, "Or"), escape::plain(&other.text()));
        changes(other, out);
    }
    if !others.is_empty() {
        _ = writeln!(out, "\n-o json has the patch of each alternative.");
    }
}

/// Lists what else a suggestion opens and closes.
fn changes(suggestion: &Suggestion, out: &mut String) {
    let effect = &suggestion.plan.effect;
    if effect.is_none() {
        _ = writeln!(out, "Nothing else opens or closes.");
    }
    if suggestion.edits().iter().any(Edit::selects_every_pod) {
        _ = writeln!(
            out,
            "  note: it selects every pod of the namespace, also future ones: no label tells them apart"
        );
    }
    if !suggestion.is_complete() {
        _ = writeln!(
            out,
            "  note: to do by hand: no patch of the file has this effect alone, for instance because objects share the lines; \
             `palisade diff` shows what your edit changes"
        );
    }
    for (list, word) in [(&effect.opens, "opens"), (&effect.closes, "closes")] {
        for change in list.iter().take(MAX_CHANGES) {
            _ = writeln!(out, "  also {word}: {}", escape::plain(&change_text(change)));
        }
        if list.len() > MAX_CHANGES {
            _ = writeln!(out, "  also {word}: {} more", list.len() - MAX_CHANGES);
        }
    }
}

fn change_text(change: &PairChange) -> String {
    let PairChange { from, to, families, traffic } = change;
    let family = match (families.v4, families.v6) {
        (true, false) => ", IPv4",
        (false, true) => ", IPv6",
        _ => "",
    };
    let (from, to) = (connection_ends::name(from), connection_ends::name(to));
    format!("{from} → {to}  {}{family}", VisibleTraffic::of(traffic).text())
}
