//! Which leases an operator means: names are resolved to uids, since names are reused.

use dayfly_core::ids::{ClusterName, Namespace, PodName, ServiceAccountName};
use dayfly_core::ports::Cluster;
use dayfly_core::rule::{Fields, Selector};

use crate::attest::not_ready;
use crate::operator::Operator;
use crate::{Broker, Error};

/// Which leases, as an operator names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Every lease, said explicitly.
    All,
    /// Leases that have all of these.
    Where(Box<Named>),
}

/// Fields by value, and names that are resolved to uids.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Named {
    /// The fields of a selector that need no resolving.
    pub fields: Fields,
    /// The service account by its name, together with `fields.namespace` and instead of `fields.service_account`.
    pub service_account: Option<ServiceAccountName>,
    /// The pod by its name, together with `fields.namespace` and instead of `fields.pod`.
    pub pod: Option<PodName>,
}

impl Which {
    /// Leases that have all of these fields.
    pub fn fields(fields: Fields) -> Self {
        Self::Where(Box::new(Named { fields, ..Named::default() }))
    }

    /// The fields it names by value.
    pub(crate) fn by_value(&self) -> Option<&Fields> {
        match self {
            Self::All => None,
            Self::Where(named) => Some(&named.fields),
        }
    }

    /// As it was named, in one text: what makes a repeat the same request.
    pub(crate) fn as_named(&self) -> String {
        let Self::Where(named) = self else { return "all".to_owned() };
        let fields = Selector::Where(Box::new(named.fields.clone()));
        let name = |name: Option<&str>| name.unwrap_or_default().to_owned();
        let account = name(named.service_account.as_ref().map(ServiceAccountName::as_str));
        format!("{fields}; {account}; {}", name(named.pod.as_ref().map(PodName::as_str)))
    }
}

impl Broker {
    /// The selector with every name resolved, within what the operator reaches.
    pub(crate) async fn resolve(&self, operator: &Operator<'_>, which: &Which) -> Result<Selector, Error> {
        let Which::Where(named) = which else { return Ok(Selector::All) };
        let mut fields = named.fields.clone();
        if let Some(name) = &named.service_account {
            let (cluster, namespace) = self.whereabouts(operator, &fields, "selector.service_account")?;
            if fields.service_account.is_some() {
                return Err(Error::invalid("selector.service_account", "give its name or its uid, not both"));
            }
            let found = cluster.directory.service_account(&namespace, name, None).await?;
            let found = found.ok_or_else(|| not_found("service account", &namespace, name.as_str()))?;
            fields.service_account = Some(found.uid);
        }
        if let Some(name) = &named.pod {
            let (cluster, namespace) = self.whereabouts(operator, &fields, "selector.pod")?;
            if fields.pod.is_some() {
                return Err(Error::invalid("selector.pod", "give its name or its uid, not both"));
            }
            let found = cluster.directory.pod(&namespace, name, None).await?;
            let found = found.ok_or_else(|| not_found("pod", &namespace, name.as_str()))?;
            fields.pod = Some(found.uid);
        }
        Selector::fields(fields).map_err(|empty| Error::invalid("selector", empty.to_string()))
    }

    /// The cluster and namespace that a name is looked up in.
    fn whereabouts(
        &self,
        operator: &Operator<'_>,
        fields: &Fields,
        field: &'static str,
    ) -> Result<(&Cluster, Namespace), Error> {
        let namespace = fields.namespace.clone();
        let namespace =
            namespace.ok_or_else(|| Error::invalid(field, "a name needs selector.namespace too"))?;
        let only = self.clusters.keys().next().filter(|_| self.clusters.len() == 1);
        let name: Option<&ClusterName> = fields.cluster.as_ref().or(only);
        let name = name.ok_or_else(|| Error::invalid(field, "a name needs selector.cluster too"))?;
        let cluster = self.clusters.get(name).filter(|_| operator.reaches(name));
        let cluster = cluster
            .ok_or_else(|| Error::invalid("selector.cluster", format!("there is no cluster {name}")))?;
        if cluster.directory.ready() { Ok((cluster, namespace)) } else { Err(not_ready()) }
    }
}

fn not_found(kind: &str, namespace: &Namespace, name: &str) -> Error {
    let message = format!("there is no {kind} {namespace}/{name} now: name the uid of the one that is meant");
    Error::NotFound { message }
}
