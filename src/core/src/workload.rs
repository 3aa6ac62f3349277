//! Who is calling: an identity as a cluster's API server reviewed it, and the workload in it.

use std::collections::BTreeMap;
use std::fmt;

use crate::digest::Digest;
use crate::ids::{ClusterName, CredentialId, Namespace, NodeName, PodName, ServiceAccountName, Uid};

/// An attested Kubernetes identity. The cluster is the first part of it, everywhere.
///
/// Shown as the `sub` of its tokens: `CLUSTER:NAMESPACE:SERVICE-ACCOUNT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// The cluster whose API server reviewed its token.
    pub cluster: ClusterName,
    /// The service account it runs as.
    pub service_account: ServiceAccount,
    /// The pod its token is bound to. `None` only where target and grant accept unbound tokens.
    pub pod: Option<Pod>,
    /// The node that pod is on, where known.
    pub node: Option<Node>,
    /// The id of the token it presented.
    pub credential_id: Option<CredentialId>,
}

/// A service account: name and uid, since names are reused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    /// Its namespace, which is the workload's.
    pub namespace: Namespace,
    /// Its name.
    pub name: ServiceAccountName,
    /// Its uid.
    pub uid: Uid,
}

/// A pod, by name and uid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: PodName,
    /// Its uid.
    pub uid: Uid,
}

/// A node, by name and, where the token says it, uid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its uid.
    pub uid: Option<Uid>,
}

impl Workload {
    /// The caller as idempotency keys and the workload index know it: a digest over cluster, namespace, service
    /// account uid and pod uid.
    pub fn caller(&self) -> Digest {
        let pod = self.pod.as_ref().map_or([0; 16], |pod| pod.uid.to_bytes());
        Digest::of_parts(&[
            self.cluster.as_str().as_bytes(),
            &[0],
            self.service_account.namespace.as_str().as_bytes(),
            &[0],
            &self.service_account.uid.to_bytes(),
            &pod,
        ])
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.cluster, self.service_account.namespace, self.service_account.name)
    }
}

/// What an API server said of a token (`TokenReview`'s `status.user`), unchanged: a SubjectAccessReview repeats it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The cluster that reviewed it.
    pub cluster: ClusterName,
    /// `status.user.username`; a service account's is `system:serviceaccount:NAMESPACE:NAME`.
    pub username: String,
    /// `status.user.uid`; a service account's uid.
    pub uid: String,
    /// `status.user.groups`.
    pub groups: Vec<String>,
    /// `status.user.extra`.
    pub extra: BTreeMap<String, Vec<String>>,
    /// Whether the token is bound to a Secret (its claim `kubernetes.io.secret`), which TokenReview does not tell.
    pub of_secret: bool,
}

/// What a token is bound to, beside its service account: it ends with that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Binding {
    /// A pod: what Dayfly is for.
    Pod,
    /// A node, and no pod of it.
    Node,
    /// A Secret.
    Secret,
    /// Nothing.
    Nothing,
}

impl Identity {
    /// What its token is bound to.
    pub fn binding(&self) -> Binding {
        let names = |keys: [&str; 2]| {
            keys.iter().any(|key| self.extra.contains_key(&format!("authentication.kubernetes.io/{key}")))
        };
        if names(["pod-name", "pod-uid"]) {
            Binding::Pod
        } else if names(["node-name", "node-uid"]) {
            Binding::Node
        } else if self.of_secret {
            Binding::Secret
        } else {
            Binding::Nothing
        }
    }

    /// The service account it is, if it is one and its uid is well formed.
    pub fn service_account(&self) -> Option<ServiceAccount> {
        let rest = self.username.strip_prefix("system:serviceaccount:")?;
        let (namespace, name) = rest.split_once(':')?;
        Some(ServiceAccount {
            namespace: namespace.parse().ok()?,
            name: name.parse().ok()?,
            uid: self.uid.parse().ok()?,
        })
    }

    /// The pod its token is bound to.
    pub fn pod(&self) -> Option<Pod> {
        Some(Pod { name: self.one("pod-name")?.parse().ok()?, uid: self.one("pod-uid")?.parse().ok()? })
    }

