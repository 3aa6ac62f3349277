//! The record of one issued credential, from intent to end.

use std::fmt;

use crate::claims::Claims;
use crate::digest::Digest;
use crate::ids::{Audience, GrantRef, KeyId, LeaseId, OwnerName, RuleId, Scope, SpiffeId, TargetName, Uid};
use crate::provenance::{Asserted, Provenance};
use crate::rules::RuleSet;
use crate::signing::{KeyUse, TargetRef};
use crate::status::StatusEntry;
use crate::time::Timestamp;
use crate::workload::Workload;

/// One issued credential. Every credential has exactly one lease; the credential itself is never in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its id, which is the token's `jti`.
    pub id: LeaseId,
    /// Who it was issued to.
    pub workload: Workload,
    /// Who answers for that workload.
    pub owners: Owners,
    /// What it is for.
    pub target: TargetName,
    /// The rule that allowed it.
    pub grant: GrantRef,
    /// The audience it is good for: exactly one.
    pub audience: Audience,
    /// What it may do there, in the order asked or granted.
    pub scope: Vec<Scope>,
    /// The claims that its Grant puts into it, beside Dayfly's own.
    pub claims: Claims,
    /// When it was issued, to the second.
    pub issued_at: Timestamp,
    /// When it ends by itself, to the second.
    pub expires_at: Timestamp,
    /// The key that signed it.
    pub key_id: KeyId,
    /// Digests of the credential's forms: a repeated request may have signed the same claims again.
    pub digests: Vec<Digest>,
    /// Where its bit is in its target's status lists, where that has such.
    pub status: Option<StatusEntry>,
    /// What its holder must prove to hold, where it is bound.
    pub confirmation: Option<Confirmation>,
    /// Who its holder is, where the credential is an SVID: its `sub`.
    pub spiffe_id: Option<SpiffeId>,
    /// The caller's idempotency key, where it sent one.
    pub idempotency: Option<Idempotency>,
    /// The lease that this one renews.
    pub renews: Option<LeaseId>,
    /// Where the workload came from.
    pub provenance: Provenance,
    /// What decided that it may have this.
    pub grounds: Grounds,
    /// What has been written about its life. What follows from rules and clock is computed: [`Lease::state`].
    pub phase: Phase,
}

/// A lease's owners: the namespace's, and the narrower one where that owner delegates. A rule by either covers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owners {
    /// The owner of the workload's namespace.
    pub namespace: OwnerName,
    /// The narrower owner within it.
    pub narrowed: Option<OwnerName>,
    /// What that one was chosen by.
    pub narrowed_by: Option<Asserted>,
}

/// Why a lease was given: kept with it, so that it can be explained when policy has moved on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grounds {
    /// The policy objects that decided.
    pub objects: Vec<PolicyObject>,
    /// Each check in order, and what it compared.
    pub checks: Vec<Check>,
}

/// A policy object as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyObject {
    /// `Owner`, `Target` or `Grant`.
    pub kind: String,
    /// Its name; a Grant's is `namespace/name`.
    pub name: String,
    /// Its uid, where it is in a cluster; none where it was read from a folder.
    pub uid: Option<Uid>,
    /// Its `metadata.generation` in a cluster, else the first 16 hexadecimal digits of the digest of its content.
    pub generation: String,
}

/// One check of a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Its name: `owner`, `grant`, `scope`, ...
    pub name: String,
    /// What it compared and what came of it, in words.
    pub outcome: String,
}

impl Owners {
    /// The owner of a namespace alone.
    pub const fn of(namespace: OwnerName) -> Self {
        Self { namespace, narrowed: None, narrowed_by: None }
    }

    /// The narrowest owner, which tokens state.
    pub fn narrowest(&self) -> &OwnerName {
        self.narrowed.as_ref().unwrap_or(&self.namespace)
    }

