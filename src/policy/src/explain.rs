//! Why: every object and check that an evaluation looked at, in order, and what would have to change.

use std::borrow::Cow;
use std::fmt;

use dayfly_core::lease::{Check, Grounds, PolicyObject};

use crate::decide::{Audited, Decision, Denial, Question, join};
use crate::owners::{Claimed, Narrowing};
use crate::set::PolicySet;
use crate::trace::Recorder;

/// The most checks that a lease's grounds have.
pub const GROUNDS_CHECKS: usize = 24;
/// The most bytes of a check's outcome in a lease's grounds.
pub const OUTCOME_BYTES: usize = 160;

/// An evaluation with its way there. For those who may read policy: it names objects of others. A workload is told
/// [`Denial`] alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What [`PolicySet::decide`] says of the same question.
    pub answer: Result<Decision, Denial>,
    /// The objects that took part, in the order they were come to.
    pub objects: Vec<PolicyObject>,
    /// Each check, in order; for a denial the last one is the one that refused.
    pub checks: Vec<Checked>,
    /// For a denial, the first thing that would have to change.
    pub change: Option<String>,
    /// What Grants of mode Audit would have decided.
    pub audited: Vec<Audited>,
}

/// An explanation in words: what is shown, sent and kept, the same text everywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What comes of it.
    pub answer: Answer,
    /// Each check, in order.
    pub checks: Vec<Checked>,
    /// The objects that took part.
    pub objects: Vec<PolicyObject>,
    /// What Grants of mode Audit would have decided.
    pub audited: Vec<String>,
    /// For a denial, the first thing that would have to change.
    pub change: Option<String>,
}

/// What comes of an evaluation, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Yes, and this is what it may have.
    Granted(String),
    /// No.
    Denied {
        /// The stable reason.
        reason: String,
        /// The denial's own text.
        message: String,
    },
}

/// One check, or one thing that was looked at for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Its name: `owner`, `narrowing`, `grant`, `target`, `bound`, `audience`, `scope`, `claims`, `ttl`, `live`.
    pub check: Cow<'static, str>,
    /// What came of it.
    pub verdict: Verdict,
    /// What it compared, in words.
    pub outcome: String,
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was passed.
    Passed,
    /// What was looked at does not apply.
    PassedOver,
    /// It refused.
    Refused,
}

impl PolicySet {
    /// Decides as [`PolicySet::decide`], by the same walk, and tells all of it.
    pub fn explain(&self, question: &Question) -> Explanation {
        let mut trace = Recorder::default();
        let answer = self.evaluate(question, &mut trace);
        let untold = trace.untold();
        let Recorder { mut checks, objects, .. } = trace;
        if untold > 0 {
            let outcome = format!("{untold} more Grants do not match");
            checks.push(Checked { check: "grant".into(), verdict: Verdict::PassedOver, outcome });
        }
        let change = answer.as_ref().err().map(|denial| {
            let (check, outcome) = (denial.check().into(), denial.to_string());
            checks.push(Checked { check, verdict: Verdict::Refused, outcome });
            self.change(question, denial)
        });
        Explanation { answer, objects, checks, change, audited: self.audit(question) }
    }

