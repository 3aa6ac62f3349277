//! Revocations that were written: one, or a page of them, as far as the operator may read them.

use std::sync::Arc;

use dayfly_core::ids::{OwnerName, RuleId};
use dayfly_core::limits::RULES_LOOKED_AT;
use dayfly_core::rule::Rule;

use crate::counts::LiveCounts;
use crate::list::page_size;
use crate::operator::{By, Operator, Verb};
use crate::reads::{Read, in_words};
use crate::{Broker, Error};

/// A revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Its rule.
    pub rule: Arc<Rule>,
    /// How many live leases it ended, as far as counted. None for one that is folded away for so long that it is not in
    /// memory any more.
    pub counts: Option<LiveCounts>,
}

/// Which revocations to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListRevocations {
    /// Only those whose selector names this owner.
    pub owner: Option<OwnerName>,
    /// Only those that cover something a verifier may still accept, or hold.
    pub in_force_only: bool,
    /// Only those that hold.
    pub holds_only: bool,
    /// Only those before this one: `next` of the page before.
    pub before: Option<RuleId>,
    /// At most this many, 1 to 1000; none is 100.
    pub limit: Option<usize>,
}

/// A page of revocations, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RevocationPage {
    /// Their rules. A page may be shorter than asked although more follow.
    pub rules: Vec<Arc<Rule>>,
    /// Where the next page begins; none at the end.
    pub next: Option<RuleId>,
}

impl ListRevocations {
    /// The filter in words.
    fn text(&self) -> String {
        let flag = |set: bool| if set { "true".to_owned() } else { String::new() };
        let owner = self.owner.as_ref().map(ToString::to_string).unwrap_or_default();
        in_words(&[
            ("owner", owner),
            ("in_force_only", flag(self.in_force_only)),
            ("holds_only", flag(self.holds_only)),
        ])
    }
}

impl Broker {
    /// A revocation: verb `get` on the owner that its selector names, or on all owners. Whoever wrote it may read it too.
    /// Its live leases are counted when it is written; after a start, when it is read here for the first time.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none, or the operator may not read it.
    pub async fn get_revocation<'a>(
        &'a self,
        by: impl Into<By<'a>>,
        id: RuleId,
    ) -> Result<Revocation, Error> {
        let operator = self.operator(by).await?;
        let rule = self.noted(&operator, self.rule_for(&operator, id).await)?;
        let read = Read::of("GetRevocation", &in_words(&[("rule", id.to_string())]));
        self.note_read(&operator, read.about(rule.selector.named().owner.as_ref()));
        let counts = self.store.rules().get(id).map(|rule| self.counts.of(rule));
        Ok(Revocation { rule, counts })
    }

    async fn rule_for(&self, operator: &Operator<'_>, id: RuleId) -> Result<Arc<Rule>, Error> {
        let rule = self.store.rule(id).await?.ok_or_else(|| no_revocation(id))?;
        if self.may_read_rule(operator, &rule).await? { Ok(rule) } else { Err(no_revocation(id)) }
    }

    pub(crate) async fn may_read_rule(&self, operator: &Operator<'_>, rule: &Rule) -> Result<bool, Error> {
        if rule.by == operator.actor() {
            return Ok(true);
        }
        let owner = rule.selector.named().owner.as_ref();
        Ok(operator.reaches_all_of(&rule.selector) && operator.may(Verb::Get, owner).await?)
    }

    /// A page of revocations, the newest first: verb `list` on the owner that each one's selector names, or on all owners.
    /// Of those that are folded away, the newest are there ([`dayfly_core::limits::FOLDED_RULES`]).
    ///
    /// # Errors
    /// When the operator may list nothing, or something needed does not answer.
    pub async fn list_revocations<'a>(
        &'a self,
        by: impl Into<By<'a>>,
        request: &ListRevocations,
    ) -> Result<RevocationPage, Error> {
        let operator = self.operator(by).await?;
        let limit = page_size(request.limit)?;
        let owners = self.noted(&operator, self.listable(&operator, request.owner.as_ref()).await)?;
        let read = Read::of("ListRevocations", &request.text());
        self.note_read(&operator, read.about(request.owner.as_ref()));
        let (rules, now) = (self.store.rules(), self.now());
        let passes = |rule: &Rule| {
            let owner = rule.selector.named().owner.as_ref();
            operator.reaches_all_of(&rule.selector)
                && owners.as_ref().is_none_or(|owners| owner.is_some_and(|owner| owners.contains(owner)))
                && (!request.in_force_only || rule.in_force(now))
                && (!request.holds_only || rule.holds())
        };
        let mut page = RevocationPage::default();
        let mut last = None;
        for (looked_at, rule) in rules.before(request.before).enumerate() {
            let passes = passes(rule);
            if looked_at == RULES_LOOKED_AT || (passes && page.rules.len() == limit) {
                page.next = last;
                break;
            }
            last = Some(rule.id);
            page.rules.extend(passes.then(|| Arc::clone(rule)));
        }
        Ok(page)
    }
}

pub(crate) fn no_revocation(id: RuleId) -> Error {
    Error::NotFound { message: format!("there is no revocation {id} that you may read") }
}
