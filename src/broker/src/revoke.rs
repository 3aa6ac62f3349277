//! Revoke: one durable rule ends everything it covers, however much that is.

use std::sync::Arc;

use dayfly_core::change::{Change, Conflict, Earlier, LeaseFilter, Outcome, Revocation};
use dayfly_core::ids::OwnerName;
use dayfly_core::lease::Idempotency;
use dayfly_core::limits;
use dayfly_core::rule::{Actor, After, Authority, Fields, Rule, Selector};
use dayfly_core::rules::RuleSet;

use crate::issue::{check_idempotency_key, fingerprint, key_reused};
use crate::operator::{By, Operator, Verb};
use crate::reads::{Read, in_words};
use crate::selector::Which;
use crate::{Broker, Error, Reason, unwritten};

/// Leases that a dry run counts at most.
pub const DRY_RUN_LEASES: u64 = 100_000;

/// What a rule by image cannot know.
const IMAGES_UNKNOWN: &str = "leases that were issued before their pods' images were all known are covered by the known ones \
                              alone: a dry run says how many there are";

/// What to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokeRequest {
    /// Which leases.
    pub which: Which,
    /// What comes after.
    pub after: After,
    /// Why: 1 to 512 bytes on one line. It is recorded, and told to those it ends.
    pub reason: String,
    /// Only counts, and writes nothing; the idempotency key does not matter then.
    pub dry_run: bool,
    /// Makes a repeat the same request: 1 to 64 bytes, scoped to the method and the operator.
    pub idempotency_key: Option<String>,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revoked {
    /// A rule was written, now or, for a repeated request, before; or put in effect in memory alone, which
    /// [`Rule::is_durable`] says. It is in effect.
    Written {
        /// The rule.
        rule: Arc<Rule>,
        /// Whether what it covers can get new credentials now: neither this rule nor an earlier hold keeps it from.
        can_reissue: bool,
        /// The same request was answered before, with this rule.
        repeated: bool,
        /// Names in the selector that nothing has now.
        warnings: Vec<String>,
    },
    /// Nothing was written.
    DryRun {
        /// The selector as resolved.
        selector: Selector,
        /// How many live leases it would end.
        leases: u64,
        /// The count stopped at [`DRY_RUN_LEASES`]: there are more.
        at_least: bool,
        /// Whether what it would end could get new credentials.
        can_reissue: bool,
        /// Names in the selector that nothing has now.
        warnings: Vec<String>,
    },
}

impl RevokeRequest {
    /// The revocation that this asks for, by a user of the broker's machine who has opened its store while it is stopped.
    ///
    /// # Errors
    /// When a field is wrong. Nothing is looked up: a pod or service account is named by its uid.
    pub fn by_user(&self, uid: u32) -> Result<Revocation, Error> {
        check(self)?;
        let selector = match &self.which {
            Which::All => Selector::All,
            Which::Where(named) if named.service_account.is_some() || named.pod.is_some() => {
                let message = "while the broker is stopped, names are not looked up: give the uid";
                return Err(Error::invalid("selector", message));
            }
            Which::Where(named) => Selector::Where(Box::new(named.fields.clone())),
        };
        Ok(Revocation {
            selector,
            after: self.after,
            by: Actor::socket(uid),
            authority: Authority::Socket,
            reason: self.reason.clone(),
            idempotency: None,
            owners: Vec::new(),
        })
    }
}

