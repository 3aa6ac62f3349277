//! What a store commits, and what it answers.

use std::sync::Arc;

use crate::audit::Draft;
use crate::digest::Digest;
use crate::ids::{Incarnation, InstanceId, KeyId, LeaseId, OwnerName, Position, RuleId, StartNumber};
use crate::lease::{Idempotency, Lease};
use crate::live::{AtCap, LiveCaps};
use crate::merkle;
use crate::rule::{Actor, After, Authority, Rule, Selector};
use crate::signing::KeyStage;
use crate::teardown::TeardownChange;
use crate::time::Timestamp;

/// One change of the store: committed whole or not at all, with exactly one event in the audit log; but for
/// [`Change::Teardown`].
#[derive(Debug, Clone)]
pub enum Change {
    /// A lease and its digest, for a credential that has been minted and not yet handed over. One that renews another
    /// ends that one after the overlap, in the same commit.
    Issue(Box<Issue>),
    /// The same lease's credential, signed again for a repeated request.
    Reissue {
        /// The lease.
        lease: LeaseId,
        /// The new form's digest.
        digest: Digest,
    },
    /// A lease that has not been given back becomes released.
    Release {
        /// The lease.
        lease: LeaseId,
    },
    /// A new rule. Its id, position, cut-off and `until` are given by the commit.
    Revoke(Box<Revocation>),
    /// The end of a rule's hold. What it covers stays revoked.
    Lift(Box<Lift>),
    /// A step in the lives of signing keys.
    Key(Box<KeyChange>),
    /// An event that changes nothing else.
    Note(Box<Draft>),
    /// A store that was restored, or was behind its witness, is the one that counts from here on.
    Adopt {
        /// Who says so.
        by: Actor,
    },
    /// How far the teardown of what a rule covers has come. It has no event and takes no position, where it does not say
    /// that a step is complete that had something to do: what it says follows from the rule and its leases.
    Teardown(Box<TeardownChange>),
}

/// A lease to commit, and under what it was decided.
#[derive(Debug, Clone)]
pub struct Issue {
    /// The lease; its id was drawn before the decision ([`crate::ports::LeaseStore::draw`]).
    pub lease: Lease,
    /// The position that the draw gave: rules after it send the lease back to be decided again.
    pub decided_under: Position,
    /// How many such leases may be live at once, this one included. One that renews another takes its place and needs
    /// no other.
    pub caps: LiveCaps,
}

/// A rule to write.
#[derive(Debug, Clone)]
pub struct Revocation {
    /// Which leases.
    pub selector: Selector,
    /// What comes after.
    pub after: After,
    /// Who.
    pub by: Actor,
    /// By which right.
    pub authority: Authority,
    /// Why.
    pub reason: String,
    /// The operator's idempotency key, where one was sent.
    pub idempotency: Option<Idempotency>,
    /// Whose leases it is about, where its selector does not say it: they see its event. It is no part of the rule.
    pub owners: Vec<OwnerName>,
}

/// A hold to end.
#[derive(Debug, Clone)]
pub struct Lift {
    /// Which rule's.
    pub rule: RuleId,
    /// Who.
    pub by: Actor,
    /// Why.
    pub reason: String,
}

/// A signing key as it rests: sealed with a key that is not in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedKey {
    /// Its id.
    pub id: KeyId,
    /// What it is for: `access-token`, ...
    pub purpose: String,
    /// The sealing key's generation.
    pub generation: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// The public JWK (RFC 7517), as JSON.
    pub public_jwk: String,
    /// The private key, sealed, with its nonce. Empty when it is not published any more.
    pub sealed: Vec<u8>,
    /// Where it is in its life.
    pub stage: KeyStage,
    /// Since when: later than any earlier step of any key.
    pub since: Timestamp,
    /// The number of its steps, from 1: what makes each step compare-and-set.
    pub version: u32,
}

/// A step in the lives of signing keys, and who takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyChange {
    /// What happens.
    pub step: KeyStep,
    /// Who.
    pub by: Actor,
}

/// A step in the lives of signing keys: each key is given as it is afterwards, one version on. Of each purpose at most one
/// key is next, and one active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyStep {
    /// A new key: next, or active as the first of its purpose.
    Add(SealedKey),
    /// The next key signs, and the one that did retires.
    Activate {
        /// The one that signs.
        key: SealedKey,
        /// The one that did, if there was one.
        retiring: Option<SealedKey>,
    },
    /// Nothing that it signed is alive: it is not published any more, and its private key is deleted.
    Retire(SealedKey),
    /// It is sealed with another generation of the key-encryption key.
    Reseal(SealedKey),
    /// It is not published any more, its private key is deleted, and a rule covers all that it signed.
    Revoke {
        /// The key.
        key: SealedKey,
        /// What signs in its place, where it was active: the next one, or a new one.
        instead: Option<SealedKey>,
        /// Why.
        reason: String,
    },
}

impl KeyStep {
    /// The keys that it changes, as they are afterwards.
    pub fn keys(&self) -> impl Iterator<Item = &SealedKey> {
        let (key, other) = match self {
            Self::Add(key) | Self::Retire(key) | Self::Reseal(key) => (key, None),
            Self::Activate { key, retiring: other } | Self::Revoke { key, instead: other, .. } => {
                (key, other.as_ref())
            }
        };
        std::iter::once(key).chain(other)
    }
}

