//! Who there is in the stand-in's cluster.

/// Someone with a service account, and a token of one audience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Person {
    /// The payments team's workload.
    Payments,
    /// The checkout team's workload.
    Checkout,
    /// The orders service, which checks credentials.
    Verifier,
    /// The operator on call.
    Operator,
}

impl Person {
    /// Everyone.
    pub(crate) const ALL: [Self; 4] = [Self::Payments, Self::Checkout, Self::Verifier, Self::Operator];

    /// The namespace.
    pub(crate) const fn namespace(self) -> &'static str {
        match self {
            Self::Payments => "payments",
            Self::Checkout => "checkout",
            Self::Verifier => "orders",
            Self::Operator => "ops",
        }
    }

    /// The service account.
    pub(crate) const fn service_account(self) -> &'static str {
        match self {
            Self::Payments | Self::Verifier => "api",
            Self::Checkout => "web",
            Self::Operator => "oncall",
        }
    }

    /// The pod.
    pub(crate) const fn pod(self) -> &'static str {
        match self {
            Self::Payments | Self::Verifier => "api-0",
            Self::Checkout => "web-0",
            Self::Operator => "console-0",
        }
    }

    /// What the pod is of.
    pub(crate) const fn deployment(self) -> &'static str {
        match self {
            Self::Operator => "console",
            person => person.service_account(),
        }
    }

    /// What the token is for.
    pub(crate) const fn audience(self) -> &'static str {
        match self {
            Self::Payments | Self::Checkout => "dayfly",
            Self::Verifier => "dayfly-verifier",
            Self::Operator => "dayfly-operator",
        }
    }

    /// The file with the token.
    pub(crate) const fn token_file(self) -> &'static str {
        match self {
            Self::Payments => "payments.token",
            Self::Checkout => "checkout.token",
            Self::Verifier => "verifier.token",
            Self::Operator => "operator.token",
        }
    }

    /// As the API server names it.
    pub(crate) fn username(self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace(), self.service_account())
    }
}
