//! What a target's credential would be: which key signs it, and who it says its holder is.

use dayfly_core::ids::{SpiffeId, TargetName};
use dayfly_core::ports::{KeyFor, KeyUse, SigningKey, TargetRef};
use dayfly_core::workload::Workload;
use dayfly_policy::{Denial, Kind, PolicySet};

use crate::{Broker, Error};

/// What a credential is, as far as its target says.
pub(crate) struct Credential {
    /// The key that signs it.
    pub(crate) key: SigningKey,
    /// Whether it has a bit in a status list.
    pub(crate) status_list: bool,
    /// Its holder's SPIFFE id, where it is an SVID.
    pub(crate) spiffe_id: Option<SpiffeId>,
}

impl Broker {
    /// What a target's credential would be for this workload. Whether the workload may have it is another question, to
    /// be asked before it is told why there is none.
    ///
    /// # Errors
    /// When there is no such target, or no key for it.
    pub(crate) fn credential(
        &self,
        policy: &PolicySet,
        workload: &Workload,
        target: &TargetName,
    ) -> Result<Credential, Error> {
        let unknown = || Denial::TargetUnknown(target.clone());
        let kind = policy.target(target).and_then(|target| target.spec.kind()).ok_or_else(unknown)?;
        let (key_use, algorithm) = kind.signed_by();
        let spiffe_id = match kind {
            Kind::Jwt(_) => None,
            Kind::Svid(_) => Some(self.spiffe_id(&key_use, workload)?),
        };
        let status_list = kind.status_list();
        let target = TargetRef { cluster: workload.cluster.clone(), target: target.clone() };
        let key = self.engine.prepare(&KeyFor { key_use, algorithm, target })?;
        Ok(Credential { key, status_list, spiffe_id })
    }

    fn spiffe_id(&self, key_use: &KeyUse, workload: &Workload) -> Result<SpiffeId, Error> {
        let form = match key_use {
            KeyUse::Svid(domain) => self.trust_domains.iter().find_map(|served| {
                served.form(&workload.cluster).filter(|form| form.trust_domain == *domain)
            }),
            KeyUse::AccessToken | KeyUse::OperatorSession | KeyUse::StatusList | KeyUse::Checkpoint => None,
        };
        // A target of a trust domain that its cluster does not have is invalid: it is not in the policy.
        let form = form.ok_or_else(|| Error::internal("a target has a trust domain that is not served"))?;
        form.id_of(workload).map_err(|error| Error::internal(error.to_string()))
    }
}