    /// The first thing that would have to change for the answer to become another.
    fn change(&self, question: &Question, denial: &Denial) -> String {
        let Question { namespace, service_account, target, .. } = question;
        let list =
            |names: &[String]| if names.is_empty() { "(invalid ones)".to_owned() } else { names.join(", ") };
        match denial {
            Denial::Unowned(_) => {
                let ended = match question.unowned {
                    Some(grace) => format!(" (the grace for those without one ended at {})", grace.until),
                    None => String::new(),
                };
                format!("add namespace {namespace} to spec.namespaces of one Owner{ended}")
            }
            Denial::OwnerAmbiguous(_) => {
                let rivals = self.rivals(namespace, &question.namespace_labels);
                let rivals: Vec<_> = rivals.iter().map(ToString::to_string).collect();
                format!("leave namespace {namespace} to one valid Owner; it is claimed by {}", list(&rivals))
            }
            Denial::NarrowingAmbiguous(_) | Denial::NarrowedUnowned(_) => {
                let Claimed::By(owner, _) = self.claims.of(namespace, &question.namespace_labels) else {
                    return format!("leave namespace {namespace} to one valid Owner");
                };
                let name = &owner.name;
                match owner.narrowing(&question.who()) {
                    Narrowing::Ambiguous(several) => {
                        let several: Vec<_> = several.iter().map(ToString::to_string).collect();
                        format!(
                            "let spec.delegates of Owner {name} give this workload to one of {}",
                            list(&several)
                        )
                    }
                    Narrowing::To(narrower, by) => {
                        format!(
                            "create Owner {narrower}, to which Owner {name} delegates {by}, or change that delegate"
                        )
                    }
                    Narrowing::None | Narrowing::Unknown => format!("change spec.delegates of Owner {name}"),
                }
            }
            Denial::ControllerUnknown(_) => {
                "let the broker read what controls pods: the API server answers, and RBAC allows `get` of that kind"
                    .to_owned()
            }
            Denial::TargetUnknown(_) => format!("create Target {target}, or put right what is wrong with it"),
            Denial::GrantMissing { .. } => {
                let mut audits = self.audits_in(namespace).filter(|grant| {
                    grant.spec.target == *target
                        && grant.is_for(service_account, &question.service_account_labels)
                });
                match audits.next() {
                    Some(audit) => format!("set spec.mode of Grant {} to Enforce", audit.name),
                    None => format!(
                        "add a Grant in namespace {namespace} that gives service account {service_account} target {target}"
                    ),
                }
            }
            Denial::GrantAmbiguous(_) => {
                "name one of these Grants in the request, or remove the others".to_owned()
            }
            Denial::GrantUnknown { grant, .. } => {
                format!("name another Grant than {grant}, or none, or change that one")
            }
            Denial::ScopeNotGranted { grant, scope } => {
                format!("ask for less, or add {} to spec.scope of Grant {grant}", join(scope))
            }
            Denial::ScopeAboveCeiling { scope, .. } => format!(
                "ask for less, or let an entry of spec.ceiling of Target {target} that is for namespace {namespace} or its \
                 owner, and accepts this audience, service account and token, name {}",
                join(scope)
            ),
            Denial::ClaimAboveCeiling { grant, claims, .. } => format!(
                "remove {} from spec.claims of Grant {grant}, or let spec.ceiling of Target {target} allow their values",
                claims.join(", ")
            ),
            Denial::AudienceNotGranted { grant, audience, .. } => format!(
                "ask for another audience, or let Grant {grant}, Target {target} and its ceiling allow {audience}"
            ),
            Denial::AudienceAmbiguous { grant, .. } => {
                format!("name an audience in the request, or in spec.audience of Grant {grant}")
            }
            Denial::TokenUnbound => {
                let say = format!("let Target {target}, its ceiling and the Grant say unboundTokens: true");
                format!("use a projected serviceAccountToken volume, or {say}")
            }
            Denial::TtlTooShort { asked: true, .. } => "ask for 30 s or longer".to_owned(),
            Denial::TtlTooShort { asked: false, .. } => {
                "wait until the signing key is rotated, or the bound that is too near is moved".to_owned()
            }
        }
    }
}

impl Denial {
    /// The name of the check that refused.
    pub const fn check(&self) -> &'static str {
        match self {
            Self::Unowned(_) | Self::OwnerAmbiguous(_) => "owner",
            Self::NarrowingAmbiguous(_) | Self::NarrowedUnowned(_) | Self::ControllerUnknown(_) => {
                "narrowing"
            }
            Self::GrantMissing { .. } | Self::GrantAmbiguous(_) | Self::GrantUnknown { .. } => "grant",
            Self::TargetUnknown(_) => "target",
            Self::TokenUnbound => "bound",
            Self::AudienceNotGranted { .. } | Self::AudienceAmbiguous { .. } => "audience",
            Self::ScopeNotGranted { .. } | Self::ScopeAboveCeiling { .. } => "scope",
            Self::ClaimAboveCeiling { .. } => "claims",
            Self::TtlTooShort { .. } => "ttl",
        }
    }
}

impl Explanation {
    /// What a lease keeps of it: the objects, and each check that was passed, shortened.
    pub fn grounds(&self) -> Grounds {
        let passed = self.checks.iter().filter(|checked| checked.verdict == Verdict::Passed);
        let check = |checked: &Checked| Check {
            name: checked.check.to_string(),
            outcome: shortened(&checked.outcome, OUTCOME_BYTES),
        };
        Grounds { objects: self.objects.clone(), checks: passed.take(GROUNDS_CHECKS).map(check).collect() }
    }
}

impl Explanation {
    /// It, in words.
    pub fn told(&self) -> Told {
        let answer = match &self.answer {
            Ok(decision) => Answer::Granted(decision.to_string()),
            Err(denial) => Answer::Denied { reason: denial.reason().to_owned(), message: denial.to_string() },
        };
        Told {
            answer,
            checks: self.checks.clone(),
            objects: self.objects.clone(),
            audited: self.audited.iter().map(ToString::to_string).collect(),
            change: self.change.clone(),
        }
    }
}

impl Told {
    /// A refusal by one check, which is all there is to it so far.
    pub fn refused(
        check: &'static str,
        reason: impl Into<String>,
        message: impl Into<String>,
        change: impl Into<String>,
    ) -> Self {
        let mut told = Self::of(Answer::Granted(String::new()));
        told.refuse(check, reason, message, change);
        told
    }

