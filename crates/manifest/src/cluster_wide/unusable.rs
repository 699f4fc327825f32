//! Unusable parts of objects that the API server has admitted. They fail closed.
//!
//! SEMANTICS C23 and C24: a rule with an unusable part is unusable as a whole. If it accepts, it matches nothing; if it
//! denies or passes, it denies everything in its direction. G-17: an unusable subject selects nothing.

use std::ops::Range;

use palisade_policy::{Action, Direction, Origin, Rule};

use super::crd::Crd;
use crate::{
    decode::{Context, Fields},
    diagnostic::{Code, Diagnostic, Severity},
    options::Admission,
    tree::At,
};

/// An unusable part.
struct Fault {
    span: Range<u32>,
    path: String,
    message: String,
}

/// Reads admitted objects, and collects the unusable parts of the current rule or subject.
pub(super) struct AdmittedReader<'r, 'c> {
    pub(super) cx: &'r mut Context<'c>,
    pub(super) crd: Crd,
    faults: Vec<Fault>,
}

impl<'r, 'c> AdmittedReader<'r, 'c> {
    pub(super) fn new(cx: &'r mut Context<'c>, crd: Crd) -> Self {
        Self { cx, crd, faults: Vec::new() }
    }

    /// Returns whether unknown fields are still in the object, since it was not compared with our schema.
    pub(super) fn is_raw(&self) -> bool {
        self.cx.admission == Admission::Passed
    }

    /// Records that the value at `at` is unusable.
    pub(super) fn unusable(&mut self, at: &At<'_>, message: impl Into<String>) {
        self.faults.push(Fault { span: at.span(), path: at.path(), message: message.into() });
    }

    /// Returns the mapping at `at`. A field that isn't in `known` could restrict the others, so it makes the mapping
    /// unusable, unless the API server has dropped it.
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

    /// Returns the only field of a mapping in which exactly one of the `known` fields must be set.
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

    /// Returns a required field.
    pub(super) fn required<'a>(&mut self, fields: Fields<'a>, name: &str) -> Option<At<'a>> {
        let found = fields.get(name);
        if found.is_none() {
            self.unusable(fields.at, format!("`{name}` is missing"));
        }
        found
    }

    /// Returns the elements of a list that must not be empty.
    pub(super) fn non_empty_list<'a>(&mut self, at: &'a At<'a>) -> Vec<At<'a>> {
        let items = self.cx.list(at);
        if items.is_empty() {
            self.unusable(at, "an empty list");
        }
        items
    }

    /// Returns the rule, or what replaces it if a part is unusable. The rule keeps its index.
    pub(super) fn fail_closed(&mut self, rule: Rule, direction: Direction) -> Rule {
        if self.faults.is_empty() {
            return rule;
        }
        match rule.action {
            Action::Accept => {
                self.report("the rule is unusable and matches nothing");
                Rule { peers: Some(Vec::new()), ..rule }
            }
            Action::Deny | Action::Pass => {
                self.report(&format!("the rule is unusable and denies all {direction} of its subjects"));
                deny_everything(rule.origin)
            }
        }
    }

    /// Returns whether everything is usable. Otherwise reports the unusable parts with the consequence.
    pub(super) fn check_usable(&mut self, consequence: &str) -> bool {
        let usable = self.faults.is_empty();
        self.report(consequence);
        usable
    }

    fn report(&mut self, consequence: &str) {
        for fault in self.faults.drain(..) {
            let message = format!("{}; {consequence}", fault.message);
            let path = Some(fault.path);
            let diagnostic =
                Diagnostic { path, ..Diagnostic::new(Severity::Warning, Code::Unusable, message) };
            self.cx.report_span(fault.span, diagnostic);
        }
    }
}

fn deny_everything(origin: Option<Origin>) -> Rule {
    Rule { name: None, action: Action::Deny, peers: None, ports: None, origin }
}