    /// Both, the namespace's first.
    pub fn iter(&self) -> impl Iterator<Item = &OwnerName> {
        std::iter::once(&self.namespace).chain(&self.narrowed)
    }
}

/// What a bound credential's holder must prove to hold (`cnf`, RFC 7800), as a SHA-256 thumbprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmation {
    /// `jkt`: the thumbprint of a JWK (RFC 7638, RFC 9449).
    Jwk(Digest),
    /// `x5t#S256`: the digest of a certificate's DER form (RFC 8705).
    Certificate(Digest),
}

/// A repeat of the same key by the same caller is the same request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idempotency {
    /// Digest over method, caller and key.
    pub key: Digest,
    /// Digest over the request, so that a changed one under the same key is told apart.
    pub request: Digest,
}

/// What has been written about a lease's life.
///
/// Credentials with outside effects add `Pending`, `Undoing`, `Undone`, `Ending`, `Ended` and `Unconfirmed` with the
/// first engine that has such effects; a signed token has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Handed out, or about to be.
    Active,
    /// Another lease was issued in its place. It stays good for the overlap, then it has expired.
    Renewed {
        /// The lease that renews it.
        by: LeaseId,
        /// When it ends, unless it expires before.
        ends_at: Timestamp,
    },
    /// Given back by its workload.
    Released {
        /// When.
        at: Timestamp,
        /// The lease that had renewed it before.
        renewed_by: Option<LeaseId>,
    },
}

/// A transition from a phase that does not allow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a lease that is {from} cannot be {to}")]
pub struct InvalidTransition {
    from: &'static str,
    to: &'static str,
}

impl Phase {
    /// The workload gives the credential back.
    ///
    /// # Errors
    /// When it has been given back.
    pub fn release(self, at: Timestamp) -> Result<Self, InvalidTransition> {
        match self {
            Self::Active => Ok(Self::Released { at, renewed_by: None }),
            Self::Renewed { by, .. } => Ok(Self::Released { at, renewed_by: Some(by) }),
            Self::Released { .. } => Err(InvalidTransition { from: "released", to: "released" }),
        }
    }

    /// Another lease takes its place, and it ends with the overlap.
    ///
    /// # Errors
    /// When it was renewed or given back before: a lease is renewed once.
    pub fn renew(self, by: LeaseId, ends_at: Timestamp) -> Result<Self, InvalidTransition> {
        match self {
            Self::Active => Ok(Self::Renewed { by, ends_at }),
            Self::Renewed { .. } => Err(InvalidTransition { from: "renewed", to: "renewed" }),
            Self::Released { .. } => Err(InvalidTransition { from: "released", to: "renewed" }),
        }
    }

    /// The lease that renews it.
    pub const fn renewed_by(self) -> Option<LeaseId> {
        match self {
            Self::Active => None,
            Self::Renewed { by, .. } => Some(by),
            Self::Released { renewed_by, .. } => renewed_by,
        }
    }
}

/// A lease's state as anyone sees it: the same words in the API and the CLI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseState {
    /// Its credential is good, be it for the overlap of a renewal.
    Active,
    /// Given back by its workload.
    Released {
        /// When.
        at: Timestamp,
    },
    /// Covered by a rule that was written while it was active.
    Revoked {
        /// The first rule that covered it.
        by: RuleId,
        /// When that rule was written.
        at: Timestamp,
    },
    /// Ended by itself, or by the end of the overlap with the lease that renews it.
    Expired {
        /// When.
        at: Timestamp,
    },
}

impl LeaseState {
    /// The state's name: `active`, `released`, `revoked` or `expired`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Released { .. } => "released",
            Self::Revoked { .. } => "revoked",
            Self::Expired { .. } => "expired",
        }
    }
}

impl fmt::Display for LeaseState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Lease {
    /// The target it is for, of its workload's cluster.
    pub fn target_ref(&self) -> TargetRef {
        TargetRef { cluster: self.workload.cluster.clone(), target: self.target.clone() }
    }