    /// The node of that pod.
    pub fn node(&self) -> Option<Node> {
        Some(Node {
            name: self.one("node-name")?.parse().ok()?,
            uid: self.one("node-uid").and_then(|uid| uid.parse().ok()),
        })
    }

    /// The presented token's own id.
    pub fn credential_id(&self) -> Option<CredentialId> {
        self.one("credential-id")?.parse().ok()
    }

    /// The single value of `authentication.kubernetes.io/KEY`; none where there are several.
    fn one(&self, key: &str) -> Option<&str> {
        match self.extra.get(&format!("authentication.kubernetes.io/{key}"))?.as_slice() {
            [value] => Some(value),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(username: &str) -> Identity {
        let extra =
            |key: &str, value: &str| (format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        Identity {
            cluster: "east".parse().unwrap(),
            username: username.to_owned(),
            uid: "0c1f8f8e-9f0e-4f0e-8f0e-0c1f8f8e9f0e".to_owned(),
            groups: vec!["system:serviceaccounts".to_owned()],
            extra: BTreeMap::from([
                extra("pod-name", "api-0"),
                extra("pod-uid", "1c1f8f8e-9f0e-4f0e-8f0e-0c1f8f8e9f0e"),
                extra("node-name", "node-1"),
                extra("credential-id", "JTI=2c1f8f8e-9f0e-4f0e-8f0e-0c1f8f8e9f0e"),
            ]),
            of_secret: false,
        }
    }

    #[test]
    fn reads_what_token_review_says() {
        let identity = identity("system:serviceaccount:payments:api");
        assert_eq!(identity.service_account().unwrap().name.as_str(), "api");
        assert_eq!(identity.pod().unwrap().name.as_str(), "api-0");
        assert_eq!(identity.node().unwrap().uid, None);
        assert!(identity.credential_id().unwrap().as_str().starts_with("JTI="));
    }

    #[test]
    fn the_same_names_and_uids_in_another_cluster_are_another_workload() {
        let of = |cluster: &str| {
            let identity = identity("system:serviceaccount:payments:api");
            Workload {
                cluster: cluster.parse().unwrap(),
                service_account: identity.service_account().unwrap(),
                pod: identity.pod(),
                node: identity.node(),
                credential_id: identity.credential_id(),
            }
        };
        assert_eq!(of("east").caller(), of("east").caller());
        assert_ne!(of("east").caller(), of("west").caller());
        assert_eq!(of("east").to_string(), "east:payments:api");
        assert_eq!(of("west").to_string(), "west:payments:api");
    }

    #[test]
    fn tells_what_a_token_is_bound_to() {
        let mut identity = identity("system:serviceaccount:payments:api");
        assert_eq!(identity.binding(), Binding::Pod);
        // One that is named by half is not taken for none.
        identity.extra.remove("authentication.kubernetes.io/pod-uid");
        assert_eq!((identity.binding(), identity.pod()), (Binding::Pod, None));
        identity.extra.remove("authentication.kubernetes.io/pod-name");
        assert_eq!(identity.binding(), Binding::Node);
        identity.extra.remove("authentication.kubernetes.io/node-name");
        assert_eq!(identity.binding(), Binding::Nothing);
        identity.of_secret = true;
        assert_eq!(identity.binding(), Binding::Secret);
    }

    #[test]
    fn a_person_is_no_service_account() {
        for name in
            ["alice", "system:node:n1", "system:serviceaccount:payments", "system:serviceaccount::api"]
        {
            assert_eq!(identity(name).service_account(), None, "{name}");
        }
    }

    #[test]
    fn callers_differ_by_uid_not_by_name() {
        let workload = |pod: u128| Workload {
            cluster: "east".parse().unwrap(),
            service_account: identity("system:serviceaccount:payments:api").service_account().unwrap(),
            pod: Some(Pod { name: "api-0".parse().unwrap(), uid: Uid::from_u128(pod) }),
            node: None,
            credential_id: None,
        };
        assert_eq!(workload(1).caller(), workload(1).caller());
        assert_ne!(workload(1).caller(), workload(2).caller());
        assert_eq!(workload(1).to_string(), "east:payments:api");
    }
}
