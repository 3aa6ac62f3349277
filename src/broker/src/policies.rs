//! The policy in force, for each cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use dayfly_core::ids::ClusterName;
use dayfly_policy::{Loaded, PolicySet, Problem, UnownedGrace};

/// Each cluster's policy, replaced whole. A source that cannot be read keeps its last policy for a while, then denies;
/// what counts is when it was last read, so that a source that hangs goes stale like one that fails.
pub struct Policies {
    clusters: BTreeMap<ClusterName, ArcSwap<State>>,
    graces: BTreeMap<ClusterName, UnownedGrace>,
    unreadable_for: Duration,
}

#[derive(Default)]
struct State {
    /// The policy, and when it was last read, by [`dayfly_core::ports::Clock::monotonic`]. None until it was read for
    /// the first time.
    read: Option<(Arc<PolicySet>, Duration)>,
    problems: Arc<[Problem]>,
}

/// There is no policy to decide by.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyUnavailable {
    /// The source has not been read yet.
    #[error("cluster {0}'s policy has not been read yet")]
    NeverRead(ClusterName),
    /// The source cannot be read for too long.
    #[error("cluster {cluster}'s policy cannot be read for more than {} s", .limit.as_secs())]
    Unreadable {
        /// The cluster.
        cluster: ClusterName,
        /// How long its last policy was used.
        limit: Duration,
    },
}

/// The cluster has no policy here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no cluster {0}")]
pub struct UnknownCluster(pub ClusterName);

impl Policies {
    /// Places for these clusters' policies, none read yet. `unreadable_for` is how long the last policy is used while
    /// its source cannot be read ([`dayfly_core::limits::Limits::policy_unreadable`]).
    pub fn new(clusters: impl IntoIterator<Item = ClusterName>, unreadable_for: Duration) -> Self {
        let clusters = clusters.into_iter().map(|name| (name, ArcSwap::from_pointee(State::default())));
        Self { clusters: clusters.collect(), graces: BTreeMap::new(), unreadable_for }
    }

    /// With a grace for a cluster's namespaces without an Owner.
    #[must_use]
    pub fn with_grace(mut self, cluster: ClusterName, grace: UnownedGrace) -> Self {
        self.graces.insert(cluster, grace);
        self
    }

    /// A cluster's grace for namespaces without an Owner.
    pub fn grace(&self, cluster: &ClusterName) -> Option<UnownedGrace> {
        self.graces.get(cluster).copied()
    }

    /// A cluster's policy was read; it is from now on the one to decide by. `now` is
    /// [`dayfly_core::ports::Clock::monotonic`], from before the reading began. Says whether what it decides may have
    /// changed.
    ///
    /// # Errors
    /// When there is no such cluster.
    pub fn replace(
        &self,
        cluster: &ClusterName,
        loaded: Loaded,
        now: Duration,
    ) -> Result<bool, UnknownCluster> {
        let place = self.place(cluster)?;
        let set = Arc::new(loaded.set);
        let state = State { read: Some((Arc::clone(&set), now)), problems: loaded.problems.into() };
        let before = place.swap(Arc::new(state));
        Ok(before.read.as_ref().is_none_or(|(before, _)| before.generation() != set.generation()))
    }

    /// The policy to decide by. `now` is [`dayfly_core::ports::Clock::monotonic`].
    ///
    /// # Errors
    /// When there is none, or it was last read too long ago.
    pub fn current(&self, cluster: &ClusterName, now: Duration) -> Result<Arc<PolicySet>, PolicyUnavailable> {
        let never = || PolicyUnavailable::NeverRead(cluster.clone());
        let state = self.place(cluster).map_err(|_| never())?.load();
        let (set, read) = state.read.as_ref().ok_or_else(never)?;
        if now.saturating_sub(*read) > self.unreadable_for {
            return Err(PolicyUnavailable::Unreadable {
                cluster: cluster.clone(),
                limit: self.unreadable_for,
            });
        }
        Ok(Arc::clone(set))
    }

    /// The policy that was read last, however long ago: for showing, never for deciding.
    pub fn last(&self, cluster: &ClusterName) -> Option<Arc<PolicySet>> {
        self.place(cluster).ok()?.load().read.as_ref().map(|(set, _)| Arc::clone(set))
    }

    /// What is wrong with a cluster's policy objects.
    pub fn problems(&self, cluster: &ClusterName) -> Arc<[Problem]> {
        self.place(cluster).map(|place| Arc::clone(&place.load().problems)).unwrap_or_default()
    }

    pub(crate) fn knows(&self, cluster: &ClusterName) -> bool {
        self.clusters.contains_key(cluster)
    }

    fn place(&self, cluster: &ClusterName) -> Result<&ArcSwap<State>, UnknownCluster> {
        self.clusters.get(cluster).ok_or_else(|| UnknownCluster(cluster.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_source_keeps_its_policy_for_a_while_then_denies() {
        let east: ClusterName = "east".parse().unwrap();
        let policies = Policies::new([east.clone()], Duration::from_secs(600));
        let at = Duration::from_secs;
        assert_eq!(policies.current(&east, at(0)).unwrap_err(), PolicyUnavailable::NeverRead(east.clone()));
        assert!(policies.replace(&east, Loaded::default(), at(99)).unwrap());
        assert!(!policies.replace(&east, Loaded::default(), at(100)).unwrap());
        assert!(policies.current(&east, at(700)).is_ok());
        assert!(policies.current(&east, at(701)).is_err());
        assert!(policies.last(&east).is_some());
        policies.replace(&east, Loaded::default(), at(9999)).unwrap();
        assert!(policies.current(&east, at(9999)).is_ok());
        assert!(policies.replace(&"west".parse().unwrap(), Loaded::default(), at(1)).is_err());
    }
}
