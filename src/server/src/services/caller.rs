//! What every call carries: the caller's token, and perhaps which cluster it is of. Verified before the call begins.

use std::sync::Arc;

use dayfly_api::CLUSTER_METADATA;
use dayfly_api::rejection::Rejection;
use dayfly_api::v1::ErrorReason;
use dayfly_broker::{Bearer, Broker, By, Caller as Kind, Verified};
use dayfly_core::digest::Digest;
use dayfly_core::ids::ClusterName;
use dayfly_core::limits;
use dayfly_core::ports::BoxFuture;
use dayfly_core::secret::Secret;
use http::HeaderMap;
use tonic::{Request, Status};

use super::reject;
use crate::guard::{Admitted, Arriving, Door, Who};

/// The caller's token, the cluster it names, and that it was verified.
pub(crate) struct Caller {
    pub(crate) token: Secret,
    cluster: Option<ClusterName>,
    verified: Option<Verified>,
}

impl Caller {
    /// Reads `authorization: Bearer TOKEN` (RFC 6750, section 2.1) and `dayfly-cluster: NAME`.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Rejection> {
        let missing = || {
            Rejection::new(
                ErrorReason::TokenMissing,
                "send the projected token as metadata `authorization: Bearer TOKEN`, once",
            )
        };
        let mut values = headers.get_all("authorization").iter();
        let (Some(value), None) = (values.next(), values.next()) else { return Err(missing()) };
        let (scheme, token) =
            value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
            return Err(missing());
        }
        if token.len() > limits::TOKEN_BYTES {
            let message =
                format!("the token has {} bytes; at most {} are read", token.len(), limits::TOKEN_BYTES);
            return Err(Rejection::new(ErrorReason::TokenMalformed, message));
        }
        let bad_cluster = |what: &str| {
            let rejection =
                Rejection::new(ErrorReason::InvalidField, format!("metadata {CLUSTER_METADATA} {what}"));
            rejection.with("field", CLUSTER_METADATA)
        };
        let mut names = headers.get_all(CLUSTER_METADATA).iter();
        let cluster = match (names.next().map(|name| name.to_str().unwrap_or_default().parse()), names.next())
        {
            (None, _) => None,
            (Some(Ok(cluster)), None) => Some(cluster),
            (Some(_), Some(_)) => return Err(bad_cluster("names more than one cluster: send it once")),
            (Some(Err(_)), None) => return Err(bad_cluster("is not a cluster's name (RFC 1123 label)")),
        };
        Ok(Self { token: Secret::from(token.to_owned()), cluster, verified: None })
    }

    /// The caller of a request that came past the guard.
    pub(super) fn behind<T>(request: &Request<T>) -> Result<Arc<Self>, Status> {
        if request.extensions().get::<SocketPeer>().is_some() {
            return Err(not_by_the_socket());
        }
        let caller = request.extensions().get::<Arc<Self>>();
        caller.cloned().ok_or_else(|| Status::internal("the call came past no guard"))
    }

    /// The operator who calls: by a token, or by the broker's own socket.
    pub(super) fn operator<T>(request: &Request<T>) -> Result<Operator, Status> {
        match request.extensions().get::<SocketPeer>() {
            Some(peer) => Ok(Operator::Socket(*peer)),
            None => Self::behind(request).map(Operator::Token),
        }
    }

    /// The digest of the token: what calls with the same token are known to be of one caller by.
    pub(crate) fn token_digest(&self) -> Digest {
        Digest::of(self.token.expose())
    }

    fn admitted(self, verified: Verified) -> Admitted {
        let who = Who::of(verified.identity());
        Admitted { caller: Arc::new(Self { verified: Some(verified), ..self }), who }
    }

    /// As the use cases take it.
    pub(crate) fn bearer(&self) -> Bearer<'_> {
        Bearer { token: &self.token, cluster: self.cluster.as_ref(), verified: self.verified.as_ref() }
    }
}

/// What is asked for at the broker's own socket and is not to be had there.
pub(super) fn not_by_the_socket() -> Status {
    let message = "the broker's own socket serves what ends, lifts and lists revocations and signing keys, and what looks \
         after the store: Revoke, LiftRevocation, GetRevocation, ListRevocations, ListKeys, RotateKey, RevokeKey, \
         CreateBackup, AdoptStore";
    Rejection::new(ErrorReason::MethodUnknown, message).into_status()
}

/// Who is at the other end of the broker's own socket, and may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SocketPeer {
    pub(crate) uid: u32,
}

/// An operator who may come by either way.
pub(super) enum Operator {
    Token(Arc<Caller>),
    Socket(SocketPeer),
}

impl Operator {
    /// As the use cases take it.
    pub(super) fn by(&self) -> By<'_> {
        match self {
            Self::Token(caller) => caller.bearer().into(),
            Self::Socket(peer) => By::Socket { uid: peer.uid },
        }
    }
}

impl Door for Broker {
    fn known(&self, kind: Kind, headers: &HeaderMap) -> Result<Arriving, Status> {
        let caller = Caller::of(headers).map_err(Rejection::into_status)?;
        let known = self.known(caller.bearer(), kind).map_err(reject::status)?;
        Ok(match known {
            Some(verified) => Arriving::Known(caller.admitted(verified)),
            None => Arriving::Unknown(caller),
        })
    }

    fn verify(&self, kind: Kind, caller: Caller) -> BoxFuture<'_, Result<Admitted, Status>> {
        Box::pin(async move {
            let verified = self.verify(caller.bearer(), kind).await.map_err(reject::status)?;
            Ok(caller.admitted(verified))
        })
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt as _;

    use super::*;

    fn reason(headers: &HeaderMap) -> Option<String> {
        Caller::of(headers).err()?.into_status().get_details_error_info().map(|info| info.reason)
    }

    #[test]
    fn takes_one_bearer_token_and_one_cluster() {
        let mut headers = HeaderMap::new();
        assert_eq!(reason(&headers).unwrap(), "TOKEN_MISSING");
        headers.insert("authorization", "Basic abc".parse().unwrap());
        assert_eq!(reason(&headers).unwrap(), "TOKEN_MISSING");
        headers.insert("authorization", "bearer abc".parse().unwrap());
        assert_eq!(Caller::of(&headers).map(|c| c.token.expose().to_vec()).ok(), Some(b"abc".to_vec()));
        headers.insert("dayfly-cluster", "Not A Name".parse().unwrap());
        assert_eq!(reason(&headers).unwrap(), "INVALID_FIELD");
        headers.insert("dayfly-cluster", "east".parse().unwrap());
        assert_eq!(reason(&headers), None);
        headers.append("dayfly-cluster", "west".parse().unwrap());
        assert_eq!(reason(&headers).unwrap(), "INVALID_FIELD");
        headers.insert("dayfly-cluster", "east".parse().unwrap());
        headers.append("authorization", "bearer def".parse().unwrap());
        assert_eq!(reason(&headers).unwrap(), "TOKEN_MISSING");
        let mut big = HeaderMap::new();
        big.insert("authorization", format!("Bearer {}", "a".repeat(9000)).parse().unwrap());
        assert_eq!(reason(&big).unwrap(), "TOKEN_MALFORMED");
    }

    #[test]
    fn no_request_is_served_that_came_past_no_guard() {
        assert!(Caller::behind(&Request::new(())).is_err());
    }
}
