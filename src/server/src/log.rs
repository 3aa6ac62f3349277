//! The audit log for anyone, over HTTPS: checkpoints, the keys they are verified with, tiles (C2SP tlog-tiles), and proofs
//! (RFC 9162). All of it is hashes: no leaf, and nothing that a leaf says, is among it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dayfly_core::checkpoint::Checkpoints;
use dayfly_core::merkle::Hash;
use dayfly_core::ports::{LeaseStore, StoreError};
use dayfly_core::proof::{self, Path as ProofPath};
use dayfly_core::tiles::{Tile, WIDTH};
use serde_json::json;

use crate::checkpoints::size_of;

/// What the routes read from.
#[derive(Clone)]
pub(crate) struct Log {
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) checkpoints: Arc<dyn Checkpoints>,
}

/// The routes.
pub(crate) fn routes(log: Log) -> Router {
    Router::new()
        .route("/log/checkpoint", get(checkpoint))
        .route("/log/keys", get(keys))
        .route("/log/tile/{*path}", get(tile))
        .route("/log/proof/inclusion", get(inclusion))
        .route("/log/proof/consistency", get(consistency))
        .with_state(log)
}

const TEXT: &str = "text/plain; charset=utf-8";
/// What may be another the next time.
const FRESH: &str = "no-cache";
/// What never changes.
const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// The newest checkpoint: a signed note.
async fn checkpoint(State(log): State<Log>) -> Response {
    match log.checkpoints.latest() {
        Some(note) => answer(TEXT, FRESH, note.to_string()),
        None => Refusal::Unavailable("no checkpoint was made yet: ask again".to_owned()).into_response(),
    }
}

/// The verifier keys, one a line, newest first.
async fn keys(State(log): State<Log>) -> Response {
    let keys = log.checkpoints.keys();
    let keys: String = keys.iter().flat_map(|key| [key.to_string(), "\n".to_owned()]).collect();
    answer(TEXT, FRESH, keys)
}

/// A tile's hashes, one after the other.
async fn tile(State(log): State<Log>, Path(path): Path<String>) -> Result<Response, Refusal> {
    let none = || Refusal::NotFound("there is no such tile".to_owned());
    let (tile, width) = Tile::parse(&path).ok_or_else(none)?;
    let read = log.store.log_tiles(vec![tile]).await?.pop().unwrap_or_default();
    let hashes = read.get(..width).ok_or_else(none)?;
    Ok(answer("application/octet-stream", FOR_EVER, hashes.concat()))
}

/// That the event at `position` is in the tree of `size` leaves, by default the newest checkpoint's.
async fn inclusion(State(log): State<Log>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let [position, size] = numbers(query.as_deref(), ["position", "size"])?;
    let position = position.ok_or_else(|| bad("say which event: position=NUMBER, from 1"))?;
    let size = size.map_or_else(|| log.published(), Ok)?;
    log.reaches(size)?;
    let index = position.checked_sub(1);
    let path = index.and_then(|index| Some((index, ProofPath::of_inclusion(index, size)?)));
    let (index, path) =
        path.ok_or_else(|| Refusal::NotFound(format!("a tree of {size} events has positions 1 to {size}")))?;
    let of_leaf = Tile { level: 0, index: index / WIDTH as u64 };
    let tiles = log.tiles([path.tiles(), proof::tiles_of_root(size), vec![of_leaf]].concat()).await?;
    let at = usize::try_from(index % WIDTH as u64).unwrap_or_default();
    let leaf = tiles.get(&of_leaf).and_then(|hashes| hashes.get(at)).copied();
    let (leaf, root, hashes) = leaf
        .zip(proof::root_at(size, &tiles))
        .zip(path.hashes(&tiles))
        .map(|((leaf, root), hashes)| (leaf, root, hashes))
        .filter(|(leaf, root, hashes)| proof::includes(leaf, index, size, hashes, root))
        .ok_or_else(damaged)?;
    Ok(told(json!({
        "position": position,
        "size": size,
        "leaf_hash": STANDARD.encode(leaf),
        "root_hash": STANDARD.encode(root),
        "hashes": all(&hashes),
    })))
}

