//! What a target's ceiling leaves to the Grants of one namespace.

use std::time::Duration;

use dayfly_core::ids::{Audience, Namespace, Scope};
use dayfly_core::lease::Owners;

use crate::spec::{CeilingSpec, TargetSpec};

/// The entries of a target's ceiling that match a namespace or one of its owners.
pub(crate) struct Ceiling<'a>(Vec<&'a CeilingSpec>);

impl<'a> Ceiling<'a> {
    pub(crate) fn of(target: &'a TargetSpec, namespace: &Namespace, owners: Option<&Owners>) -> Self {
        let matches = |entry: &&CeilingSpec| {
            entry.namespaces.contains(namespace)
                || owners.is_some_and(|owners| owners.iter().any(|owner| entry.owners.contains(owner)))
        };
        Self(target.ceiling.iter().filter(matches).collect())
    }

    /// No entry matches: nothing may be granted.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether some entry accepts this audience.
    pub(crate) fn accepts(&self, audience: &Audience) -> bool {
        self.accepting(audience).next().is_some()
    }

    /// Whether some entry that accepts the audience names the scope.
    pub(crate) fn allows(&self, audience: &Audience, scope: &Scope) -> bool {
        self.accepting(audience).any(|entry| entry.scopes.contains(scope))
    }

    /// The least `maxTtl` of every entry that matches, whatever its audiences and scopes: so narrowing an entry's
    /// scopes or audiences never lengthens anything.
    pub(crate) fn max_ttl(&self) -> Option<Duration> {
        self.0.iter().filter_map(|entry| entry.max_ttl).min().map(crate::ttl::Ttl::duration)
    }

    fn accepting<'s>(
        &'s self,
        audience: &'s Audience,
    ) -> impl Iterator<Item = &'a CeilingSpec> + use<'s, 'a> {
        let accepts = |entry: &CeilingSpec| entry.audiences.as_ref().is_none_or(|a| a.contains(audience));
        self.0.iter().copied().filter(move |entry| accepts(entry))
    }
}
