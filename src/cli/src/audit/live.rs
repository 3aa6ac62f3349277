//! The log of a broker that runs: its newest checkpoint, that earlier ones grew into it, and every leaf's hash.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dayfly_client::Client;
use dayfly_core::change::LogHead;
use dayfly_core::checkpoint::Checkpoint;
use dayfly_core::merkle::{Frontier, Hash};
use dayfly_core::note::{SignedNote, VerifierKey};
use dayfly_core::proof;
use dayfly_core::tiles::Tile;
use serde_json::Value;

use super::verify::{Found, heads};
use super::{opened, published, text};

/// Checks all of it.
pub(super) async fn verify(
    client: &Client,
    since: &[SignedNote],
    keys: &[VerifierKey],
) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let (note, said) = published(client).await?;
    let keys = if keys.is_empty() {
        found.warnings.push(
            "the broker's own word was taken for the key: give the one that you know already (--key)"
                .to_owned(),
        );
        &said
    } else {
        keys
    };
    let now = match opened(&note, keys, "the broker's newest checkpoint") {
        Ok(now) => now,
        Err(error) => {
            found.problems.push(format!("{error:#}"));
            return Ok(found);
        }
    };
    let earlier = of_this_log(heads(since, keys, "--since", &mut found), &now, &mut found);
    for then in &earlier {
        if !is_grown(client, then, now.head).await? {
            found.problems.push(format!(
                "the broker cannot prove that its log of {} events is the one of {}, grown: events up to {} were changed",
                now.head.size, then.size, then.size
            ));
        }
    }
    found.events = now.head.size;
    rebuild(client, now.head, &earlier, &mut found).await?;
    if found.problems.is_empty() {
        found.root_hash = STANDARD.encode(now.head.root);
        found.checked.push("the newest checkpoint is signed, and its root is that of every leaf".to_owned());
        if let Some(then) = earlier.first() {
            found
                .checked
                .push(format!("it is the log of {} events that an earlier checkpoint has, grown", then.size));
        }
    }
    Ok(found)
}

/// The heads of earlier checkpoints that this one must follow from, smallest first.
fn of_this_log(then: Vec<Checkpoint>, now: &Checkpoint, found: &mut Found) -> Vec<LogHead> {
    let mut earlier = Vec::new();
    for Checkpoint { origin, head, store } in then {
        if origin != now.origin {
            found.problems.push(format!(
                "the checkpoint of {} events is of log {origin}, not {}",
                head.size, now.origin
            ));
        } else if store != now.store {
            found.problems.push(format!(
                "the checkpoint of {} events is of another store or incarnation ({}, now {}): the store was replaced or restored \
                 since, and nothing proves what became of those events",
                head.size,
                named(store),
                named(now.store)
            ));
        } else if head.size > now.head.size {
            found.problems.push(format!(
                "events {} to {} are missing: an earlier checkpoint has {}, and the newest {}: they were cut off",
                now.head.size + 1,
                head.size,
                head.size,
                now.head.size
            ));
        } else {
            earlier.push(head);
        }
    }
    earlier.sort_unstable_by_key(|head| head.size);
    earlier
}

fn named(store: Option<(dayfly_core::ids::InstanceId, dayfly_core::ids::Incarnation)>) -> String {
    store.map_or_else(
        || "none".to_owned(),
        |(instance, incarnation)| format!("{instance} / {}", incarnation.0),
    )
}

async fn is_grown(client: &Client, then: &LogHead, now: LogHead) -> anyhow::Result<bool> {
    if then.size == 0 {
        return Ok(true);
    }
    let path = format!("/log/proof/consistency?from={}&to={}", then.size, now.size);
    let answer: Value = serde_json::from_slice(&client.fetch(&path).await?)?;
    let hashes = hashes(&answer)?;
    Ok(proof::extends((then.size, &then.root), (now.size, &now.root), &hashes))
}

/// The hashes of a proof.
pub(super) fn hashes(answer: &Value) -> anyhow::Result<Vec<Hash>> {
    let of = |value: &Value| hash(value);
    let all = answer.get("hashes").and_then(Value::as_array).map(|all| all.iter().map(of).collect());
    all.unwrap_or_else(|| anyhow::bail!("the broker's proof has no hashes"))
}

/// One hash, in base64.
pub(super) fn hash(value: &Value) -> anyhow::Result<Hash> {
    let bytes = value.as_str().and_then(|text| STANDARD.decode(text).ok());
    let hash = bytes.and_then(|bytes| bytes.try_into().ok());
    hash.ok_or_else(|| anyhow::anyhow!("the broker's proof has a hash that is none"))
}

/// Every leaf's hash from the tiles: they have the root of each head at its size.
async fn rebuild(
    client: &Client,
    now: LogHead,
    earlier: &[LogHead],
    found: &mut Found,
) -> anyhow::Result<()> {
    let (mut frontier, mut sure) = (Frontier::default(), 0);
    let mut heads: Vec<LogHead> = earlier.iter().copied().chain([now]).collect();
    heads.sort_unstable_by_key(|head| head.size);
    let mut heads = heads.into_iter().peekable();
    for (tile, width) in Tile::of_leaves(now.size) {
        let bytes = client.fetch(&format!("/log/{}", tile.path(width))).await?;
        let (hashes, rest) = bytes.as_chunks::<32>();
        if hashes.len() != width || !rest.is_empty() {
            found.problems.push(format!("tile {tile} has {} bytes, not {} hashes", bytes.len(), width));
            return Ok(());
        }
        for hash in hashes {
            frontier.push(*hash);
            while let Some(head) = heads.next_if(|head| head.size <= frontier.size()) {
                if head.size == frontier.size() && head.root != frontier.root() {
                    found.problems.push(format!(
                        "of events {} to {}, at least one was changed: the first {} do not have the checkpoint's root",
                        sure + 1,
                        head.size,
                        head.size
                    ));
                    return Ok(());
                }
                sure = head.size;
            }
        }
    }
    Ok(())
}

/// Asks for the inclusion proof of an event in a tree.
pub(super) async fn inclusion(
    client: &Client,
    position: u64,
    size: u64,
) -> anyhow::Result<(Hash, Vec<Hash>)> {
    let path = format!("/log/proof/inclusion?position={position}&size={size}");
    let answer: Value = serde_json::from_str(&text(client.fetch(&path).await?)?)?;
    let leaf = hash(answer.get("leaf_hash").unwrap_or(&Value::Null))?;
    Ok((leaf, hashes(&answer)?))
}
