//! Token Status Lists over HTTPS, for anyone: signed when they are asked for, and kept until their bits change or they are
//! as old as caches may keep them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use dayfly_broker::{Broker, StatusList};
use dayfly_core::digest::Digest;
use dayfly_core::ports::{Clock, KeyUse, Signer, TargetRef};
use dayfly_core::status::{self, StatusListId};
use dayfly_mint::status_list::{Bits, StatusListClaims, sign};

/// How often a list may be signed anew because its bits have changed.
const AT_MOST: Duration = Duration::from_secs(1);

/// What the routes know.
pub(crate) struct Shared {
    pub(crate) broker: Arc<Broker>,
    pub(crate) signer: Arc<dyn Signer>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) issuer: String,
    /// For how long a list may be cached.
    pub(crate) ttl: Duration,
    /// For how long it may be relied on.
    pub(crate) life: Duration,
    /// For how long the keys may be cached.
    pub(crate) refresh: Duration,
    pub(crate) signed: Mutex<HashMap<(TargetRef, StatusListId), Signed>>,
}

/// A list as it was signed last.
#[derive(Clone)]
pub(crate) struct Signed {
    token: Arc<str>,
    etag: Arc<str>,
    version: u64,
    /// By the monotonic clock.
    at: Duration,
}

/// The routes.
pub(crate) fn routes(shared: Shared) -> Router {
    // Of an issuer with a path, where its tokens say, and without it for what is behind something that takes it off.
    let path = shared.issuer.trim_end_matches('/').splitn(4, '/').nth(3).map(|path| format!("/{path}"));
    let mut router = Router::new();
    for path in [Some(String::new()), path].into_iter().flatten() {
        router = router
            .route(&format!("{path}/status/jwks.json"), get(jwks))
            .route(&format!("{path}/status/{{cluster}}/{{target}}/{{list}}"), get(list));
    }
    router.with_state(Arc::new(shared))
}

/// The keys that lists are verified with.
async fn jwks(State(shared): State<Arc<Shared>>) -> Response {
    let Some(keys) = shared.signer.jwks(&KeyUse::StatusList) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let cached = format!("public, max-age={}", shared.refresh.as_secs());
    let headers =
        [(header::CONTENT_TYPE, "application/jwk-set+json".to_owned()), (header::CACHE_CONTROL, cached)];
    (headers, keys.to_string()).into_response()
}

/// Section 8 of the draft. A list that is not there may be of an earlier start and not read back yet: 503, and no verifier
/// may take that for good.
async fn list(
    State(shared): State<Arc<Shared>>,
    Path((cluster, target, list)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let (Ok(cluster), Ok(target), Ok(list)) = (cluster.parse(), target.parse(), list.parse()) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    match shared.signed(&TargetRef { cluster, target }, list) {
        Ok(Some(signed)) => {
            let known = headers.get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok());
            let same = known.is_some_and(|known| known.split(',').any(|one| one.trim() == &*signed.etag));
            let described = [
                (header::CACHE_CONTROL, format!("public, max-age={}", shared.ttl.as_secs())),
                (header::ETAG, signed.etag.to_string()),
            ];
            if same {
                return (StatusCode::NOT_MODIFIED, described).into_response();
            }
            let kind = [(header::CONTENT_TYPE, "application/statuslist+jwt")];
            (described, kind, signed.token.to_string()).into_response()
        }
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(why) => {
            let headers = [(header::RETRY_AFTER, "1"), (header::CACHE_CONTROL, "no-store")];
            (StatusCode::SERVICE_UNAVAILABLE, headers, format!("{why}\n")).into_response()
        }
    }
}

impl Shared {
    /// The list as it is served now; none where there is none.
    fn signed(&self, target: &TargetRef, id: StatusListId) -> Result<Option<Signed>, &'static str> {
        let key = (target.clone(), id);
        let (bits, version) = match self.broker.status_list(target, id) {
            Some(StatusList::Bits { bits, version }) => (bits, version),
            Some(StatusList::NotYet) => return Err("the status lists are being read back: ask again"),
            None => {
                self.signed.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
                return Ok(None);
            }
        };
        let now = self.clock.monotonic();
        let mut known = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        let serves = |signed: &&Signed| {
            let age = now.saturating_sub(signed.at);
            age < AT_MOST || (signed.version == version && age < self.ttl)
        };
        if let Some(signed) = known.get(&key).filter(serves) {
            return Ok(Some(signed.clone()));
        }
        let issued_at = self.clock.now();
        let claims = StatusListClaims {
            sub: &status::uri(&self.issuer, target, id),
            iat: issued_at.as_secs(),
            exp: issued_at.plus(self.life).as_secs(),
            ttl: self.ttl.as_secs(),
            status_list: Bits::of(&bits),
        };
        let token = sign(self.signer.as_ref(), target, &claims).map_err(|_| "no key signs status lists")?;
        let token: Arc<str> =
            token.expose_text().map_err(|_| "a status list did not come out as text")?.into();
        let etag = format!("\"{}\"", Digest::of(token.as_bytes())).into();
        let signed = Signed { token, etag, version, at: now };
        known.retain(|_, signed| now.saturating_sub(signed.at) < self.life);
        known.insert(key, signed.clone());
        Ok(Some(signed))
    }
}
