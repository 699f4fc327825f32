//! What is found unusable in an object that the API server has admitted, and what becomes of it: it fails closed.
//!
//! SEMANTICS C23 and C24: a rule of which anything can't be used is unusable as a whole. If it accepts it matches nothing;
//! if it denies or passes it denies everything in its direction. G-17: a subject that can't be used selects nothing.

use std::ops::Range;

use palisade_policy::{Action, Direction, Origin, Rule};

use super::crd::Crd;
use crate::{
    decode::{Context, Fields},
    diagnostic::{Code, Diagnostic, Severity},
    options::Admission,
    tree::At,
};

/// One thing that can't be used.
struct Fault {
    span: Range<u32>,
    path: String,
    code: Code,
    message: String,
}

/// Reads admitted objects, and collects what can't be used in the rule or subject that is being read.
pub(super) struct AdmittedReader<'r, 'c> {
    pub(super) cx: &'r mut Context<'c>,
    pub(super) crd: Crd,
    faults: Vec<Fault>,
}

impl<'r, 'c> AdmittedReader<'r, 'c> {
    pub(super) fn new(cx: &'r mut Context<'c>, crd: Crd) -> Self {
        Self { cx, crd, faults: Vec::new() }
    }

    /// Whether fields that we don't know are still in the object, since nobody has compared it with our schema.
    pub(super) fn is_raw(&self) -> bool {
        self.cx.admission == Admission::Passed
    }

    /// Notes that something at `at` can't be used.
    pub(super) fn unusable(&mut self, at: &At<'_>, message: impl Into<String>) {
        self.fault(at, Code::Unusable, message);
    }

    /// Notes something that is usable in itself, and that this version doesn't enforce.
    pub(super) fn not_enforced(&mut self, at: &At<'_>, message: impl Into<String>) {
        self.fault(at, Code::NotEnforced, message);
    }

    fn fault(&mut self, at: &At<'_>, code: Code, message: impl Into<String>) {
        self.faults.push(Fault { span: at.span(), path: at.path(), code, message: message.into() });
    }

    /// The mapping at `at`. A field that isn't in `known` makes it unusable, unless the API server has dropped it: it
    /// could narrow what the others say.
    pub(super) fn fields<'a>(&mut self, at: &'a At<'a>, known: &[&str]) -> Option<Fields<'a>> {
        let fields = self.cx.any_fields(at)?;
        if self.is_raw() {
            for (name, place, value) in at.entries() {
                if !known.contains(&name) && !value.is_null() {
                    self.unusable(&place, format!("unknown field \"{name}\""));
                }
            }
        }
        Some(fields)
    }

    /// The only field of a mapping that is to have exactly one of those in `known`.
    pub(super) fn only_field<'a>(
        &mut self,
        at: &'a At<'a>,
        known: &'static [&'static str],
        what: &str,
    ) -> Option<(&'static str, At<'a>)> {
        let fields = self.fields(at, known);
        let set = |name: &&'static str| fields.and_then(|f| f.get(name)).map(|at| (*name, at));
        let mut found = known.iter().filter_map(set);
        match (found.next(), found.next()) {
            (Some(only), None) => Some(only),
            (None, _) => {
                self.unusable(at, format!("no known kind of {what}"));
                None
            }
            (Some(_), Some(_)) => {
                self.unusable(at, format!("more than one kind of {what}"));
                None
            }
        }
    }

    /// A field that has to be there.
    pub(super) fn needed<'a>(&mut self, fields: Fields<'a>, name: &str) -> Option<At<'a>> {
        let found = fields.get(name);
        if found.is_none() {
            self.unusable(fields.at, format!("`{name}` is missing"));
        }
        found
    }

    /// The elements of a list that has at least one.
    pub(super) fn filled_list<'a>(&mut self, at: &'a At<'a>) -> Vec<At<'a>> {
        let items = self.cx.list(at);
        if items.is_empty() {
            self.unusable(at, "an empty list, which says nothing");
        }
        items
    }

    /// The rule as read, or what is left of it if something in it can't be used. Its index stays.
    pub(super) fn settle(&mut self, rule: Rule, direction: Direction) -> Rule {
        if self.faults.is_empty() {
            return rule;
        }
        match rule.action {
            Action::Accept => {
                self.report("the rule can't be used and matches nothing");
                Rule { peers: Some(Vec::new()), ..rule }
            }
            Action::Deny | Action::Pass => {
                self.report(&format!("the rule can't be used and denies all {direction} of its subjects"));
                deny_everything(rule.origin)
            }
        }
    }

    /// Whether nothing unusable was found; if something was, it is reported with what becomes of it.
    pub(super) fn is_usable_or(&mut self, consequence: &str) -> bool {
        let usable = self.faults.is_empty();
        self.report(consequence);
        usable
    }

    fn report(&mut self, consequence: &str) {
        for fault in self.faults.drain(..) {
            let message = format!("{}; {consequence}", fault.message);
            let path = Some(fault.path);
            let diagnostic = Diagnostic { path, ..Diagnostic::new(Severity::Warning, fault.code, message) };
            self.cx.report_span(fault.span, diagnostic);
        }
    }
}

fn deny_everything(origin: Option<Origin>) -> Rule {
    Rule { name: None, action: Action::Deny, peers: None, ports: None, origin }
}