/// That the tree of `to` leaves, by default the newest checkpoint's, is the one of `from` leaves, grown.
async fn consistency(State(log): State<Log>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let [from, to] = numbers(query.as_deref(), ["from", "to"])?;
    let from = from.ok_or_else(|| bad("say from which size: from=NUMBER, from 1"))?;
    let to = to.map_or_else(|| log.published(), Ok)?;
    log.reaches(to)?;
    let path = ProofPath::of_consistency(from, to).ok_or_else(|| {
        bad(&format!("from is 1 to {to}: a log of nothing proves nothing, and none shrinks"))
    })?;
    let sizes = [path.tiles(), proof::tiles_of_root(from), proof::tiles_of_root(to)];
    let tiles = log.tiles(sizes.concat()).await?;
    let (old, new, hashes) = proof::root_at(from, &tiles)
        .zip(proof::root_at(to, &tiles))
        .zip(path.hashes(&tiles))
        .map(|((old, new), hashes)| (old, new, hashes))
        .filter(|(old, new, hashes)| proof::extends((from, old), (to, new), hashes))
        .ok_or_else(damaged)?;
    Ok(told(json!({
        "from": from,
        "to": to,
        "from_root_hash": STANDARD.encode(old),
        "to_root_hash": STANDARD.encode(new),
        "hashes": all(&hashes),
    })))
}

impl Log {
    /// The newest checkpoint's size.
    fn published(&self) -> Result<u64, Refusal> {
        let head = self.checkpoints.latest().as_ref().and_then(size_of);
        head.map(|head| head.size)
            .ok_or_else(|| Refusal::Unavailable("no checkpoint was made yet: ask again".to_owned()))
    }

    fn reaches(&self, size: u64) -> Result<(), Refusal> {
        let now = self.store.log_head().size;
        if size <= now {
            return Ok(());
        }
        Err(Refusal::NotFound(format!("the log has {now} events, not {size}")))
    }

    async fn tiles(&self, mut tiles: Vec<Tile>) -> Result<BTreeMap<Tile, Vec<Hash>>, Refusal> {
        tiles.sort_unstable();
        tiles.dedup();
        let read = self.store.log_tiles(tiles.clone()).await?;
        Ok(tiles.into_iter().zip(read).collect())
    }
}

fn all(hashes: &[Hash]) -> Vec<String> {
    hashes.iter().map(|hash| STANDARD.encode(hash)).collect()
}

fn answer(content_type: &'static str, cached: &'static str, body: impl IntoResponse) -> Response {
    ([(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, cached)], body).into_response()
}

/// A proof of given sizes is always the same; without them, it is of the newest checkpoint.
fn told(proof: serde_json::Value) -> Response {
    ([(header::CACHE_CONTROL, FRESH)], Json(proof)).into_response()
}

/// These numbers of a query, and nothing else in it.
fn numbers<const N: usize>(query: Option<&str>, names: [&str; N]) -> Result<[Option<u64>; N], Refusal> {
    let mut found = [None; N];
    for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let slot = names.iter().position(|known| *known == name).and_then(|at| found.get_mut(at));
        let number = value.parse().ok().filter(|_| value.bytes().all(|byte| byte.is_ascii_digit()));
        match (slot, number) {
            (Some(slot @ None), Some(number)) => *slot = Some(number),
            _ => return Err(bad(&format!("give {}, each once, in decimal digits", names.join(" and ")))),
        }
    }
    Ok(found)
}

/// Why there is no answer.
enum Refusal {
    Bad(String),
    NotFound(String),
    Unavailable(String),
}

fn bad(why: &str) -> Refusal {
    Refusal::Bad(why.to_owned())
}

fn damaged() -> Refusal {
    tracing::error!("tiles of the audit log do not add up: stop the broker, and run `dayfly store verify`");
    Refusal::Unavailable("the log's hashes cannot be read now".to_owned())
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        tracing::warn!(%error, "the audit log's tiles cannot be read");
        Self::Unavailable("the log's hashes cannot be read now: ask again".to_owned())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, why) = match self {
            Self::Bad(why) => (StatusCode::BAD_REQUEST, why),
            Self::NotFound(why) => (StatusCode::NOT_FOUND, why),
            Self::Unavailable(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
        };
        (status, [(header::CACHE_CONTROL, FRESH)], format!("{why}\n")).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_has_these_numbers_and_nothing_else() {
        let read = |query| numbers(query, ["position", "size"]).ok();
        assert_eq!(read(None), Some([None, None]));
        assert_eq!(read(Some("position=7")), Some([Some(7), None]));
        assert_eq!(read(Some("size=9&position=7")), Some([Some(7), Some(9)]));
        for bad in [
            "position",
            "position=",
            "position=+7",
            "position=-1",
            "position=7&position=7",
            "at=1",
            "size=0x1",
            "size=99999999999999999999",
        ] {
            assert_eq!(read(Some(bad)), None, "{bad}");
        }
    }
}
