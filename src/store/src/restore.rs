//! A store made from a backup: under another name until everything in it was checked, and then a new incarnation.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use dayfly_core::change::{LogHead, Mark};
use dayfly_core::ports::StoreError;
use prost::Message as _;
use sled::Batch;

use crate::backup::Point;
use crate::engine::{self, Engine};
use crate::error::OpenError;
use crate::files::{self, Found};
use crate::life::{self, Why};
use crate::options::Options;
use crate::records::{self, Record};
use crate::shared::Shared;
use crate::verify::{VerifyReport, verify_against};
use crate::writer::{NO_RESERVE, Writer};
use crate::{durable_sync, layout, store};

/// Records that are written at once: see `facts` in `docs/decisions/sled-durability.md`.
const BATCH: usize = 512;

/// Why a store was not restored. Nothing is left of it then.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is a store, or something else.
    #[error(
        "{} is not empty: a backup is restored into a new folder, never over a store; move it away first",
        .0.display()
    )]
    Taken(PathBuf),
    /// The witness has seen another store.
    #[error(
        "the backup is of the store {backup}, and the witness has seen the store {}: take a backup of that one, or move the witness away if that one is given up", .witness.instance
    )]
    AnotherStore {
        /// The backup's.
        backup: dayfly_core::ids::InstanceId,
        /// What the witness has seen.
        witness: Box<Mark>,
    },
    /// The backup's content does not fit together.
    #[error("the backup does not make a whole store: {0}; restore another one")]
    NotWhole(String),
    /// The new store could not be written.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl From<StoreError> for RestoreError {
    fn from(error: StoreError) -> Self {
        Self::Open(error.into())
    }
}

/// A store that is being restored. Dropped, it is removed.
pub struct Restore {
    options: Options,
    temporary: PathBuf,
    engine: Option<Engine>,
    /// The beginning of a record.
    carried: Vec<u8>,
    batch: Batch,
    records: usize,
    point: Option<Point>,
}

/// What was restored.
#[derive(Debug, Clone)]
pub struct Restored {
    /// Of what moment the backup was.
    pub point: Point,
    /// Where the store is now: in a new incarnation.
    pub mark: Mark,
    /// What it holds, checked.
    pub report: VerifyReport,
}

impl Restore {
    /// Begins a store in `options.dir`, under another name beside it. Blocks, as all of this does.
    ///
    /// # Errors
    /// When something is there already.
    pub fn begin(options: Options) -> Result<Self, RestoreError> {
        let dir = &options.dir;
        match files::look(dir)? {
            Found::Nothing => {}
            Found::Database | Found::Parts(_) => return Err(RestoreError::Taken(dir.clone())),
        }
        files::make_parents(dir)?;
        files::remove_leftovers(dir)?;
        let unique = dayfly_core::ids::InstanceId::from_bytes(store::random_uuid(options.rng.as_ref())?);
        let temporary = files::parent(dir).join(format!("{}{unique}", files::temporary_name(dir)));
        let engine = Engine::open(&temporary, options.cache_bytes)?;
        Ok(Self {
            options,
            temporary,
            engine: Some(engine),
            carried: Vec::new(),
            batch: Batch::default(),
            records: 0,
            point: None,
        })
    }

