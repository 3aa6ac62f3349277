//! What a target's ceiling leaves to the Grants of one namespace.

use std::time::Duration;

use dayfly_core::ids::{Audience, Namespace, Scope, ServiceAccountName};
use dayfly_core::lease::Owners;
use dayfly_core::live::LiveCaps;

use crate::spec::{CeilingSpec, LiveLeases, TargetSpec};

/// The entries of a target's ceiling that match a namespace or its owners.
pub(crate) struct Ceiling<'a> {
    entries: Vec<Entry<'a>>,
    live: LiveLeases,
}

struct Entry<'a> {
    /// Its place in the list, from 0.
    index: usize,
    spec: &'a CeilingSpec,
    /// Whether it allows anything. One that matches a narrowed owner alone only bounds: what a workload was narrowed by
    /// is asserted, and gives nothing.
    allows: bool,
}

/// Who asks, as far as an entry looks at it.
#[derive(Clone, Copy)]
pub(crate) struct Asking<'a> {
    pub(crate) audience: &'a Audience,
    /// None for whichever.
    pub(crate) service_account: Option<&'a ServiceAccountName>,
    pub(crate) bound: bool,
}

impl<'a> Ceiling<'a> {
    pub(crate) fn of(target: &'a TargetSpec, namespace: &Namespace, owners: Option<&Owners>) -> Self {
        let entry = |(index, spec): (usize, &'a CeilingSpec)| {
            let allows = spec.namespaces.contains(namespace)
                || owners.is_some_and(|owners| spec.owners.contains(&owners.namespace));
            let narrowed = owners.and_then(|owners| owners.narrowed.as_ref());
            let bounds = allows || narrowed.is_some_and(|narrowed| spec.owners.contains(narrowed));
            bounds.then_some(Entry { index, spec, allows })
        };
        Self {
            entries: target.ceiling.iter().enumerate().filter_map(entry).collect(),
            live: target.live_leases,
        }
    }

    /// No entry allows anything: nothing may be granted.
    pub(crate) fn is_empty(&self) -> bool {
        !self.entries.iter().any(|entry| entry.allows)
    }

    /// The places of the entries that match.
    pub(crate) fn indexes(&self) -> impl Iterator<Item = usize> {
        self.entries.iter().map(|entry| entry.index)
    }

    /// Whether some entry accepts this audience.
    pub(crate) fn accepts_audience(&self, audience: &Audience) -> bool {
        self.allowing().any(|entry| accepts_audience(entry, audience))
    }

    /// Whether tokens that are bound to no pod are not refused by every entry.
    pub(crate) fn accepts_unbound(&self) -> bool {
        self.is_empty() || self.allowing().any(|entry| entry.unbound_tokens != Some(false))
    }

    /// Whether some entry that accepts who asks names the scope.
    pub(crate) fn allows(&self, asking: Asking<'_>, scope: &Scope) -> bool {
        self.allowing().any(|entry| accepts(entry, asking) && entry.scopes.contains(scope))
    }

    /// Whether some entry that accepts who asks names this value of the claim.
    pub(crate) fn allows_claim(&self, asking: Asking<'_>, name: &str, value: &String) -> bool {
        self.allowing().any(|entry| {
            accepts(entry, asking) && entry.claims.get(name).is_some_and(|values| values.contains(value))
        })
    }

    /// The least `maxTtl` of every entry that matches, whatever it accepts and allows: so narrowing an entry never
    /// lengthens anything.
    pub(crate) fn max_ttl(&self) -> Option<Duration> {
        self.entries.iter().filter_map(|entry| entry.spec.max_ttl).min().map(crate::ttl::Ttl::duration)
    }

    /// The least of each number, of the target and every entry that matches.
    pub(crate) fn live_caps(&self) -> LiveCaps {
        let entries = || self.entries.iter().map(|entry| entry.spec.live_leases);
        let least =
            |number: fn(LiveLeases) -> Option<u32>| entries().chain([self.live]).filter_map(number).min();
        LiveCaps {
            per_pod: least(|live| live.per_pod),
            per_workload: least(|live| live.per_workload),
            per_grant: least(|live| live.per_grant),
            per_namespace: entries().filter_map(|live| live.total).min(),
            total: self.live.total,
        }
    }

    fn allowing(&self) -> impl Iterator<Item = &'a CeilingSpec> {
        self.entries.iter().filter(|entry| entry.allows).map(|entry| entry.spec)
    }
}

fn accepts(entry: &CeilingSpec, asking: Asking<'_>) -> bool {
    let named = |account| entry.service_accounts.as_ref().is_none_or(|named| named.contains(account));
    accepts_audience(entry, asking.audience)
        && asking.service_account.is_none_or(named)
        && (asking.bound || entry.unbound_tokens != Some(false))
}

fn accepts_audience(entry: &CeilingSpec, audience: &Audience) -> bool {
    entry.audiences.as_ref().is_none_or(|audiences| audiences.contains(audience))
}
