//! Where a credential comes from: its claim `dayfly`, and what rules select by.

use std::fmt;
use std::str::FromStr;

use dayfly_core::ids::{
    ClusterName, GrantRef, KeyId, LeaseId, Namespace, NodeName, OwnerName, PodName, ServiceAccountName,
    TargetName, Uid,
};
use serde::{Deserialize, Deserializer};

/// The claim `dayfly` of a token: who holds it, who answers for that, and what allowed it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Origin {
    /// The workload's cluster.
    pub cluster: ClusterName,
    /// The narrowest owner.
    pub owner: OwnerName,
    /// The namespace's owner, where `owner` is a narrower one.
    pub namespace_owner: Option<OwnerName>,
    /// The workload's namespace.
    pub namespace: Namespace,
    /// Its service account.
    pub service_account: ServiceAccountName,
    /// That service account's uid.
    pub service_account_uid: Uid,
    /// Its pod; none where the token it presented was bound to none.
    pub pod: Option<PodName>,
    /// That pod's uid.
    pub pod_uid: Option<Uid>,
    /// Its node, where known.
    pub node: Option<NodeName>,
    /// That node's uid, where known.
    pub node_uid: Option<Uid>,
    /// The grant.
    #[serde(deserialize_with = "parsed")]
    pub grant: GrantRef,
    /// The target.
    pub target: TargetName,
}

fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(deserializer: D) -> Result<T, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

/// How many fields a selector can name that claims carry.
pub(crate) const FIELDS: usize = 10;
/// The place of the owner among them.
const OWNER: usize = 1;

/// The fields that a selector names, in the order cluster, owner, namespace, service account, pod, node, grant, target, key,
/// lease; ids as their 16 bytes.
pub(crate) type Fields = [Option<Box<[u8]>>; FIELDS];

/// A name's bytes.
pub(crate) fn name(name: &impl AsRef<str>) -> Box<[u8]> {
    name.as_ref().as_bytes().into()
}

/// What a token says that rules can be matched with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The token's `jti`.
    pub(crate) id: LeaseId,
    fields: Fields,
    namespace_owner: Option<Box<[u8]>>,
}

impl Facts {
    pub(crate) fn of(origin: &Origin, key: &KeyId, id: LeaseId) -> Self {
        let uid = |uid: Uid| Box::from(uid.to_bytes());
        Self {
            id,
            fields: [
                Some(name(&origin.cluster)),
                Some(name(&origin.owner)),
                Some(name(&origin.namespace)),
                Some(uid(origin.service_account_uid)),
                origin.pod_uid.map(uid),
                origin.node_uid.map(uid),
                Some(origin.grant.to_string().into_bytes().into()),
                Some(name(&origin.target)),
                Some(name(key)),
                Some(Box::from(id.to_bytes())),
            ],
            namespace_owner: origin.namespace_owner.as_ref().map(name),
        }
    }

    /// What a selector of this shape would have to say: one answer for each owner where it names one, none where the token
    /// lacks a field.
    pub(crate) fn sayings(&self, shape: Shape) -> impl Iterator<Item = Vec<u8>> {
        let namespace_owner = self.namespace_owner.as_deref().filter(|_| shape.names(OWNER));
        self.fields[OWNER].as_deref().into_iter().chain(namespace_owner).filter_map(move |owner| {
            shape.saying(|field| if field == OWNER { Some(owner) } else { self.fields[field].as_deref() })
        })
    }
}

/// Which fields a selector names, a bit each. One that names none is about everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Shape(u16);

impl Shape {
    pub(crate) fn of(fields: &Fields) -> Self {
        Self(fields.iter().rev().fold(0, |bits, field| bits << 1 | u16::from(field.is_some())))
    }

    fn names(self, field: usize) -> bool {
        self.0 & (1 << field) != 0
    }

    /// The fields it names, each after its length, so that no two selectors of one shape say the same.
    pub(crate) fn saying<'a>(self, field: impl Fn(usize) -> Option<&'a [u8]>) -> Option<Vec<u8>> {
        let mut saying = Vec::with_capacity(128);
        for number in (0..FIELDS).filter(|number| self.names(*number)) {
            let bytes = field(number)?;
            saying.extend_from_slice(&u32::try_from(bytes.len()).ok()?.to_be_bytes());
            saying.extend_from_slice(bytes);
        }
        Some(saying)
    }
}
