//! What another policy would answer to the same question.

use std::fmt;

use crate::decide::{Denial, Question};
use crate::set::PolicySet;
use crate::table::{Difference, parts_of};

/// How an answer changes from one policy to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// What was denied is granted.
    Gained {
        /// The denial that was.
        was: Denial,
        /// What is granted, in words.
        now: String,
    },
    /// What was granted is denied.
    Lost {
        /// What was granted, in words.
        was: String,
        /// The denial.
        now: Denial,
    },
    /// Both grant, not the same. Each difference says what was and what is.
    Changed(Vec<Difference>),
    /// Both deny, for another reason.
    DeniedOtherwise {
        /// The denial that was.
        was: Denial,
        /// The denial.
        now: Denial,
    },
}

impl Change {
    /// `gained`, `lost`, `changed` or `denied-otherwise`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Gained { .. } => "gained",
            Self::Lost { .. } => "lost",
            Self::Changed(_) => "changed",
            Self::DeniedOtherwise { .. } => "denied-otherwise",
        }
    }

    /// How `new` answers otherwise than `old`; none where it does not.
    pub fn between(old: &PolicySet, new: &PolicySet, question: &Question) -> Option<Self> {
        match (old.decide(question), new.decide(question)) {
            (Err(was), Ok(now)) => Some(Self::Gained { was, now: now.to_string() }),
            (Ok(was), Err(now)) => Some(Self::Lost { was: was.to_string(), now }),
            (Err(was), Err(now)) => {
                (was.reason() != now.reason()).then_some(Self::DeniedOtherwise { was, now })
            }
            (Ok(was), Ok(now)) => {
                let pairs = parts_of(&was).into_iter().zip(parts_of(&now));
                let mut differences: Vec<_> = pairs
                    .filter(|((_, was), (_, now))| was != now)
                    .map(|((field, expected), (_, got))| Difference { field, expected, got })
                    .collect();
                let namespace = [&was, &now].map(|decision| decision.owners.namespace.to_string());
                let [expected, got] = namespace;
                if expected != got && !differences.iter().any(|difference| difference.field == "owner") {
                    differences.insert(0, Difference { field: "namespace's owner", expected, got });
                }
                (!differences.is_empty()).then_some(Self::Changed(differences))
            }
        }
    }
}

/// What changes, on one line.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gained { was, now } => write!(f, "was denied, {}; now {now}", was.reason()),
            Self::Lost { was, now } => write!(f, "was {was}; now denied, {}: {now}", now.reason()),
            Self::DeniedOtherwise { was, now } => {
                write!(f, "was denied, {}; now denied, {}: {now}", was.reason(), now.reason())
            }
            Self::Changed(differences) => {
                let parts = differences
                    .iter()
                    .map(|d| format!("{} {} → {}", d.field, or_none(&d.expected), or_none(&d.got)));
                f.write_str(&parts.collect::<Vec<_>>().join("; "))
            }
        }
    }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}
