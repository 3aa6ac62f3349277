//! How many leases may be live at once, and of what that is counted.

use crate::digest::Digest;
use crate::lease::Lease;
use crate::time::Timestamp;
use crate::workload::Workload;

/// How many leases may be live at once; none is no bound. Each counts for one target of one cluster. Live is what is
/// active, has not been renewed, and has not ended by itself or by a rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LiveCaps {
    /// For this target, of the workload's pod. It bounds nothing where the token is bound to no pod.
    pub per_pod: Option<u32>,
    /// For this target, of its service account.
    pub per_workload: Option<u32>,
    /// By this Grant.
    pub per_grant: Option<u32>,
    /// For this target, of its namespace.
    pub per_namespace: Option<u32>,
    /// For this target, in all.
    pub total: Option<u32>,
}

/// What live leases are counted of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LiveOf {
    /// A pod, and a target.
    Pod,
    /// A service account, and a target.
    Workload,
    /// A Grant.
    Grant,
    /// A namespace, and a target.
    Namespace,
    /// A target.
    Target,
}

/// There are as many live leases as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtCap {
    /// Of what.
    pub of: LiveOf,
    /// How many there may be.
    pub most: u32,
    /// When one of them ends by itself, as far as known. One that is released or revoked makes room before.
    pub until: Option<Timestamp>,
}

impl LiveOf {
    /// All, from the narrowest.
    pub const ALL: [Self; 5] = [Self::Pod, Self::Workload, Self::Grant, Self::Namespace, Self::Target];

    /// What distinguishes the one that this lease counts for from every other, of this kind and of the others.
    pub fn place(self, lease: &Lease) -> Digest {
        let Workload { cluster, service_account, pod, .. } = &lease.workload;
        let account = service_account.uid.to_bytes();
        let pod = pod.as_ref().map_or([0; 16], |pod| pod.uid.to_bytes());
        let namespace = service_account.namespace.as_str().as_bytes();
        let (kind, parts): (&[u8], [&[u8]; 3]) = match self {
            Self::Pod => (b"pod", [namespace, &account, &pod]),
            Self::Workload => (b"workload", [namespace, &account, b""]),
            Self::Grant => (b"grant", [namespace, lease.grant.name.as_str().as_bytes(), b""]),
            Self::Namespace => (b"namespace", [namespace, b"", b""]),
            Self::Target => (b"target", [b"", b"", b""]),
        };
        let (cluster, target) = (cluster.as_str().as_bytes(), lease.target.as_str().as_bytes());
        let [namespace, first, second] = parts;
        Digest::of_parts(&[kind, &[0], cluster, &[0], target, &[0], namespace, &[0], first, second])
    }
}

impl LiveCaps {
    /// These, and those of `default` where there are none.
    #[must_use]
    pub fn or(self, default: Self) -> Self {
        Self {
            per_pod: self.per_pod.or(default.per_pod),
            per_workload: self.per_workload.or(default.per_workload),
            per_grant: self.per_grant.or(default.per_grant),
            per_namespace: self.per_namespace.or(default.per_namespace),
            total: self.total.or(default.total),
        }
    }

    /// The bound for this lease.
    pub fn most(&self, of: LiveOf, lease: &Lease) -> Option<u32> {
        match of {
            LiveOf::Pod => self.per_pod.filter(|_| lease.workload.pod.is_some()),
            LiveOf::Workload => self.per_workload,
            LiveOf::Grant => self.per_grant,
            LiveOf::Namespace => self.per_namespace,
            LiveOf::Target => self.total,
        }
    }
}

impl std::fmt::Display for LiveCaps {
    /// `pod 2, workload 10, grant -, namespace -, total 100`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let number = |number: Option<u32>| number.map_or("-".to_owned(), |number| number.to_string());
        write!(
            f,
            "pod {}, workload {}, grant {}, namespace {}, total {}",
            number(self.per_pod),
            number(self.per_workload),
            number(self.per_grant),
            number(self.per_namespace),
            number(self.total)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_says_and_else_the_default() {
        let default = LiveCaps { per_pod: Some(64), per_workload: Some(10_000), ..LiveCaps::default() };
        let policy = LiveCaps { per_pod: Some(2), total: Some(7), ..LiveCaps::default() };
        assert_eq!(policy.or(default).to_string(), "pod 2, workload 10000, grant -, namespace -, total 7");
    }

    #[test]
    fn each_counts_for_places_of_its_own() {
        let lease = Lease::test(1);
        let mut places: Vec<_> = LiveOf::ALL.map(|of| of.place(&lease)).into();
        let other = Lease::test(2).for_target("ledger");
        places.extend(LiveOf::ALL.map(|of| of.place(&other)));
        let mut elsewhere = Lease::test(3);
        elsewhere.workload.cluster = "west".parse().unwrap();
        places.extend(LiveOf::ALL.map(|of| of.place(&elsewhere)));
        places.sort_by_key(|place| *place.as_bytes());
        places.dedup();
        assert_eq!(places.len(), 15, "no two are the same");
    }
}