impl Revocation {
    /// The rule that it makes.
    pub fn rule(
        self,
        id: RuleId,
        position: Position,
        cut_off: LeaseId,
        written_at: Timestamp,
        until: Timestamp,
    ) -> Rule {
        // Whose leases it is about is the event's alone.
        let Self { selector, after, by, authority, reason, idempotency, owners: _ } = self;
        let lifted = None;
        Rule {
            id,
            position,
            selector,
            cut_off,
            after,
            written_at,
            by,
            reason,
            until,
            idempotency,
            authority,
            lifted,
        }
    }
}

/// What became of a change. Anything but `Committed` and `InMemory` has changed nothing.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It is durable.
    Committed(Receipt),
    /// A revocation that could not be made durable: its rule is in effect in memory ([`Rule::is_durable`] says no), nothing is
    /// issued, and the store makes it durable as soon as it can. It is lost if the process ends before.
    InMemory(Arc<Rule>),
    /// A rule newer than the decision is about this lease: decide again, with a new id.
    Covered(Arc<Rule>),
    /// The same idempotency key was committed before, with this; or the hold was lifted before.
    Replayed(Earlier),
    /// The store's state is not what the change expects.
    Conflict(Conflict),
}

/// Where a change was committed.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// Its position.
    pub position: Position,
    /// The rule, where the change was a revocation, of leases or of a key, or lifted one.
    pub rule: Option<Arc<Rule>>,
}

/// What an idempotency key was used for before.
#[derive(Debug, Clone)]
pub enum Earlier {
    /// This lease.
    Lease(Arc<Lease>),
    /// This rule.
    Rule(Arc<Rule>),
}

/// Why a change does not fit the store's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// A lease of this id exists, or its id is not above those pruned.
    #[error("a lease of this id cannot be added")]
    IdTaken,
    /// There is no such lease.
    #[error("there is no such lease")]
    NoSuchLease,
    /// The lease's phase does not allow it.
    #[error("the lease's state does not allow it")]
    Phase,
    /// There is no lease to renew, or it is of another cluster, service account or pod.
    #[error("there is no such lease of this workload to renew")]
    NoSuchEarlier,
    /// The lease to renew has been revoked, released, or has expired.
    #[error("the lease to renew has ended")]
    EarlierEnded,
    /// The lease to renew was renewed before.
    #[error("the lease was renewed before")]
    EarlierRenewed,
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for a different request")]
    IdempotencyKeyReused,
    /// As many leases are live as may be.
    #[error("as many leases are live as may be: {}", .0.most)]
    AtCap(AtCap),
    /// There is no such rule.
    #[error("there is no such rule")]
    NoSuchRule,
    /// The rule never held anything.
    #[error("the rule is no hold")]
    NotHold,
    /// A key of this id exists.
    #[error("a key of this id exists")]
    KeyExists,
    /// A key is not at the version that the step is from, or must not take it.
    #[error("the key's stage does not allow it")]
    KeyStage,
    /// The store is adopted already.
    #[error("the store is adopted already")]
    Adopted,
    /// The teardown is elsewhere than the change is from.
    #[error("the teardown has gone on since, or the step is complete")]
    TeardownMoved,
}

/// An id for a new lease, and the position its decision is made under: the rules are read after this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// The id, above every id and cut-off committed so far.
    pub id: LeaseId,
    /// The newest committed position.
    pub position: Position,
    /// The time now, by the guarded clock.
    pub now: Timestamp,
}

/// What became of one caller's leases since a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Up to where this tells: a newer position than was asked from.
    pub position: Position,
    /// The leases that were issued, renewed or released in between, in order and each once; rules are told by
    /// [`crate::ports::LeaseStore::rules`], and the clock by nobody. None where the store does not remember: list anew.
    pub leases: Option<Vec<LeaseId>>,
}

/// Where a store is: kept outside it by a witness, so that an older copy put in its place is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Which store.
    pub instance: InstanceId,
    /// Which of its lives.
    pub incarnation: Incarnation,
    /// Its newest position.
    pub position: Position,
    /// The highest lease id given out, so that a new incarnation's ids and cut-off are above it.
    pub highest: LeaseId,
}

/// The audit log's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogHead {
    /// Leaves in the tree: the newest position's number.
    pub size: u64,
    /// The root over them.
    pub root: merkle::Hash,
}

/// What a store is and how it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreStatus {
    /// Its id.
    pub instance: InstanceId,
    /// Its life.
    pub incarnation: Incarnation,
    /// This start's number.
    pub start: StartNumber,
    /// Its newest position.
    pub position: Position,
    /// Whether every live lease is counted against the caps. After a start those of earlier ones are read in the
    /// background; until they are, the caps let more through.
    pub live_counted: bool,
    /// Why it cannot commit now; none when it can.
    pub trouble: Option<String>,
    /// Since which position it is restored and not adopted; none where it is adopted. See [`StoreStatus::is_adopted`].
    pub restored_at: Option<Position>,
}

impl StoreStatus {
    /// Whether this store may touch what is downstream. One that was restored from a backup, or accepted behind its
    /// witness, may not until it is told to: the one it is a copy of may still run.
    pub fn is_adopted(&self) -> bool {
        self.restored_at.is_none()
    }
}

/// Which leases to list; every part that is set must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaseFilter {
    /// Leases the selector is about.
    pub selector: Option<Selector>,
    /// Only those whose credential is good now.
    pub active_only: bool,
    /// Only those owned by one of these, where the reader may not read all.
    pub owners: Option<Vec<OwnerName>>,
}

/// A page of leases, by ascending id.
#[derive(Debug, Clone, Default)]
pub struct LeasePage {
    /// The leases.
    pub leases: Vec<Arc<Lease>>,
    /// Where the next page begins: after this id; none at the end.
    pub next: Option<LeaseId>,
}
