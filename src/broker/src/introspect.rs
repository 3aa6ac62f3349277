//! Introspect: whether a credential is good now, told to the verifiers that its target lists.

use std::sync::Arc;

use dayfly_core::digest::Digest;
use dayfly_core::ids::Position;
use dayfly_core::lease::{Lease, LeaseState};
use dayfly_core::limits;
use dayfly_core::secret::Secret;
use dayfly_core::workload::Identity;

use crate::authenticate::{Bearer, Caller};
use crate::{Broker, Error, LeaseView};

/// What a verifier is told of a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introspection {
    /// The store's position that this is as of: it may know of more, not of less.
    pub position: Position,
    /// The lease and its state. None for a credential that is unknown, or of a target that does not list the caller:
    /// of those it is told only that they are not active.
    pub known: Option<LeaseView>,
}

impl Introspection {
    /// Whether the credential is good now.
    pub fn active(&self) -> bool {
        self.known.as_ref().is_some_and(|view| view.state == LeaseState::Active)
    }
}

impl Broker {
    /// Says whether a credential is good now. The credential is known by its id and by its digest, in constant time.
    ///
    /// # Errors
    /// When the verifier's own token is not good, or the policy or store cannot be read.
    pub async fn introspect(&self, bearer: Bearer<'_>, presented: &Secret) -> Result<Introspection, Error> {
        let (_, identity) = self.authenticate(bearer, Caller::Verifier).await?;
        let position = Position::new(self.store.log_head().size);
        let known = match self.presented(presented).await? {
            Some(lease) if self.is_verifier(&identity, &lease)? => Some(self.view(lease)),
            _ => None,
        };
        Ok(Introspection { position, known })
    }

    /// The lease of a credential, if the credential is one that was issued for it.
    async fn presented(&self, presented: &Secret) -> Result<Option<Arc<Lease>>, Error> {
        if presented.len() > limits::TOKEN_BYTES {
            return Ok(None);
        }
        let Some(id) = (self.lease_id_of)(presented) else { return Ok(None) };
        let digest = Digest::of(presented.expose());
        let lease = self.store.lease(id).await?;
        // Every digest is compared, whichever it is.
        Ok(lease.filter(|lease| lease.digests.iter().filter(|known| **known == digest).count() > 0))
    }

    /// Whether the lease's target, in the policy of the lease's cluster, lists the caller.
    fn is_verifier(&self, identity: &Identity, lease: &Lease) -> Result<bool, Error> {
        let Some(caller) = identity.service_account() else { return Ok(false) };
        let home = &lease.workload.cluster;
        if !self.clusters.contains_key(home) {
            return Ok(false);
        }
        let policy = self.policies.current(home, self.clock.monotonic())?;
        Ok(policy.target(&lease.target).is_some_and(|target| {
            target.accepts_verifier(home, &identity.cluster, &caller.namespace, &caller.name)
        }))
    }
}
