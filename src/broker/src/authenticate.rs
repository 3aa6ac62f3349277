//! Step 1: whose token this is, as its cluster's API server says.

use std::sync::Arc;

use dayfly_core::digest::Digest;
use dayfly_core::ids::{Audience, ClusterName};
use dayfly_core::limits;
use dayfly_core::ports::{Cluster, InvalidToken, LEGACY_ISSUER, ReviewError};
use dayfly_core::secret::Secret;
use dayfly_core::workload::Identity;

use crate::{Broker, Error};

/// What a caller presented with its call.
#[derive(Clone, Copy)]
pub struct Bearer<'a> {
    /// The token.
    pub token: &'a Secret,
    /// The cluster that the call's metadata names. It only chooses among the clusters of the token's issuer, and must be
    /// given where there are several.
    pub cluster: Option<&'a ClusterName>,
    /// That this token was verified a moment ago, for this same call ([`Broker::verify`]): it is not asked for again.
    pub verified: Option<&'a Verified>,
}

/// A caller whose token was verified. Only [`Broker::verify`] and [`Broker::known`] make one.
#[derive(Debug, Clone)]
pub struct Verified {
    caller: Caller,
    token: Digest,
    identity: Arc<Identity>,
}

impl Verified {
    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}

/// The kinds of callers. Each has its own audience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Workloads and their sidecars.
    Workload,
    /// People on call, platform and security teams.
    Operator,
    /// Resource servers.
    Verifier,
}

impl Broker {
    /// Verifies a caller's token before anything else is done for its call: before its request is even read.
    ///
    /// # Errors
    /// When the token is not good for this kind of caller, or cannot be reviewed now.
    pub async fn verify(&self, bearer: Bearer<'_>, caller: Caller) -> Result<Verified, Error> {
        let (_, identity) = self.authenticate(bearer, caller).await?;
        Ok(Verified { caller, token: Digest::of(bearer.token.expose()), identity })
    }

    /// The same, where the token was verified a short while ago and nothing has to be asked. None where it has.
    ///
    /// # Errors
    /// When what is seen of the token without asking anyone is not good, or it was refused a short while ago.
    pub fn known(&self, bearer: Bearer<'_>, caller: Caller) -> Result<Option<Verified>, Error> {
        if self.is_session(bearer.token, caller) {
            // Nobody is asked, and nothing is remembered: it is read in its turn.
            return Ok(None);
        }
        let (cluster, audience) = self.chosen(bearer, caller)?;
        let known = cluster.reviewer.known(bearer.token, audience).transpose()?;
        Ok(known.map(|identity| Verified { caller, token: Digest::of(bearer.token.expose()), identity }))
    }

    /// Who the caller is, and the cluster that says so.
    pub(crate) async fn authenticate(
        &self,
        bearer: Bearer<'_>,
        caller: Caller,
    ) -> Result<(&Cluster, Arc<Identity>), Error> {
        if let Some(verified) = bearer.verified
            && verified.caller == caller
            && verified.token == Digest::of(bearer.token.expose())
            && let Some(cluster) = self.clusters.get(&verified.identity.cluster)
        {
            return Ok((cluster, Arc::clone(&verified.identity)));
        }
        if self.is_session(bearer.token, caller) {
            return self.of_session(bearer);
        }
        let (cluster, audience) = self.chosen(bearer, caller)?;
        let identity = cluster.reviewer.review(bearer.token, audience).await?;
        Ok((cluster, identity))
    }

    /// The cluster that is asked whose token this is, and for which audience.
    fn chosen(&self, bearer: Bearer<'_>, caller: Caller) -> Result<(&Cluster, &Audience), Error> {
        let audience = match caller {
            Caller::Workload => &self.audiences.workload,
            Caller::Operator => &self.audiences.operator,
            Caller::Verifier => &self.audiences.verifier,
        };
        check_length(bearer.token)?;
        let issuer = (self.issuer_of)(bearer.token).ok_or_else(|| Error::Unauthenticated {
            kind: InvalidToken::Malformed,
            message: "the token is not a signed JWT with an issuer: send the projected service-account token"
                .to_owned(),
        })?;
        if issuer == LEGACY_ISSUER {
            return Err(ReviewError::legacy(audience).into());
        }
        if issuer == self.issuer {
            // As a session it was read before it came here.
            let message = match caller {
                Caller::Operator => "this broker opens no sessions: send a service-account token".to_owned(),
                _ => format!(
                    "what Dayfly issued itself is not good here: send a service-account token of audience {audience}"
                ),
            };
            return Err(Error::Unauthenticated { kind: InvalidToken::UnknownIssuer, message });
        }
        Ok((self.cluster_of(&issuer, bearer.cluster)?, audience))
    }

    /// The cluster of this issuer that the call names; where there is but one, it need not.
    fn cluster_of(&self, issuer: &str, named: Option<&ClusterName>) -> Result<&Cluster, Error> {
        let unknown = |message: &str| Error::Unauthenticated {
            kind: InvalidToken::UnknownIssuer,
            message: message.to_owned(),
        };
        let of_issuer = self.by_issuer.get(issuer).map(Vec::as_slice).unwrap_or_default();
        let chosen = match (of_issuer, named) {
            ([], None) => return Err(unknown("the token is of no cluster that this broker serves")),
            ([only], None) => Some(only),
            // Their names are not told to whoever can write an issuer into a token.
            (_, None) => {
                let message = "several clusters have the token's issuer: name yours (metadata dayfly-cluster; \
                               --cluster or DAYFLY_CLUSTER for the command line)";
                return Err(Error::invalid("dayfly-cluster", message));
            }
            (several, Some(named)) => several.iter().find(|cluster| *cluster == named),
        };
        let chosen = chosen.and_then(|name| self.clusters.get(name));
        chosen.ok_or_else(|| unknown("the token is not of the cluster that the call names"))
    }
}

pub(crate) fn check_length(token: &Secret) -> Result<(), Error> {
    if token.is_empty() || token.len() > limits::TOKEN_BYTES {
        return Err(Error::Unauthenticated {
            kind: InvalidToken::Malformed,
            message: format!("the token must have 1 to {} bytes", limits::TOKEN_BYTES),
        });
    }
    Ok(())
}