    /// Writes the next bytes of the backup: only what is known to be its own.
    ///
    /// # Errors
    /// When they are no backup's, or cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let mut all = std::mem::take(&mut self.carried);
        all.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(rest) = all.get(at..) {
            let record = records::first(rest).map_err(|why| RestoreError::NotWhole(why.to_owned()))?;
            let Some((record, length)) = record else { break };
            if self.point.is_some() {
                return Err(RestoreError::NotWhole("there is more after its end".to_owned()));
            }
            match record {
                Record::Put { key, value } => self.batch.insert(key, value),
                Record::Remove { key } => self.batch.remove(key),
                Record::End(point) => self.point = Some(point),
            }
            at += length;
            self.records += 1;
            if self.records >= BATCH {
                self.commit()?;
            }
        }
        self.carried = all.split_off(at.min(all.len()));
        Ok(())
    }

    fn commit(&mut self) -> Result<(), RestoreError> {
        let Some(engine) = &self.engine else { return Ok(()) };
        engine.commit(std::mem::take(&mut self.batch))?;
        // What sled needs to collect its garbage: see `docs/decisions/sled-durability.md`.
        for _ in 0..self.records {
            engine.get(layout::PROGRESS)?;
        }
        self.records = 0;
        Ok(())
    }

    /// Checks that the whole store is there, as it was when the backup was taken. Gives what it holds.
    ///
    /// # Errors
    /// When it is not.
    pub fn check(&mut self) -> Result<(Point, VerifyReport), RestoreError> {
        let (point, report) = self.check_against(&[])?;
        match report.problems.first() {
            Some(problem) => {
                Err(RestoreError::NotWhole(format!("{problem} ({} problems)", report.problems.len())))
            }
            None => Ok((point, report)),
        }
    }

    /// The same, and that its log is the one whose heads these were, grown. What does not fit is in the report.
    ///
    /// # Errors
    /// When the backup has no end, or what it holds cannot be opened or read.
    pub fn check_against(&mut self, published: &[LogHead]) -> Result<(Point, VerifyReport), RestoreError> {
        let broken = |why: &str| RestoreError::NotWhole(why.to_owned());
        let point = self.point.filter(|_| self.carried.is_empty()).ok_or_else(|| broken("it has no end"))?;
        self.commit()?;
        if let Some(engine) = self.engine.take() {
            engine.close();
        }
        let mut report = match verify_against(&self.temporary, published) {
            Ok(report) => report,
            Err(OpenError::Lost { why, .. } | OpenError::Damaged { why, .. }) => return Err(broken(&why)),
            Err(error) => return Err(error.into()),
        };
        let Point { mark, root, leases } = point;
        let same = (report.instance, report.incarnation, report.position, report.root, report.leases)
            == (mark.instance, mark.incarnation, mark.position, root, leases);
        if !same {
            report.problems.push("what it holds is not what its end says".to_owned());
        }
        Ok((point, report))
    }

    /// Checks the store, begins its new incarnation, above what the witness has seen, and gives it its name. `from` says
    /// in words where the backup came from.
    ///
    /// # Errors
    /// When it is not whole, or the witness has seen another store.
    pub fn finish(mut self, witness: Option<Mark>, from: String) -> Result<Restored, RestoreError> {
        let (point, report) = self.check()?;
        let witness = witness.unwrap_or(point.mark);
        if witness.instance != point.mark.instance {
            return Err(RestoreError::AnotherStore {
                backup: point.mark.instance,
                witness: Box::new(witness),
            });
        }
        let mark = self.begin_anew(&witness, from)?;
        engine::give_name(&self.options.dir, &self.temporary)?;
        Ok(Restored { point, mark, report })
    }

    fn begin_anew(&self, witness: &Mark, from: String) -> Result<Mark, RestoreError> {
        let options = Options { dir: self.temporary.clone(), ..self.options.clone() };
        let (engine, tip) = store::load(&options.dir, options.cache_bytes)?;
        let highest = tip.highest.max(witness.highest);
        let shared = Arc::new(Shared::new(options, engine, &tip, highest));
        let mut writer = Writer::new(Arc::clone(&shared), tip);
        let changes = life::anew(&shared, &mut writer, witness, &Why::Restored(from))?;
        // Nothing was under way in it.
        writer.tip().clean = true;
        let header = writer.tip().header().encode_to_vec();
        let syncs = durable_sync::calls();
        let outcomes = writer.commit(changes, NO_RESERVE, |group| {
            group.insert(layout::HEADER.to_vec(), header);
        });
        writer.give_up_engine();
        outcomes?.into_iter().collect::<Result<Vec<_>, _>>()?;
        if durable_sync::calls() == syncs {
            return Err(OpenError::NotDurable.into());
        }
        Ok(shared.head.load().mark)
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.take() {
            engine.close();
        }
        match fs::remove_dir_all(&self.temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, dir = %self.temporary.display(), "what was half restored is not removed");
            }
            _ => {}
        }
    }
}