impl Broker {
    /// Ends every credential that the selector covers. It is in effect before this answers.
    ///
    /// It takes verb `revoke` on the owner that the selector names; on each owner of the one lease that it names; for
    /// anything else, on all owners. Which it was is recorded: it says what right lifts a hold.
    ///
    /// Where the store cannot write it, it is in effect in memory ([`Rule::is_durable`]), and the store writes it as soon as it
    /// can.
    ///
    /// # Errors
    /// Unless it says otherwise, nothing was written.
    pub async fn revoke<'a>(
        &'a self,
        by: impl Into<By<'a>>,
        request: &RevokeRequest,
    ) -> Result<Revoked, Error> {
        let operator = self.operator(by).await?;
        let revoked = self.noted(&operator, self.revoke_as(&operator, request).await)?;
        if let Revoked::Written { rule, .. } = &revoked {
            // One that is in memory alone is in no log yet.
            if rule.is_durable() {
                self.checkpoints.cover(rule.position).await;
            }
        }
        Ok(revoked)
    }

    async fn revoke_as(&self, operator: &Operator<'_>, request: &RevokeRequest) -> Result<Revoked, Error> {
        check(request)?;
        let authority = self.authorize(operator, &request.which).await?;
        if request.dry_run {
            let selector = self.resolve(operator, &request.which).await?;
            let read = Read::of("Revoke (dry run)", &in_words(&[("selector", selector.to_string())]));
            self.note_read(operator, read.about(selector.named().owner.as_ref()));
            return self.dry_run(selector, request.after).await;
        }
        // Before names are resolved: what they meant then may be gone by now.
        let idempotency = idempotency(operator, request);
        if let Some(rule) = self.earlier(idempotency.as_ref())? {
            return Ok(self.written(rule, true));
        }
        let selector = self.resolve(operator, &request.which).await?;
        let lease = match selector.named().lease {
            Some(id) => self.store.lease(id).await?,
            None => None,
        };
        let owners = lease.iter().flat_map(|lease| lease.owners.iter().cloned()).collect();
        let revocation = Revocation {
            owners,
            selector,
            after: request.after,
            by: operator.actor(),
            authority,
            reason: request.reason.clone(),
            idempotency,
        };
        match self.store.commit(Change::Revoke(Box::new(revocation))).await? {
            Outcome::InMemory(rule) => {
                self.unwritten.ring();
                Ok(self.written(rule, false))
            }
            Outcome::Committed(receipt) => match receipt.rule {
                Some(rule) => {
                    self.counts.add(&rule);
                    Ok(self.written(rule, false))
                }
                None => Err(Error::internal("the store committed a revocation and told no rule")),
            },
            Outcome::Replayed(Earlier::Rule(rule)) => Ok(self.written(rule, true)),
            Outcome::Conflict(Conflict::IdempotencyKeyReused) => Err(key_reused()),
            other => Err(Error::internal(format!("the store answered a revocation with {other:?}"))),
        }
    }

    /// By which right the operator may end all that the selector can cover: the widest that it has, since whoever may
    /// lift a hold of one owner is not to lift what was ordered from above.
    async fn authorize(&self, operator: &Operator<'_>, which: &Which) -> Result<Authority, Error> {
        if operator.is_local() {
            return Ok(Authority::Socket);
        }
        let fields = which.by_value();
        if let Some(own) = operator.bounds
            && fields.and_then(|fields| fields.cluster.as_ref()) != Some(own)
        {
            let message = format!("your rights are those of cluster {own}: name it in selector.cluster");
            return Err(Error::denied(Reason::NotAllowed, message));
        }
        let cluster_wide = operator.may(Verb::Revoke, None).await?;
        let owners: Vec<OwnerName> = match fields {
            Some(Fields { owner: Some(owner), .. }) => vec![owner.clone()],
            Some(Fields { lease: Some(id), .. }) => {
                let lease = self.store.lease(*id).await?.filter(|l| operator.reaches(&l.workload.cluster));
                match lease {
                    Some(lease) => lease.owners.iter().cloned().collect(),
                    None if cluster_wide => {
                        return Err(Error::NotFound { message: format!("there is no lease {id}") });
                    }
                    // Without the right over all, an unknown lease answers like one of another owner.
                    None => return Err(operator.refusal_of_lease(Verb::Revoke)),
                }
            }
            _ => Vec::new(),
        };
        if cluster_wide {
            return Ok(Authority::ClusterWide);
        }
        if owners.is_empty() {
            return Err(operator.refusal(Verb::Revoke, None));
        }
        for owner in &owners {
            if !operator.may(Verb::Revoke, Some(owner)).await? {
                let named = fields.is_some_and(|fields| fields.owner.is_some());
                return Err(if named {
                    operator.refusal(Verb::Revoke, Some(owner))
                } else {
                    operator.refusal_of_lease(Verb::Revoke)
                });
            }
        }
        Ok(Authority::Owners)
    }

    fn earlier(&self, idempotency: Option<&Idempotency>) -> Result<Option<Arc<Rule>>, Error> {
        let Some(idempotency) = idempotency else { return Ok(None) };
        match self.store.rules().by_idempotency(idempotency.key) {
            Some(rule) if rule.idempotency.is_some_and(|earlier| earlier.request == idempotency.request) => {
                Ok(Some(Arc::clone(rule)))
            }
            Some(_) => Err(key_reused()),
            None => Ok(None),
        }
    }

    fn written(&self, rule: Arc<Rule>, repeated: bool) -> Revoked {
        let can_reissue = rule.is_durable() && can_reissue(&self.store.rules(), &rule.selector, rule.after);
        let mut warnings: Vec<_> = unwritten::warning(&rule).into_iter().collect();
        warnings.extend(self.unknown_names(&rule.selector));
        warnings.extend(rule.selector.whatever_image().map(|_| IMAGES_UNKNOWN.to_owned()));
        Revoked::Written { rule, can_reissue, repeated, warnings }
    }

    /// Names in a selector that no policy and no configuration has: a typo, or something that is gone.
    fn unknown_names(&self, selector: &Selector) -> Vec<String> {
        let Selector::Where(fields) = selector else { return Vec::new() };
        let policies: Vec<_> =
            self.clusters.keys().filter_map(|cluster| self.policies.last(cluster)).collect();
        let is_reserved = |name: &OwnerName| name.as_str() == dayfly_policy::spec::UNOWNED;
        let owner = fields.owner.as_ref().filter(|name| !is_reserved(name));
        let owner = owner.filter(|name| !policies.iter().any(|policy| policy.owner(name).is_some()));
        let target = fields
            .target
            .as_ref()
            .filter(|name| !policies.iter().any(|policy| policy.target(name).is_some()));
        let grant =
            fields.grant.as_ref().filter(|name| !policies.iter().any(|policy| policy.grant(name).is_some()));
        let cluster = fields.cluster.as_ref().filter(|name| !self.clusters.contains_key(*name));
        let warning = |kind: &str, name: String| {
            format!("there is no {kind} {name} now: is it the name that is meant?")
        };
        [
            owner.map(|name| warning("Owner", name.to_string())),
            target.map(|name| warning("Target", name.to_string())),
            grant.map(|name| warning("Grant", name.to_string())),
            cluster.map(|name| warning("cluster", name.to_string())),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    async fn dry_run(&self, selector: Selector, after: After) -> Result<Revoked, Error> {
        // Of a rule by image, also those that it is about in all else, and whose images are not all known.
        let about = selector.whatever_image().unwrap_or_else(|| selector.clone());
        let filter = LeaseFilter { selector: Some(about), active_only: true, owners: None };
        let (mut leases, mut unknown, mut next) = (0_u64, 0_u64, None);
        let at_least = loop {
            let page = self.store.leases(filter.clone(), next, limits::PAGE).await?;
            for lease in &page.leases {
                match selector.matches(lease) {
                    true => leases += 1,
                    false if !lease.provenance.images_known => unknown += 1,
                    false => {}
                }
            }
            next = page.next;
            if next.is_none() || leases.saturating_add(unknown) >= DRY_RUN_LEASES {
                break next.is_some();
            }
        };
        let can_reissue = can_reissue(&self.store.rules(), &selector, after);
        let mut warnings = self.unknown_names(&selector);
        if unknown > 0 {
            let least = if at_least { "at least " } else { "" };
            warnings.push(format!(
                "{least}{unknown} more live leases are of pods whose images were not all known when they were issued: they may \
                 run this one, and are not covered"
            ));
        }
        Ok(Revoked::DryRun { selector, leases, at_least, can_reissue, warnings })
    }
}

/// Why something is done: on one line.
pub(crate) fn check_reason(reason: &str) -> Result<(), Error> {
    if reason.trim().is_empty() || reason.len() > limits::REASON_BYTES || reason.chars().any(char::is_control)
    {
        let message = format!("say why, in 1 to {} bytes on one line", limits::REASON_BYTES);
        return Err(Error::invalid("reason", message));
    }
    Ok(())
}

fn check(request: &RevokeRequest) -> Result<(), Error> {
    check_reason(&request.reason)?;
    if let Which::Where(named) = &request.which
        && **named == crate::Named::default()
    {
        return Err(Error::invalid("selector", dayfly_core::rule::EmptySelector.to_string()));
    }
    check_idempotency_key(request.idempotency_key.as_deref())
}

fn idempotency(operator: &Operator<'_>, request: &RevokeRequest) -> Option<Idempotency> {
    let key = request.idempotency_key.as_deref()?.as_bytes().to_vec();
    let bytes = |text: &str| text.as_bytes().to_vec();
    let after = match request.after {
        After::Reissue => "REISSUE",
        After::Hold => "HOLD",
    };
    let [cluster, username, uid] = operator.key_scope();
    let caller = [bytes("Revoke"), bytes(&cluster), bytes(&username), bytes(&uid), key];
    Some(Idempotency {
        key: fingerprint(&caller),
        request: fingerprint(&[bytes(&request.which.as_named()), bytes(after), bytes(&request.reason)]),
    })
}

/// Whether neither this nor any hold keeps everything that the selector covers from new credentials.
pub fn can_reissue(rules: &RuleSet, selector: &Selector, after: After) -> bool {
    after == After::Reissue && !rules.holds().any(|hold| contains(&hold.selector, selector))
}

/// Whether everything that `narrow` matches is matched by `wide`: each field that `wide` names, `narrow` names alike.
fn contains(wide: &Selector, narrow: &Selector) -> bool {
    fn is<T: PartialEq>(wide: Option<&T>, narrow: Option<&T>) -> bool {
        wide.is_none() || wide == narrow
    }
    let (wide, narrow) = match (wide, narrow) {
        (Selector::All, _) => return true,
        (Selector::Where(_), Selector::All) => return false,
        (Selector::Where(wide), Selector::Where(narrow)) => (wide, narrow),
    };
    is(wide.cluster.as_ref(), narrow.cluster.as_ref())
        && is(wide.owner.as_ref(), narrow.owner.as_ref())
        && is(wide.namespace.as_ref(), narrow.namespace.as_ref())
        && is(wide.service_account.as_ref(), narrow.service_account.as_ref())
        && is(wide.pod.as_ref(), narrow.pod.as_ref())
        && is(wide.node.as_ref(), narrow.node.as_ref())
        && is(wide.grant.as_ref(), narrow.grant.as_ref())
        && is(wide.target.as_ref(), narrow.target.as_ref())
        && is(wide.key.as_ref(), narrow.key.as_ref())
        && is(wide.credential_id.as_ref(), narrow.credential_id.as_ref())
        && is(wide.lease.as_ref(), narrow.lease.as_ref())
        && is(wide.image.as_ref(), narrow.image.as_ref())
}