    /// What keys sign its credential.
    pub fn key_use(&self) -> KeyUse {
        self.spiffe_id.as_ref().map_or(KeyUse::AccessToken, |id| KeyUse::Svid(id.trust_domain()))
    }

    /// Its state at `now` under `rules`. What ended it first is what is told.
    pub fn state(&self, rules: &RuleSet, now: Timestamp) -> LeaseState {
        let released = match self.phase {
            Phase::Active | Phase::Renewed { .. } => None,
            Phase::Released { at, .. } => Some(at),
        };
        let ends_at = self.ends_at();
        let natural_end = released.unwrap_or(ends_at);
        // A rule that was written, by a clock that was ahead, after an end that by now has not come, ended it too: no
        // clock makes a covered lease active.
        if let Some(rule) = rules.covering(self)
            && (rule.written_at < natural_end || now < natural_end)
        {
            return LeaseState::Revoked { by: rule.id, at: rule.written_at };
        }
        match released {
            Some(at) => LeaseState::Released { at },
            None if now >= ends_at => LeaseState::Expired { at: ends_at },
            None => LeaseState::Active,
        }
    }

    /// When it ends at the latest: by itself, or before that with the overlap where another lease renews it.
    pub fn ends_at(&self) -> Timestamp {
        match self.phase {
            Phase::Renewed { ends_at, .. } => ends_at.min(self.expires_at),
            Phase::Active | Phase::Released { .. } => self.expires_at,
        }
    }
}

/// Leases for tests, read like sentences: `Lease::test(1).owned_by("payments").for_target("orders")`.
#[cfg(any(test, feature = "test"))]
#[expect(clippy::unwrap_used, missing_docs, reason = "fixtures of tests")]
impl Lease {
    pub fn test(id: u128) -> Self {
        use crate::workload::{Pod, ServiceAccount};
        let issued_at = Timestamp::from_secs(1_795_435_200);
        Self {
            id: LeaseId::from_u128(id),
            workload: Workload {
                cluster: "east".parse().unwrap(),
                service_account: ServiceAccount {
                    namespace: "payments".parse().unwrap(),
                    name: "api".parse().unwrap(),
                    uid: Uid::from_u128(1),
                },
                pod: Some(Pod { name: "api-0".parse().unwrap(), uid: Uid::from_u128(2) }),
                node: None,
                credential_id: None,
            },
            owners: Owners::of("payments".parse().unwrap()),
            target: "orders".parse().unwrap(),
            grant: "payments/orders".parse().unwrap(),
            audience: "https://orders.example".parse().unwrap(),
            scope: vec!["orders:read".parse().unwrap()],
            claims: Claims::new(),
            issued_at,
            expires_at: issued_at.plus(std::time::Duration::from_secs(300)),
            key_id: "key-1".parse().unwrap(),
            digests: vec![Digest::of(&id.to_be_bytes())],
            status: None,
            confirmation: None,
            spiffe_id: None,
            idempotency: None,
            renews: None,
            provenance: Provenance::default(),
            grounds: Grounds::default(),
            phase: Phase::Active,
        }
    }

    #[must_use]
    pub fn owned_by(mut self, owner: &str) -> Self {
        self.owners.namespace = owner.parse().unwrap();
        self
    }

    #[must_use]
    pub fn narrowed_to(mut self, owner: &str) -> Self {
        self.owners.narrowed = Some(owner.parse().unwrap());
        self
    }

    #[must_use]
    pub fn for_target(mut self, target: &str) -> Self {
        self.target = target.parse().unwrap();
        self
    }

    /// Of a pod whose containers run these images, all of them known.
    #[must_use]
    pub fn running(mut self, images: &[(&str, &str)]) -> Self {
        let image = |(container, digest): &(&str, &str)| crate::provenance::Image {
            container: (*container).to_owned(),
            digest: (*digest).to_owned(),
        };
        self.provenance.images = images.iter().map(image).collect();
        self.provenance.images_known = true;
        self
    }

