//! What is revoked, as the broker tells it: an index in which a check costs the same however many rules there are.

use std::collections::HashMap;
use std::time::Duration;

use dayfly_client::v1;
use dayfly_core::ids::{GrantRef, KeyId, LeaseId, RuleId, Uid};
use dayfly_core::limits;
use dayfly_core::time::Timestamp;

use crate::origin::{FIELDS, Facts, Fields, Shape};

/// Rules of different selectors that are kept at once.
pub(crate) const MAX_RULES: usize = 1_000_000;
/// Leases told one by one that are kept at once.
pub(crate) const MAX_COVERED: usize = 2_000_000;
/// What is out of date is looked for this often.
const SWEEP: Duration = Duration::from_secs(60);

/// Rules, and leases told one by one.
///
/// Of the rules of one selector only the highest cut-off counts: what the others cover, it covers too.
#[derive(Debug, Default)]
pub(crate) struct Revocations {
    by_shape: HashMap<Shape, HashMap<Vec<u8>, Cut>>,
    rules: usize,
    /// Rules that no claim can be matched with, and until when they count.
    spelled: HashMap<RuleId, Timestamp>,
    /// What those cover, and until when it counts.
    covered: HashMap<LeaseId, Timestamp>,
    swept_at: Timestamp,
}

#[derive(Debug, Clone, Copy)]
struct Cut {
    off: LeaseId,
    until: Timestamp,
}

/// The broker told something that this version cannot read, or too much of it. What is revoked is then not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("a revocation's {0} cannot be read")]
    Malformed(&'static str),
    #[error("there are more than {MAX_RULES} rules, or more than {MAX_COVERED} leases told one by one")]
    TooMany,
}

impl Revocations {
    /// Whether a token that says this is revoked.
    pub(crate) fn cover(&self, facts: &Facts) -> bool {
        self.covered.contains_key(&facts.id)
            || self.by_shape.iter().any(|(shape, rules)| {
                facts.sayings(*shape).any(|saying| rules.get(&saying).is_some_and(|cut| facts.id <= cut.off))
            })
    }

    /// The latest time by which something was dropped as out of date. What had expired by then must not come back to life
    /// when the clock is set back.
    pub(crate) fn swept_at(&self) -> Timestamp {
        self.swept_at
    }

    /// Takes what a message tells, and now and then drops what is out of date.
    pub(crate) fn take(
        &mut self,
        message: &v1::WatchRevocationsResponse,
        now: Timestamp,
    ) -> Result<(), Unusable> {
        for rule in &message.rules {
            self.take_rule(rule)?;
        }
        for covered in &message.covered {
            self.take_covered(covered)?;
        }
        if now >= self.swept_at.plus(SWEEP) {
            self.sweep(now);
        }
        if self.rules > MAX_RULES || self.spelled.len() > MAX_RULES || self.covered.len() > MAX_COVERED {
            return Err(Unusable::TooMany);
        }
        Ok(())
    }

    fn take_rule(&mut self, rule: &v1::RevocationRule) -> Result<(), Unusable> {
        let off = parsed(&rule.cut_off, "cut_off")?;
        // An hour that is not said, or cannot be read, never ends.
        let until = rule.until.and_then(|until| u64::try_from(until.seconds).ok());
        let until = until
            .map_or(Timestamp::from_millis(u64::MAX), |secs| Timestamp::from_secs(secs.saturating_add(1)));
        let selector = rule.selector.as_ref().ok_or(Unusable::Malformed("selector"))?;
        let Some(fields) = fields(selector)? else {
            self.spelled.insert(parsed(&rule.id, "id")?, until);
            return Ok(());
        };
        let shape = Shape::of(&fields);
        let saying = shape.saying(|field| fields[field].as_deref()).ok_or(Unusable::Malformed("selector"))?;
        let alike = self.by_shape.entry(shape).or_default();
        let before = alike.len();
        let cut = alike.entry(saying).or_insert(Cut { off, until });
        *cut = Cut { off: cut.off.max(off), until: cut.until.max(until) };
        self.rules += alike.len() - before;
        Ok(())
    }

    fn take_covered(&mut self, covered: &v1::CoveredLeases) -> Result<(), Unusable> {
        let rule: RuleId = parsed(&covered.rule, "rule")?;
        let until = self.spelled.get(&rule).copied();
        for lease in &covered.leases {
            let lease: LeaseId = parsed(lease, "lease")?;
            // Without the rule's own word, for as long as any token may live.
            let until = until.unwrap_or_else(|| {
                lease.time().plus(limits::TTL_MAX).plus(limits::Limits::default().clock_jump)
            });
            let kept = self.covered.entry(lease).or_insert(until);
            *kept = until.max(*kept);
        }
        Ok(())
    }

    fn sweep(&mut self, now: Timestamp) {
        self.swept_at = now;
        for rules in self.by_shape.values_mut() {
            rules.retain(|_, cut| now <= cut.until);
        }
        self.by_shape.retain(|_, rules| !rules.is_empty());
        self.rules = self.by_shape.values().map(HashMap::len).sum();
        self.spelled.retain(|_, until| now <= *until);
        self.covered.retain(|_, until| now <= *until);
    }
}

/// What a selector names, as claims say it; none where it names what no claim carries.
///
/// A selector without any field that this version knows is about everything: it may name what a newer broker knows, and then
/// to refuse too much is the safe side.
fn fields(selector: &v1::Selector) -> Result<Option<Fields>, Unusable> {
    const NOTHING: Fields = [const { None }; FIELDS];
    fn text(text: &str) -> Option<Box<[u8]>> {
        (!text.is_empty()).then(|| text.as_bytes().into())
    }
    fn uid(text: &str, field: &'static str) -> Result<Option<Box<[u8]>>, Unusable> {
        let uid = || parsed::<Uid>(text, field).map(|uid| Box::from(uid.to_bytes()));
        (!text.is_empty()).then(uid).transpose()
    }
    let v1::Selector {
        all,
        cluster,
        owner,
        namespace,
        service_account,
        pod,
        node_uid,
        grant,
        target,
        key_id,
        credential_id,
        lease,
        image_digest,
    } = selector;
    if *all {
        return Ok(Some(NOTHING));
    }
    if !credential_id.is_empty() || !image_digest.is_empty() {
        return Ok(None);
    }
    if !grant.is_empty() {
        parsed::<GrantRef>(grant, "grant")?;
    }
    if !key_id.is_empty() {
        parsed::<KeyId>(key_id, "key_id")?;
    }
    let lease = (!lease.is_empty()).then(|| parsed::<LeaseId>(lease, "lease")).transpose()?;
    Ok(Some([
        text(cluster),
        text(owner),
        text(namespace),
        uid(service_account, "service_account")?,
        uid(pod, "pod")?,
        uid(node_uid, "node_uid")?,
        text(grant),
        text(target),
        text(key_id),
        lease.map(|lease| Box::from(lease.to_bytes())),
    ]))
}

fn parsed<T: std::str::FromStr>(text: &str, field: &'static str) -> Result<T, Unusable> {
    text.parse().map_err(|_| Unusable::Malformed(field))
}

#[cfg(test)]
mod tests;
