//! Clusters of one issuer: only their keys tell their tokens apart, so no two may have any key in common.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, PoisonError};

use arc_swap::ArcSwap;
use dayfly_core::digest::Digest;
use dayfly_core::ids::ClusterName;

/// What is known of the keys of the clusters of one issuer. Each cluster tells its keys before it uses them, so that no
/// two clusters ever use one key.
#[derive(Default)]
pub(crate) struct Namesakes {
    keys: Mutex<BTreeMap<ClusterName, HashSet<Digest>>>,
    /// Each that shares a key, and one that it shares with.
    sharing: ArcSwap<BTreeMap<ClusterName, ClusterName>>,
}

impl Namesakes {
    /// The keys (RFC 7638 thumbprints) that a cluster publishes now.
    pub(crate) fn learn(&self, cluster: &ClusterName, published: HashSet<Digest>) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.insert(cluster.clone(), published);
        let mut sharing = BTreeMap::new();
        for (one, its) in keys.iter() {
            let other = keys.iter().find(|(other, others)| *other != one && !its.is_disjoint(others));
            if let Some((other, _)) = other {
                sharing.insert(one.clone(), other.clone());
            }
        }
        let before = self.sharing.swap(sharing.clone().into());
        for (one, other) in sharing.iter().filter(|(one, _)| !before.contains_key(*one)) {
            tracing::error!(cluster = %one, %other, "two clusters of one issuer publish the same token key: all tokens of both are refused until each API server has keys of its own");
        }
        for one in before.keys().filter(|one| !sharing.contains_key(*one)) {
            tracing::info!(cluster = %one, "its token keys are its own again: its tokens are taken");
        }
    }

    /// A cluster that has a key of this one, if any has.
    pub(crate) fn sharing_with(&self, cluster: &ClusterName) -> Option<ClusterName> {
        self.sharing.load().get(cluster).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_share_a_key_are_known_as_long_as_they_do() {
        let namesakes = Namesakes::default();
        let [east, west, north] = ["east", "west", "north"].map(|name| name.parse::<ClusterName>().unwrap());
        let keys = |keys: &[u8]| keys.iter().map(|key| Digest::of(&[*key])).collect::<HashSet<_>>();
        let shared = |cluster| namesakes.sharing_with(cluster).map(|other| other.to_string());
        namesakes.learn(&east, keys(&[1, 2]));
        assert_eq!(shared(&east), None, "with itself it shares nothing");
        namesakes.learn(&west, keys(&[3]));
        namesakes.learn(&north, keys(&[4, 2]));
        assert_eq!(shared(&east).unwrap(), "north");
        assert_eq!((shared(&north).unwrap(), shared(&west)), ("east".to_owned(), None));
        namesakes.learn(&north, keys(&[4]));
        assert_eq!((shared(&east), shared(&north)), (None, None));
        namesakes.learn(&west, keys(&[]));
        namesakes.learn(&north, keys(&[]));
        assert_eq!(shared(&west), None, "no key is no key in common");
    }
}