    #[must_use]
    pub fn of_pod(mut self, uid: u128) -> Self {
        if let Some(pod) = &mut self.workload.pod {
            pod.uid = Uid::from_u128(uid);
        }
        self
    }

    #[must_use]
    pub fn renewing(mut self, earlier: LeaseId) -> Self {
        self.renews = Some(earlier);
        self
    }

    #[must_use]
    pub fn with_key(mut self, key: &str, request: &str) -> Self {
        self.idempotency =
            Some(Idempotency { key: Digest::of(key.as_bytes()), request: Digest::of(request.as_bytes()) });
        self
    }

    #[must_use]
    pub fn issued_at(mut self, at: Timestamp, ttl: std::time::Duration) -> Self {
        self.issued_at = at;
        self.expires_at = at.plus(ttl);
        self
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rule::{Rule, Selector};

    fn rule_over_payments(cut_off: u128, at: Timestamp) -> RuleSet {
        let rule = Rule::test(1, Selector::owner("payments".parse().unwrap()), cut_off);
        RuleSet::default().with(std::sync::Arc::new(Rule { written_at: at, ..rule }))
    }

    #[test]
    fn what_ended_it_first_is_told() {
        let lease = Lease::test(10);
        let (start, end) = (lease.issued_at, lease.expires_at);
        let minute = Duration::from_secs(60);
        let none = RuleSet::default();
        assert_eq!(lease.state(&none, start), LeaseState::Active);
        assert_eq!(lease.state(&none, end), LeaseState::Expired { at: end });

        let rules = rule_over_payments(11, start.plus(minute));
        assert_eq!(lease.state(&rules, end.plus(minute)).name(), "revoked");
        let late = rule_over_payments(11, end.plus(minute));
        assert_eq!(lease.state(&late, end.plus(minute)).name(), "expired");
        assert_eq!(lease.state(&late, start.plus(minute)).name(), "revoked", "the clock was set back since");
        let below = rule_over_payments(9, start.plus(minute));
        assert_eq!(lease.state(&below, start.plus(minute)), LeaseState::Active);

        let released = Lease { phase: lease.phase.release(start.plus(minute)).unwrap(), ..lease.clone() };
        assert_eq!(released.state(&none, end).name(), "released");
        assert_eq!(released.state(&rule_over_payments(11, start.plus(2 * minute)), end).name(), "released");
        assert!(released.phase.release(end).is_err());
    }

    #[test]
    fn a_renewed_lease_ends_with_the_overlap_and_not_after_its_own_end() {
        let lease = Lease::test(10);
        let (start, end) = (lease.issued_at, lease.expires_at);
        let minute = Duration::from_secs(60);
        let (none, by) = (RuleSet::default(), LeaseId::from_u128(11));
        let renewed = Lease { phase: lease.phase.renew(by, start.plus(minute)).unwrap(), ..lease.clone() };
        assert_eq!(renewed.phase.renewed_by(), Some(by));
        assert_eq!(renewed.state(&none, start), LeaseState::Active, "for the overlap");
        let ended = LeaseState::Expired { at: start.plus(minute) };
        assert_eq!(renewed.state(&none, start.plus(minute)), ended);
        assert_eq!(renewed.state(&rule_over_payments(11, start.plus(minute)), end), ended, "it had ended");
        let revoked = rule_over_payments(11, start);
        assert_eq!(renewed.state(&revoked, start).name(), "revoked", "the overlap is no shelter");

        let late = Lease { phase: lease.phase.renew(by, end.plus(minute)).unwrap(), ..lease.clone() };
        assert_eq!(late.state(&none, end), LeaseState::Expired { at: end });
        assert!(renewed.phase.renew(by, end).is_err(), "once");
        let released = renewed.phase.release(start).unwrap();
        assert_eq!(released.renewed_by(), Some(by), "the link stays");
        assert!(released.renew(by, end).is_err());
    }
}
