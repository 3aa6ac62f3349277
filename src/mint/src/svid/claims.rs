//! What a JWT-SVID says.

use dayfly_core::claims::Claims as More;
use dayfly_core::ids::{Audience, LeaseId, SpiffeId};
use dayfly_core::ports::Order;
use serde::Serialize;

use crate::jwt::{Cnf, DayflyClaim};

/// The claims of this order's JWT-SVID; none where its lease has no SPIFFE id. Equal orders give equal claims, written
/// in the same order.
pub fn claims<'a>(order: &Order<'a>) -> Option<Claims<'a>> {
    let lease = order.lease;
    let scope: Vec<&str> = lease.scope.iter().map(AsRef::as_ref).collect();
    Some(Claims {
        sub: lease.spiffe_id.as_ref()?,
        aud: [&lease.audience],
        exp: lease.expires_at.as_secs(),
        iat: lease.issued_at.as_secs(),
        jti: lease.id,
        scope: (!scope.is_empty()).then(|| scope.join(" ")),
        cnf: lease.confirmation.map(Cnf::from),
        dayfly: DayflyClaim::of(lease),
        more: &lease.claims,
    })
}

/// A JWT-SVID's claims (SPIFFE JWT-SVID, section 3), in the order they are written. There is no `iss`: an SVID is verified
/// by the bundle of the trust domain in its `sub`, and never by an issuer's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claims<'a> {
    /// The workload's SPIFFE id (section 3.1).
    pub sub: &'a SpiffeId,
    /// The one audience, as an array (section 3.2): that is how SPIFFE's own tools write it.
    pub aud: [&'a Audience; 1],
    /// When it ends, in seconds since 1970 (section 3.3).
    pub exp: u64,
    /// When it was issued, in seconds since 1970.
    pub iat: u64,
    /// The lease's id: revocation's cut-offs are compared with it.
    pub jti: LeaseId,
    /// The scopes, separated by spaces (RFC 8693, section 4.2); absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// What its holder must prove to hold, where it is bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cnf: Option<Cnf>,
    /// What a verifier needs to match it with rules, offline.
    pub dayfly: DayflyClaim<'a>,
    /// What the Grant puts in: never a name of the above ([`dayfly_core::claims::is_reserved`]).
    #[serde(flatten)]
    pub more: &'a More,
}
