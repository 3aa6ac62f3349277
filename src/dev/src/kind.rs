//! The kinds of object the stand-in keeps: one row each.

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// Cluster-wide; holds the others.
    Namespace,
    /// What a pod runs as.
    ServiceAccount,
    /// What a token is bound to.
    Pod,
    /// What controls pods. Nothing here makes any of one.
    ReplicaSet,
    /// What controls them.
    Deployment,
}

impl Kind {
    /// All of them; a namespace comes before what it holds.
    pub(crate) const ALL: [Self; 5] =
        [Self::Namespace, Self::ServiceAccount, Self::Pod, Self::ReplicaSet, Self::Deployment];

    /// As `kind` has it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::ServiceAccount => "ServiceAccount",
            Self::Pod => "Pod",
            Self::ReplicaSet => "ReplicaSet",
            Self::Deployment => "Deployment",
        }
    }

    /// As paths have it.
    pub(crate) const fn plural(self) -> &'static str {
        match self {
            Self::Namespace => "namespaces",
            Self::ServiceAccount => "serviceaccounts",
            Self::Pod => "pods",
            Self::ReplicaSet => "replicasets",
            Self::Deployment => "deployments",
        }
    }

    /// As `apiVersion` has it.
    pub(crate) const fn api_version(self) -> &'static str {
        match self {
            Self::Namespace | Self::ServiceAccount | Self::Pod => "v1",
            Self::ReplicaSet | Self::Deployment => "apps/v1",
        }
    }

    /// How its paths begin.
    const fn root(self) -> &'static str {
        match self {
            Self::Namespace | Self::ServiceAccount | Self::Pod => "/api/v1/",
            Self::ReplicaSet | Self::Deployment => "/apis/apps/v1/",
        }
    }

    /// Whether its objects live in a namespace.
    pub(crate) const fn namespaced(self) -> bool {
        !matches!(self, Self::Namespace)
    }

    /// The kind of this segment of this path.
    pub(crate) fn of_plural(path: &str, plural: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.plural() == plural && path.starts_with(kind.root()))
    }
}

/// What names an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    /// Empty for what is cluster-wide.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn namespace(name: &str) -> Self {
        Self { kind: Kind::Namespace, namespace: String::new(), name: name.to_owned() }
    }

    pub(crate) fn service_account(namespace: &str, name: &str) -> Self {
        Self { kind: Kind::ServiceAccount, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    pub(crate) fn of(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    pub(crate) fn pod(namespace: &str, name: &str) -> Self {
        Self { kind: Kind::Pod, namespace: namespace.to_owned(), name: name.to_owned() }
    }
}
