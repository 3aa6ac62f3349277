//! Release: a workload gives a lease of its own back.

use dayfly_core::change::{Change, Conflict, Outcome};
use dayfly_core::ids::LeaseId;
use dayfly_core::lease::LeaseState;

use crate::authenticate::{Bearer, Caller};
use crate::{Broker, Error, LeaseView};

impl Broker {
    /// Ends a lease of the caller's own, by the same service account and pod. One that has ended is answered as it is:
    /// giving it back again changes nothing. Gives the lease as it is then.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a lease that is not the caller's, whether there is one or not.
    pub async fn release(&self, bearer: Bearer<'_>, id: LeaseId) -> Result<LeaseView, Error> {
        let (cluster, identity) = self.authenticate(bearer, Caller::Workload).await?;
        let lease = self.own_lease(cluster, &identity, id).await;
        let view = self.view(lease.inspect_err(|error| self.note_refused(cluster, &identity, None, error))?);
        if view.state != LeaseState::Active {
            return Ok(view);
        }
        // Before it is done: what nobody waits for any more may be found done, and whoever gives it back does not want it.
        self.status_lists.end(&view.lease);
        match self.store.commit(Change::Release { lease: id }).await? {
            // Given back by another call at the same time.
            Outcome::Committed(_) | Outcome::Conflict(Conflict::Phase) => {}
            other => return Err(Error::internal(format!("the store answered a release with {other:?}"))),
        }
        Ok(self.view(self.own_lease(cluster, &identity, id).await?))
    }
}
