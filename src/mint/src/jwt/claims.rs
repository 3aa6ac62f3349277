//! What an access token says.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dayfly_core::claims::Claims as More;
use dayfly_core::ids::{
    Audience, ClusterName, LeaseId, Namespace, NodeName, OwnerName, PodName, ServiceAccountName, TargetName,
    Uid,
};
use dayfly_core::lease::{Confirmation, Lease};
use dayfly_core::ports::Order;
use dayfly_core::status::uri;
use serde::Serialize;

/// The claims of this order's access token. Equal orders give equal claims, written in the same order.
pub fn claims<'a>(order: &Order<'a>) -> Claims<'a> {
    let Order { lease, issuer } = *order;
    let subject = lease.workload.to_string();
    let issued_at = lease.issued_at.as_secs();
    let scope: Vec<&str> = lease.scope.iter().map(AsRef::as_ref).collect();
    Claims {
        iss: issuer,
        sub: subject.clone(),
        aud: &lease.audience,
        exp: lease.expires_at.as_secs(),
        nbf: issued_at,
        iat: issued_at,
        jti: lease.id,
        client_id: subject,
        scope: (!scope.is_empty()).then(|| scope.join(" ")),
        cnf: lease.confirmation.map(Cnf::from),
        status: lease.status.map(|entry| Status {
            status_list: StatusRef { idx: entry.index, uri: uri(issuer, &lease.target_ref(), entry.list) },
        }),
        dayfly: DayflyClaim::of(lease),
        more: &lease.claims,
    }
}

/// An access token's claims (RFC 9068, section 2.2), in the order they are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claims<'a> {
    /// Dayfly's issuer identifier.
    pub iss: &'a str,
    /// The workload, cluster first: `CLUSTER:NAMESPACE:SERVICE-ACCOUNT`.
    pub sub: String,
    /// The one audience, as a string (RFC 7519, section 4.1.3).
    pub aud: &'a Audience,
    /// When it ends, in seconds since 1970.
    pub exp: u64,
    /// Not before it was issued.
    pub nbf: u64,
    /// When it was issued, in seconds since 1970.
    pub iat: u64,
    /// The lease's id: revocation's cut-offs are compared with it.
    pub jti: LeaseId,
    /// The client is the workload itself: the same as `sub` (RFC 9068, section 2.2; RFC 8693, section 4.3).
    pub client_id: String,
    /// The scopes, separated by spaces (RFC 8693, section 4.2); absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// What its holder must prove to hold, where it is bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cnf: Option<Cnf>,
    /// Where its bit is, where its target has status lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// What a verifier needs to match it with rules, offline.
    pub dayfly: DayflyClaim<'a>,
    /// What the Grant puts in: never a name of the above ([`dayfly_core::claims::is_reserved`]).
    #[serde(flatten)]
    pub more: &'a More,
}

/// The claim `status` (draft-ietf-oauth-status-list, section 6.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The one way in which its status is told.
    pub status_list: StatusRef,
}

/// Where a token's bit is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatusRef {
    /// Its place.
    pub idx: u32,
    /// The list's URL, which is its `sub`.
    pub uri: String,
}

/// The confirmation (RFC 7800, section 3.1): base64url of a SHA-256 digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Cnf {
    /// A JWK's thumbprint (RFC 9449, section 6.1).
    #[serde(rename = "jkt")]
    Jwk(String),
    /// A certificate's digest (RFC 8705, section 3.1).
    #[serde(rename = "x5t#S256")]
    Certificate(String),
}

impl From<Confirmation> for Cnf {
    fn from(confirmation: Confirmation) -> Self {
        match confirmation {
            Confirmation::Jwk(digest) => Self::Jwk(URL_SAFE_NO_PAD.encode(digest.as_bytes())),
            Confirmation::Certificate(digest) => Self::Certificate(URL_SAFE_NO_PAD.encode(digest.as_bytes())),
        }
    }
}

/// The claim `dayfly`: what rules select by, but for what other members of the token say (`jti`, the header's `kid`)
/// and what no claim can carry (image digest, the presented token's id).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DayflyClaim<'a> {
    /// The workload's cluster.
    pub cluster: &'a ClusterName,
    /// The narrowest owner.
    pub owner: &'a OwnerName,
    /// The namespace's owner, where `owner` is a narrower one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_owner: Option<&'a OwnerName>,
    /// The workload's namespace.
    pub namespace: &'a Namespace,
    /// Its service account.
    pub service_account: &'a ServiceAccountName,
    /// That service account's uid.
    pub service_account_uid: Uid,
    /// Its pod; absent where the token it presented was not bound to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<&'a PodName>,
    /// That pod's uid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<Uid>,
    /// Its node, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<&'a NodeName>,
    /// That node's uid, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_uid: Option<Uid>,
    /// The grant, as `NAMESPACE/NAME`.
    pub grant: String,
    /// The target.
    pub target: &'a TargetName,
}

impl<'a> DayflyClaim<'a> {
    /// The claim of this lease.
    pub fn of(lease: &'a Lease) -> Self {
        let workload = &lease.workload;
        Self {
            cluster: &workload.cluster,
            owner: lease.owners.narrowest(),
            namespace_owner: lease.owners.narrowed.as_ref().map(|_| &lease.owners.namespace),
            namespace: &workload.service_account.namespace,
            service_account: &workload.service_account.name,
            service_account_uid: workload.service_account.uid,
            pod: workload.pod.as_ref().map(|pod| &pod.name),
            pod_uid: workload.pod.as_ref().map(|pod| pod.uid),
            node: workload.node.as_ref().map(|node| &node.name),
            node_uid: workload.node.as_ref().and_then(|node| node.uid),
            grant: lease.grant.to_string(),
            target: &lease.target,
        }
    }
}
