//! SPIFFE trust domains and ids (SPIFFE ID and Trust Domain, sections 2.1 to 2.3).

use std::fmt;

use crate::ids::{ClusterName, NotAName};
use crate::workload::Workload;

pub use crate::ids::{SpiffeId, TrustDomain};

/// Bytes of a SPIFFE id (section 2.3).
pub const ID_BYTES: usize = 2048;

/// How the ids of a trust domain are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdForm {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// Whether the path names the cluster. Without it, equal namespaces and service accounts of two clusters would be
    /// one identity.
    pub cluster_in_path: bool,
}

impl IdForm {
    /// The id of a workload: `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT`, after the trust domain
    /// `/cluster/CLUSTER` where the path names it.
    ///
    /// # Errors
    /// Never for names that were parsed: they are path segments, and short enough.
    pub fn id_of(&self, workload: &Workload) -> Result<SpiffeId, NotAName> {
        struct Path<'a>(&'a IdForm, &'a Workload);
        impl fmt::Display for Path<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Self(form, workload) = self;
                write!(f, "spiffe://{}", form.trust_domain)?;
                if form.cluster_in_path {
                    write!(f, "/cluster/{}", workload.cluster)?;
                }
                let account = &workload.service_account;
                write!(f, "/ns/{}/sa/{}", account.namespace, account.name)
            }
        }
        Path(self, workload).to_string().parse()
    }
}

/// A trust domain that Dayfly issues SVIDs of, and for the workloads of which clusters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedDomain {
    form: IdForm,
    clusters: Vec<ClusterName>,
}

impl ServedDomain {
    /// A trust domain of these clusters' workloads. The path names the cluster where there are several, and where that
    /// is asked for.
    ///
    /// # Errors
    /// When there are several and the path shall not name them.
    pub fn new(
        trust_domain: TrustDomain,
        clusters: Vec<ClusterName>,
        cluster_in_path: Option<bool>,
    ) -> Result<Self, ClusterNotInPath> {
        let several = clusters.len() > 1;
        if several && cluster_in_path == Some(false) {
            return Err(ClusterNotInPath);
        }
        let cluster_in_path = cluster_in_path.unwrap_or(several);
        Ok(Self { form: IdForm { trust_domain, cluster_in_path }, clusters })
    }

    /// Its name.
    pub const fn name(&self) -> &TrustDomain {
        &self.form.trust_domain
    }

    /// How ids of this cluster's workloads are made; none where it is not theirs.
    pub fn form(&self, cluster: &ClusterName) -> Option<&IdForm> {
        self.clusters.contains(cluster).then_some(&self.form)
    }
}

/// Workloads of different clusters would have the same ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "several clusters share the trust domain: equal names in them would be one identity, so the path must name the cluster"
)]
pub struct ClusterNotInPath;

/// Whether this is a trust domain's name: 1 to 255 of lower-case letters, digits, `.`, `-` and `_`.
pub(crate) fn is_trust_domain(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_'))
}

/// Whether this is an id with a path: segments of letters, digits, `.`, `-` and `_`, none empty, `.` or `..`.
pub(crate) fn is_spiffe_id(text: &str) -> bool {
    let segment = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
    };
    let Some((domain, path)) = text.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    text.len() <= ID_BYTES && is_trust_domain(domain) && path.split('/').all(segment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::Lease;

    #[test]
    fn ids_name_the_cluster_where_the_form_says_so() {
        let workload = Lease::test(1).workload;
        let mut form = IdForm { trust_domain: "prod.example".parse().unwrap(), cluster_in_path: false };
        assert_eq!(form.id_of(&workload).unwrap().as_str(), "spiffe://prod.example/ns/payments/sa/api");
        form.cluster_in_path = true;
        assert_eq!(
            form.id_of(&workload).unwrap().as_str(),
            "spiffe://prod.example/cluster/east/ns/payments/sa/api"
        );
    }

    #[test]
    fn several_clusters_are_always_in_the_path() {
        let served = |clusters: &[&str], in_path| {
            let clusters = clusters.iter().map(|name| name.parse().unwrap()).collect();
            ServedDomain::new("prod.example".parse().unwrap(), clusters, in_path)
        };
        let in_path = |clusters: &[&str], asked| {
            served(clusters, asked)
                .map(|domain| domain.form(&"east".parse().unwrap()).unwrap().cluster_in_path)
        };
        assert_eq!(in_path(&["east"], None), Ok(false));
        assert_eq!(in_path(&["east"], Some(true)), Ok(true));
        assert_eq!(in_path(&["east", "west"], None), Ok(true));
        assert_eq!(in_path(&["east", "west"], Some(false)), Err(ClusterNotInPath));
        assert_eq!(served(&["east"], None).unwrap().form(&"west".parse().unwrap()), None);
    }

    #[test]
    fn no_workload_has_the_id_of_a_workload_in_another_form() {
        // A namespace cannot be `cluster`'s sibling: the first segment says which form it is.
        let mut workload = Lease::test(1).workload;
        workload.service_account.namespace = "cluster".parse().unwrap();
        let form = IdForm { trust_domain: "t".parse().unwrap(), cluster_in_path: false };
        assert_eq!(form.id_of(&workload).unwrap().as_str(), "spiffe://t/ns/cluster/sa/api");
    }

    #[test]
    fn domains_and_ids_are_those_of_the_standard() {
        let long = "a".repeat(256);
        for bad in ["", "Prod.example", "a/b", "a:8080", "ä", "a b", long.as_str()] {
            assert!(bad.parse::<TrustDomain>().is_err(), "{bad}");
        }
        for good in ["example.org", "a_b-c.d", "1"] {
            assert!(good.parse::<TrustDomain>().is_ok(), "{good}");
        }
        for bad in [
            "spiffe://t",
            "spiffe://t/",
            "spiffe://t//a",
            "spiffe://t/a/../b",
            "https://t/a",
            "spiffe://t/a%41",
        ] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad}");
        }
        let longest = format!("spiffe://t/{}", "a".repeat(ID_BYTES - 11));
        assert!(longest.parse::<SpiffeId>().is_ok());
        assert!(format!("{longest}a").parse::<SpiffeId>().is_err());
    }
}
