//! What is said and can never take effect: warnings, as the object holds.

use std::collections::BTreeSet;

use dayfly_core::ids::OwnerName;
use dayfly_core::provenance::Labels;

use crate::ceiling::{Asking, Ceiling};
use crate::owners::Ownership;
use crate::set::{Grant, PolicySet};
use crate::spec::{Fault, OwnerSpec, Step};
use Step::{Index, Key};

impl PolicySet {
    /// What an Owner says of others that is not so.
    pub(crate) fn beyond_owner(&self, name: &OwnerName, spec: &OwnerSpec) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (index, delegate) in spec.delegates.iter().enumerate() {
            let path = vec![Key("spec"), Key("delegates"), Index(index), Key("owner")];
            if self.owner(&delegate.owner).is_none() {
                let message = format!("there is no valid Owner {}: what matches is denied", delegate.owner);
                faults.push(Fault { path, message });
            }
        }
        let namespaces = &spec.namespaces;
        let has_none = namespaces.names.is_empty() && namespaces.labels.is_empty();
        let delegated: BTreeSet<_> = self
            .owners()
            .flat_map(|owner| owner.spec.delegates.iter().map(|delegate| &delegate.owner))
            .collect();
        if has_none && !delegated.contains(name) {
            let message =
                "names no namespaces, and no Owner delegates to it: it answers for nothing".to_owned();
            faults.push(Fault { path: vec![Key("spec"), Key("namespaces")], message });
        }
        faults
    }

    /// What a Grant says and can never give. Of namespaces by label nothing is known here.
    pub(crate) fn beyond(&self, grant: &Grant) -> Vec<Fault> {
        let spec = &grant.spec;
        let fault = |field, message| Fault { path: vec![Key("spec"), Key(field)], message };
        let Some(target) = self.target(&spec.target) else {
            return vec![fault("target", format!("there is no valid Target {}", spec.target))];
        };
        let mut faults = Vec::new();
        let audiences = match &spec.audience {
            Some(audience) if !target.spec.audiences().contains(audience) => {
                faults.push(fault("audience", format!("{audience} is not one of the target's")));
                return faults;
            }
            Some(audience) => std::slice::from_ref(audience),
            None => target.spec.audiences(),
        };
        let owners = match self.owner_of(&grant.name.namespace, &Labels::new()) {
            Ownership::Owned(owners) => Some(owners),
            Ownership::Unowned | Ownership::Ambiguous => None,
        };
        // Whom a namespace belongs to by label is not known here: what its owners may have is not missed.
        let by_owner = target.spec.ceiling.iter().any(|entry| !entry.owners.is_empty());
        if owners.is_none() && by_owner {
            return faults;
        }
        let ceiling = Ceiling::of(&target.spec, &grant.name.namespace, owners.as_ref());
        let asking = |audience| Asking { audience, service_account: None, bound: true };
        for (index, scope) in spec.scope.iter().enumerate() {
            if !audiences.iter().any(|audience| ceiling.allows(asking(audience), scope)) {
                let message = format!("{scope} is above the target's ceiling: requests for it are denied");
                faults.push(Fault { path: vec![Key("spec"), Key("scope"), Index(index)], message });
            }
        }
        for (name, value) in &spec.claims {
            let allowed = |value| audiences.iter().any(|a| ceiling.allows_claim(asking(a), name, value));
            if let Some(value) = value.values().iter().find(|value| !allowed(value)) {
                let message =
                    format!("{name}: {value:.80} is above the target's ceiling: every request is denied");
                faults.push(fault("claims", message));
            }
        }
        for (index, account) in spec.service_accounts.iter().enumerate() {
            let accepted = |audience| {
                let asking = Asking { service_account: Some(account), ..asking(audience) };
                spec.scope.iter().any(|scope| ceiling.allows(asking, scope))
            };
            let without = |audience| spec.scope.iter().any(|scope| ceiling.allows(asking(audience), scope));
            if !audiences.iter().any(accepted) && audiences.iter().any(without) {
                let message = format!("{account} is not one that the target's ceiling lets be named");
                let path = vec![Key("spec"), Key("serviceAccounts"), Index(index)];
                faults.push(Fault { path, message });
            }
        }
        let bounds = [Some(target.spec.max_ttl.duration()), ceiling.max_ttl()];
        if let Some(bound) = bounds.into_iter().flatten().min().filter(|b| spec.max_ttl.duration() > *b) {
            faults.push(fault("maxTtl", format!("is cut to the target's {} s", bound.as_secs())));
        }
        faults
    }
}
