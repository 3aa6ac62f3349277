//! What an evaluation tells of its way, to whoever keeps it.

use std::fmt::Display;

use dayfly_core::lease::PolicyObject;

use crate::explain::{Checked, Verdict};

/// Hears of each check and object as the evaluation comes to it.
pub(crate) trait Trace {
    /// Whether anything is kept: what only the trace needs is not worked out otherwise.
    const KEEPS: bool;

    /// A check was passed.
    fn passed(&mut self, check: &'static str, outcome: impl FnOnce() -> String);

    /// Something was looked at that did not apply.
    fn passed_over(&mut self, check: &'static str, why: impl FnOnce() -> String);

    /// An object took part.
    fn object(&mut self, kind: &'static str, name: &dyn Display, generation: &str);
}

/// Keeps nothing, and costs nothing.
pub(crate) struct Silent;

impl Trace for Silent {
    const KEEPS: bool = false;

    fn passed(&mut self, _: &'static str, _: impl FnOnce() -> String) {}

    fn passed_over(&mut self, _: &'static str, _: impl FnOnce() -> String) {}

    fn object(&mut self, _: &'static str, _: &dyn Display, _: &str) {}
}

/// Keeps everything, but for what was passed over beyond the first [`PASSED_OVER`].
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) checks: Vec<Checked>,
    pub(crate) objects: Vec<PolicyObject>,
    passed_over: usize,
}

/// How much that did not apply is told one by one.
const PASSED_OVER: usize = 32;

impl Recorder {
    /// How much more was passed over than is told.
    pub(crate) fn untold(&self) -> usize {
        self.passed_over.saturating_sub(PASSED_OVER)
    }
}

impl Trace for Recorder {
    const KEEPS: bool = true;

    fn passed(&mut self, check: &'static str, outcome: impl FnOnce() -> String) {
        self.checks.push(Checked { check: check.into(), verdict: Verdict::Passed, outcome: outcome() });
    }

    fn passed_over(&mut self, check: &'static str, why: impl FnOnce() -> String) {
        self.passed_over += 1;
        if self.passed_over <= PASSED_OVER {
            self.checks.push(Checked { check: check.into(), verdict: Verdict::PassedOver, outcome: why() });
        }
    }

    fn object(&mut self, kind: &'static str, name: &dyn Display, generation: &str) {
        self.objects.push(PolicyObject {
            kind: kind.to_owned(),
            name: name.to_string(),
            uid: None,
            generation: generation.to_owned(),
        });
    }
}
