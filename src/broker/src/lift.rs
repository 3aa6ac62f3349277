//! Lift: the end of a hold. What the rule covers stays revoked.

use std::sync::Arc;

use dayfly_core::change::{Change, Conflict, Earlier, Lift, Outcome};
use dayfly_core::ids::{OwnerName, RuleId};
use dayfly_core::rule::{After, Authority, Rule};

use crate::operator::{By, Operator, Verb};
use crate::revocations::no_revocation;
use crate::revoke::{can_reissue, check_reason};
use crate::{Broker, Error, Reason};

/// The hold to lift.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiftRequest {
    /// The rule.
    pub rule: RuleId,
    /// Why: 1 to 512 bytes on one line. It is recorded.
    pub reason: String,
}

/// A hold that is lifted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiftedHold {
    /// The rule as it is now.
    pub rule: Arc<Rule>,
    /// It was lifted before: by whom, when and why is in the rule.
    pub repeated: bool,
    /// Whether what it covers can get new credentials now: no other hold keeps it from.
    pub can_reissue: bool,
}

impl Broker {
    /// Ends a rule's hold. What is decided after this answered is not held by it; what was decided before is not touched.
    ///
    /// It takes verb `lift` on each owner that the rule covers, where it was written by the right on those; else on all
    /// owners.
    ///
    /// # Errors
    /// Unless it says otherwise, the hold stands.
    pub async fn lift<'a>(
        &'a self,
        by: impl Into<By<'a>>,
        request: &LiftRequest,
    ) -> Result<LiftedHold, Error> {
        let operator = self.operator(by).await?;
        let lifted = self.noted(&operator, self.lift_as(&operator, request).await)?;
        self.prove().await;
        Ok(lifted)
    }

    async fn lift_as(&self, operator: &Operator<'_>, request: &LiftRequest) -> Result<LiftedHold, Error> {
        check_reason(&request.reason)?;
        let id = request.rule;
        let rule = self.store.rule(id).await?.ok_or_else(|| no_revocation(id))?;
        if let Err(refusal) = self.authorize_lift(operator, &rule).await? {
            // Whether there is such a rule, and of whom, is not for everyone to find out.
            return Err(if self.may_read_rule(operator, &rule).await? { refusal } else { no_revocation(id) });
        }
        let lift = Lift { rule: id, by: operator.actor(), reason: request.reason.clone() };
        match self.store.commit(Change::Lift(Box::new(lift))).await? {
            Outcome::Committed(receipt) => match receipt.rule {
                Some(rule) => Ok(self.lifted(rule, false)),
                None => Err(Error::internal("the store lifted a hold and told no rule")),
            },
            Outcome::Replayed(Earlier::Rule(rule)) => Ok(self.lifted(rule, true)),
            Outcome::Conflict(Conflict::NotHold) => Err(Error::FailedPrecondition {
                reason: Reason::NotAHold,
                message: "that revocation is no hold: what it ended may be asked for again as it is"
                    .to_owned(),
            }),
            Outcome::Conflict(Conflict::NoSuchRule) => Err(no_revocation(id)),
            other => Err(Error::internal(format!("the store answered a lift with {other:?}"))),
        }
    }

    fn lifted(&self, rule: Arc<Rule>, repeated: bool) -> LiftedHold {
        let can_reissue = can_reissue(&self.store.rules(), &rule.selector, After::Reissue);
        LiftedHold { rule, repeated, can_reissue }
    }

    /// Whether the operator may lift it, else why not.
    async fn authorize_lift(&self, operator: &Operator<'_>, rule: &Rule) -> Result<Result<(), Error>, Error> {
        if !operator.reaches_all_of(&rule.selector) {
            return Ok(Err(no_revocation(rule.id)));
        }
        let owners = match rule.authority {
            Authority::Owners => self.owners_of(rule).await?,
            _ => Vec::new(),
        };
        if owners.is_empty() {
            let may = operator.may(Verb::Lift, None).await?;
            return Ok(if may { Ok(()) } else { Err(operator.refusal(Verb::Lift, None)) });
        }
        for owner in &owners {
            if !operator.may(Verb::Lift, Some(owner)).await? {
                let named = rule.selector.named().owner.is_some();
                return Ok(Err(if named {
                    operator.refusal(Verb::Lift, Some(owner))
                } else {
                    operator.refusal_of_lease(Verb::Lift)
                }));
            }
        }
        Ok(Ok(()))
    }

    /// The owners that bound what a rule covers; none where nothing does, or its one lease is forgotten.
    async fn owners_of(&self, rule: &Rule) -> Result<Vec<OwnerName>, Error> {
        let fields = rule.selector.named();
        if let Some(owner) = &fields.owner {
            return Ok(vec![owner.clone()]);
        }
        let Some(lease) = fields.lease else { return Ok(Vec::new()) };
        let lease = self.store.lease(lease).await?;
        Ok(lease.iter().flat_map(|lease| lease.owners.iter().cloned()).collect())
    }
}
