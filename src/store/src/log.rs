//! The audit log's tree as the store keeps it: full tiles of 256 hashes on disk (C2SP tlog-tiles), what is not full
//! yet in memory, rebuilt at opening from the newest events and tiles.

use std::sync::Arc;

use dayfly_core::audit::EventRecord;
use dayfly_core::ids::Position;
use dayfly_core::merkle::{Frontier, Hash, leaf_hash, root_of};
use dayfly_core::ports::StoreError;
use dayfly_core::tiles;

use crate::engine::Engine;
use crate::layout::{self, EventGroup};

/// Hashes in a tile: a tile of level 0 has leaves, one of level `n` the roots of 256 tiles of level `n - 1`.
pub(crate) const TILE: usize = 256;
const TILE_BITS: u32 = 8;

/// The tree's growing edge.
#[derive(Default)]
pub(crate) struct Log {
    frontier: Frontier,
    /// For each level, the tile that is not full.
    partial: Vec<Vec<Hash>>,
}

/// A tile that has become full.
pub(crate) struct Tile {
    pub(crate) key: Vec<u8>,
    pub(crate) hashes: Vec<u8>,
}

impl Log {
    /// The log of `size` leaves as the store has it.
    ///
    /// # Errors
    /// When an event or tile is missing or does not read back.
    pub(crate) fn load(engine: &Engine, size: u64) -> Result<Self, StoreError> {
        let mut partial = Vec::new();
        for level in 0u8.. {
            let hashes = size >> (TILE_BITS * u32::from(level));
            if hashes == 0 {
                break;
            }
            let first = hashes - hashes % TILE as u64;
            partial.push(match level.checked_sub(1) {
                None => newest_leaves(engine, first, hashes)?,
                Some(below) => (first..hashes)
                    .map(|index| Ok(root_of(&read_tile(engine, below, index)?)))
                    .collect::<Result<_, StoreError>>()?,
            });
        }
        let roots = partial.iter().rev().flat_map(|tile: &Vec<Hash>| {
            let mut frontier = Frontier::default();
            for hash in tile {
                frontier.push(*hash);
            }
            frontier.roots().to_vec()
        });
        let frontier = Frontier::from_parts(size, roots.collect())
            .ok_or_else(|| StoreError::Damaged("the log's tiles do not add up to its size".to_owned()))?;
        Ok(Self { frontier, partial })
    }

    /// The roots of the perfect subtrees, and the size.
    pub(crate) fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// The frontier's roots, one after the other.
    pub(crate) fn frontier_bytes(&self) -> Vec<u8> {
        self.frontier.roots().concat()
    }

    /// The tiles that are not full, for each level: a copy, of some hundreds of hashes, for those who read beside the writer.
    pub(crate) fn edge(&self) -> Arc<[Vec<Hash>]> {
        self.partial.as_slice().into()
    }

    /// Appends a leaf; tiles that it makes full are added to `full`.
    pub(crate) fn push(&mut self, leaf: Hash, full: &mut Vec<Tile>) {
        self.frontier.push(leaf);
        let mut carried = leaf;
        for level in 0u8.. {
            if self.partial.len() <= usize::from(level) {
                self.partial.push(Vec::new());
            }
            let Some(tile) = self.partial.get_mut(usize::from(level)) else { return };
            tile.push(carried);
            if tile.len() < TILE {
                return;
            }
            let index = (self.frontier.size() >> (TILE_BITS * (u32::from(level) + 1))) - 1;
            full.push(Tile { key: layout::tile(level, index), hashes: tile.concat() });
            carried = root_of(tile);
            tile.clear();
        }
    }
}

/// The leaves from index `first` to below `end`, which are in no tile yet.
fn newest_leaves(engine: &Engine, first: u64, end: u64) -> Result<Vec<Hash>, StoreError> {
    let missing = || StoreError::Damaged(format!("events {} to {end} are not all there", first + 1));
    let wanted = usize::try_from(end - first).map_err(|_| missing())?;
    let events = events_from(engine, Position::new(first + 1), wanted, Position::new(end))?;
    if events.len() != wanted {
        return Err(missing());
    }
    Ok(events.iter().map(|event| leaf_hash(&event.leaf)).collect())
}

/// A full tile.
pub(crate) fn read_tile(engine: &Engine, level: u8, index: u64) -> Result<Vec<Hash>, StoreError> {
    let damaged =
        || StoreError::Damaged(format!("tile {index} of level {level} of the audit log is not there whole"));
    let bytes = engine.get(&layout::tile(level, index))?.ok_or_else(damaged)?;
    let (hashes, rest) = bytes.as_chunks::<32>();
    if hashes.len() != TILE || !rest.is_empty() {
        return Err(damaged());
    }
    Ok(hashes.to_vec())
}

/// What a log of `size` leaves with this edge has of a tile.
pub(crate) fn tile(
    engine: &Engine,
    edge: &[Vec<Hash>],
    size: u64,
    tile: tiles::Tile,
) -> Result<Vec<Hash>, StoreError> {
    match tile.width(size) {
        0 => Ok(Vec::new()),
        TILE => read_tile(engine, tile.level, tile.index),
        // The only one of its level.
        _ => Ok(edge.get(usize::from(tile.level)).cloned().unwrap_or_default()),
    }
}

/// Events from a position on, in order: at most `limit` of them, none after `to`.
pub(crate) fn events_from(
    engine: &Engine,
    from: Position,
    limit: usize,
    to: Position,
) -> Result<Vec<EventRecord>, StoreError> {
    let from = from.max(Position::new(1));
    let mut found = Vec::new();
    let Some((first, _)) = engine.last_up_to(&[layout::EVENTS], &layout::events(from))? else {
        return Ok(found);
    };
    for entry in engine.scan(&[layout::EVENTS], &first) {
        let (key, value) = entry?;
        let group: EventGroup =
            prost::Message::decode(value.as_ref()).map_err(|error| crate::engine::damaged(&key, &error))?;
        let first = layout::number_at_end(&key).unwrap_or_default();
        for (position, event) in (first..).zip(group.events) {
            if found.len() == limit || position > to.number() {
                return Ok(found);
            }
            if position >= from.number() {
                found.push(event);
            }
        }
    }
    Ok(found)
}