    /// What was granted, without the way to it.
    pub fn granted(what: impl Into<String>) -> Self {
        Self::of(Answer::Granted(what.into()))
    }

    const fn of(answer: Answer) -> Self {
        Self { answer, checks: Vec::new(), objects: Vec::new(), audited: Vec::new(), change: None }
    }

    /// Whether it is granted.
    pub const fn is_granted(&self) -> bool {
        matches!(self.answer, Answer::Granted(_))
    }

    /// One more check, which did not refuse.
    pub fn push(
        &mut self,
        check: impl Into<Cow<'static, str>>,
        verdict: Verdict,
        outcome: impl Into<String>,
    ) {
        self.checks.push(Checked { check: check.into(), verdict, outcome: outcome.into() });
    }

    /// One more check, which refused.
    pub fn refuse(
        &mut self,
        check: &'static str,
        reason: impl Into<String>,
        message: impl Into<String>,
        change: impl Into<String>,
    ) {
        let (reason, message) = (reason.into(), message.into());
        self.push(check, Verdict::Refused, message.clone());
        self.answer = Answer::Denied { reason, message };
        self.change = Some(change.into());
    }

    /// The answer alone: what a workload is told of itself. The way there names objects of others.
    #[must_use]
    pub fn own(&self) -> Self {
        Self::of(self.answer.clone())
    }

    /// As it is kept in memory for a while: long texts cut, and of what was passed over the first few.
    #[must_use]
    pub fn kept(mut self) -> Self {
        let mut passed_over = 0_usize;
        self.checks.retain(|checked| {
            passed_over += usize::from(checked.verdict == Verdict::PassedOver);
            checked.verdict != Verdict::PassedOver || passed_over <= KEPT_PASSED_OVER
        });
        for checked in &mut self.checks {
            cut(&mut checked.outcome, KEPT_BYTES);
        }
        if passed_over > KEPT_PASSED_OVER {
            let outcome = format!("{} more do not match", passed_over - KEPT_PASSED_OVER);
            let before_the_last = self.checks.len().saturating_sub(1);
            let more = Checked { check: "grant".into(), verdict: Verdict::PassedOver, outcome };
            self.checks.insert(before_the_last, more);
        }
        self.audited.truncate(KEPT_PASSED_OVER);
        for text in self.audited.iter_mut().chain(&mut self.change) {
            cut(text, KEPT_BYTES);
        }
        let (Answer::Granted(text) | Answer::Denied { message: text, .. }) = &mut self.answer;
        cut(text, KEPT_BYTES);
        self
    }
}

/// How much that did not apply is kept one by one.
const KEPT_PASSED_OVER: usize = 8;
/// The most bytes of one text that is kept.
const KEPT_BYTES: usize = 512;

fn cut(text: &mut String, most: usize) {
    if text.len() > most {
        *text = shortened(text, most);
    }
    text.shrink_to_fit();
}

/// At most this many bytes of a text, at a character's end.
pub fn shortened(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let mut end = most - '…'.len_utf8();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", text.get(..end).unwrap_or_default())
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Passed => "ok",
            Self::PassedOver => "-",
            Self::Refused => "no",
        })
    }
}

impl fmt::Display for Decision {
    /// `owner payments, Grant payments/orders, scope read, write, audience https://orders.example, 300 s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "owner {}", self.owners.namespace)?;
        if let Some(narrowed) = &self.owners.narrowed {
            write!(f, " narrowed to {narrowed}")?;
        }
        write!(f, ", Grant {}, scope {}, audience {}", self.grant, join(&self.scope), self.audience)?;
        if !self.claims.is_empty() {
            write!(f, ", claims {}", self.claims.keys().map(String::as_str).collect::<Vec<_>>().join(", "))?;
        }
        write!(f, ", {} s", self.ttl.as_secs())
    }
}

impl fmt::Display for Audited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.would {
            Ok(decision) => write!(f, "by Grant {} would have been granted: {decision}", self.grant),
            Err(denial) => {
                write!(f, "by Grant {} would have been denied: {}: {denial}", self.grant, denial.reason())
            }
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.told().fmt(f)
    }
}

/// A line for the answer, one for each check and object, one for what would have to change.
impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.answer {
            Answer::Granted(what) => writeln!(f, "granted: {what}")?,
            Answer::Denied { reason, message } => writeln!(f, "denied: {reason}: {message}")?,
        }
        for Checked { check, verdict, outcome } in &self.checks {
            writeln!(f, "  {verdict:2}  {check:9}  {outcome}")?;
        }
        for object in &self.objects {
            writeln!(f, "  by  {} {} {}", object.kind, object.name, object.generation)?;
        }
        for audited in &self.audited {
            writeln!(f, "  audit  {audited}")?;
        }
        match &self.change {
            Some(change) => writeln!(f, "to change: {change}"),
            None => Ok(()),
        }
    }
}
