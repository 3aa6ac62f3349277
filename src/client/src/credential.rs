//! A credential, as the broker handed it over.

use std::time::Duration;

use dayfly_api::v1;
use dayfly_core::secret::Secret;
use dayfly_core::time::Timestamp;

use crate::error::Error;

/// An issued credential. It has no `Debug`, so that it does not end up in a log.
///
/// ```compile_fail
/// fn log(credential: &dayfly_client::Credential) { println!("{credential:?}"); }
/// ```
#[derive(Clone)]
pub struct Credential {
    /// The credential itself: for kind `jwt`, an RFC 9068 access token in compact form.
    pub secret: Secret,
    /// Its lease: the record of it, which holds nothing secret.
    pub lease: v1::Lease,
    /// When it ends by itself, UTC, by the broker's clock.
    pub expires_at: Timestamp,
    /// How long it lives in all.
    pub life: Duration,
    /// When to ask for the next one, from when it was asked for.
    pub renew_after: Duration,
}

impl Credential {
    pub(crate) fn of(answer: v1::IssueResponse) -> Result<Self, Error> {
        let secret = Secret::from(answer.credential);
        if secret.is_empty() {
            return Err(Error::Malformed("credential"));
        }
        let lease = answer.lease.ok_or(Error::Malformed("lease"))?;
        let issued_at = time(lease.issued_at.as_ref()).ok_or(Error::Malformed("issued_at"))?;
        let expires_at = time(lease.expires_at.as_ref()).ok_or(Error::Malformed("expires_at"))?;
        let life = expires_at.since(issued_at);
        let said = answer.renew_after.and_then(|after| Duration::try_from(after).ok());
        let renew_after = said.filter(|after| !after.is_zero() && *after < life).unwrap_or(life.mul_f64(0.7));
        Ok(Self { secret, lease, expires_at, life, renew_after })
    }
}

fn time(time: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    let time = time?;
    let seconds = u64::try_from(time.seconds).ok()?;
    let millis = u64::try_from(time.nanos).ok()? / 1_000_000;
    Some(Timestamp::from_millis(seconds.checked_mul(1000)?.checked_add(millis)?))
}
