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
}

impl Kind {
    /// All of them; a namespace comes before what it holds.
    pub(crate) const ALL: [Self; 3] = [Self::Namespace, Self::ServiceAccount, Self::Pod];

    /// As `kind` has it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::ServiceAccount => "ServiceAccount",
            Self::Pod => "Pod",
        }
    }

    /// As paths have it.
    pub(crate) const fn plural(self) -> &'static str {
        match self {
            Self::Namespace => "namespaces",
            Self::ServiceAccount => "serviceaccounts",
            Self::Pod => "pods",
        }
    }

    /// Whether its objects live in a namespace.
    pub(crate) const fn namespaced(self) -> bool {
        !matches!(self, Self::Namespace)
    }

    /// The kind of this path segment.
    pub(crate) fn of_plural(plural: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.plural() == plural)
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

    pub(crate) fn pod(namespace: &str, name: &str) -> Self {
        Self { kind: Kind::Pod, namespace: namespace.to_owned(), name: name.to_owned() }
    }
}
