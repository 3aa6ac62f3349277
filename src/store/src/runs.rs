//! Leases, several to a key: a run is the leases from its key's id up to below the next run's, ascending. What one
//! commit issues is new runs at the end; a lease that changes, or whose id was drawn before another that is already
//! there, has its run written anew. So a lease is in one place, and a key costs what it costs once for many.

use std::collections::BTreeMap;
use std::sync::Arc;

use dayfly_core::encoding::Own;
use dayfly_core::ids::LeaseId;
use dayfly_core::ports::StoreError;
use prost::Message as _;
use sled::IVec;

use crate::engine::{Engine, damaged};
use crate::layout;

/// A run of more than one lease has at most this many bytes of records: one lease that changes has all of them written.
const RUN_BYTES: usize = 8192;
/// And this many leases: a batch that does nothing but prune has room for what they have in the indexes.
const RUN_LEASES: usize = 48;

/// What is a lease's own, encoded.
pub(crate) type Record = Arc<[u8]>;
/// The records of leases, by id.
pub(crate) type Records = BTreeMap<LeaseId, Record>;

/// What one key has.
type KeyValue = (Vec<u8>, Vec<u8>);

/// A run as it is stored.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct StoredRun {
    /// The ids, 16 bytes each, ascending.
    #[prost(bytes = "vec", tag = "1")]
    ids: Vec<u8>,
    /// The record of each.
    #[prost(bytes = "vec", repeated, tag = "2")]
    records: Vec<Vec<u8>>,
}

impl StoredRun {
    fn read(key: &[u8], value: &[u8]) -> Result<Self, StoreError> {
        let run = Self::decode(value).map_err(|error| damaged(key, &error))?;
        let whole = run.ids.len() == run.records.len() * 16;
        if whole
            && run.ids().is_sorted_by(|one, next| one < next)
            && run.ids().next() == layout::id_at_end(key)
        {
            Ok(run)
        } else {
            Err(damaged(key, &"its ids are not those of a run"))
        }
    }

    fn ids(&self) -> impl Iterator<Item = LeaseId> {
        self.ids.as_chunks::<16>().0.iter().map(|id| LeaseId::from_bytes(*id))
    }
}

fn encode(run: &[(LeaseId, Record)]) -> Vec<u8> {
    let ids = run.iter().flat_map(|(id, _)| id.to_bytes()).collect();
    StoredRun { ids, records: run.iter().map(|(_, record)| record.to_vec()).collect() }.encode_to_vec()
}

/// The leases of a run.
pub(crate) fn decode(key: &[u8], value: &[u8]) -> Result<Records, StoreError> {
    let run = StoredRun::read(key, value)?;
    Ok(run.ids().zip(&run.records).map(|(id, record)| (id, Record::from(record.as_slice()))).collect())
}

/// What is a lease's own, as it is on disk.
pub(crate) fn read(engine: &Engine, id: LeaseId) -> Result<Option<Own>, StoreError> {
    let Some((key, value)) = last_up_to(engine, id)? else { return Ok(None) };
    let run = StoredRun::read(&key, &value)?;
    let at = run.ids().position(|of| of == id);
    at.and_then(|at| run.records.get(at)).map(|record| own(id, record)).transpose()
}

/// What is a lease's own, decoded.
pub(crate) fn own(id: LeaseId, record: &[u8]) -> Result<Own, StoreError> {
    Own::decode(record)
        .map_err(|error| StoreError::Damaged(format!("the record of lease {id} does not read back: {error}")))
}

/// The run in which this id is, or would be.
fn last_up_to(engine: &Engine, id: LeaseId) -> Result<Option<(IVec, IVec)>, StoreError> {
    engine.last_up_to(&[layout::LEASES], &layout::run(id))
}

/// Runs with the leases from an id on, ascending; the first may begin below it.
pub(crate) fn from(
    engine: &Engine,
    id: LeaseId,
) -> Result<impl Iterator<Item = Result<(IVec, Records), StoreError>>, StoreError> {
    let start = last_up_to(engine, id)?.map_or_else(|| layout::run(id), |(key, _)| key.to_vec());
    Ok(engine.scan(&[layout::LEASES], &start).map(|entry| {
        let (key, value) = entry?;
        let run = decode(&key, &value)?;
        Ok((key, run))
    }))
}

/// The keys and values that put these records where they belong. No lease on disk has an id above `highest`; runs up to
/// `pruned` go in this same commit: nothing is put into one.
pub(crate) fn place(
    engine: &Engine,
    mut records: Records,
    highest: LeaseId,
    pruned: Option<LeaseId>,
) -> Result<Vec<KeyValue>, StoreError> {
    let mut placed = Vec::new();
    while let Some((id, _)) = records.first_key_value() {
        let id = *id;
        if id > highest {
            pack(std::mem::take(&mut records), &mut placed);
            break;
        }
        let mut run = match last_up_to(engine, id)? {
            Some((key, value)) if layout::id_at_end(&key) > pruned => decode(&key, &value)?,
            _ => Records::new(),
        };
        let after = LeaseId::from_u128(id.as_u128().saturating_add(1));
        let next = engine.scan(&[layout::LEASES], &layout::run(after)).next().transpose()?;
        let later = match next.and_then(|(key, _)| layout::id_at_end(&key)) {
            Some(next) => records.split_off(&next),
            None => records.split_off(&LeaseId::from_u128(highest.as_u128().saturating_add(1))),
        };
        run.append(&mut records);
        pack(run, &mut placed);
        records = later;
    }
    Ok(placed)
}

/// Cuts records into runs.
fn pack(records: Records, placed: &mut Vec<KeyValue>) {
    let mut run: Vec<(LeaseId, Record)> = Vec::new();
    let mut bytes = 0;
    for (id, record) in records {
        if let Some((first, _)) = run.first()
            && (bytes + record.len() > RUN_BYTES || run.len() == RUN_LEASES)
        {
            placed.push((layout::run(*first), encode(&run)));
            run.clear();
            bytes = 0;
        }
        bytes += record.len();
        run.push((id, record));
    }
    if let Some((first, _)) = run.first() {
        placed.push((layout::run(*first), encode(&run)));
    }
}
