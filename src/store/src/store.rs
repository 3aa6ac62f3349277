//! Opening, the port, closing.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use dayfly_core::audit::{Draft, EventKind, EventRecord};
use dayfly_core::change::{
    Change, Draw, LeaseFilter, LeasePage, LogHead, Mark, News, Outcome, SealedKey, StoreStatus,
};
use dayfly_core::clock::ClockJumped;
use dayfly_core::digest::Digest;
use dayfly_core::ids::{InstanceId, LeaseId, Position, RuleId, StartNumber};
use dayfly_core::lease::Lease;
use dayfly_core::limits::PAGE;
use dayfly_core::merkle::Hash;
use dayfly_core::ports::{BoxFuture, LeaseStore, Rng, StoreError};
use dayfly_core::rule::{Actor, Rule};
use dayfly_core::rules::RuleSet;
use dayfly_core::teardown::{SpelledLease, Teardowns};
use dayfly_core::tiles::Tile;
use prost::Message;
use tokio::sync::oneshot;

use crate::engine::{self, Engine};
use crate::error::OpenError;
use crate::files::{self, Found};
use crate::life::{self, Why};
use crate::options::Options;
use crate::queue::{Request, Stop};
use crate::reader::Readers;
use crate::shared::Shared;
use crate::tip::{NoTip, Tip};
use crate::writer::{NO_RESERVE, Writer};
use crate::{durable_sync, keys, layout, list, log, teardown};

/// The embedded lease store. Dropping it stops it as a crash would, but for what is queued, which is still committed;
/// [`SledStore::close`] stops it cleanly.
pub struct SledStore {
    pub(crate) shared: Arc<Shared>,
    pub(crate) readers: Readers,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl SledStore {
    /// Opens the store in `options.dir`, or makes one where there is none. Blocks for as long as sled recovers.
    ///
    /// # Errors
    /// See [`OpenError`]: nothing has been changed then, but for what sled's own recovery does.
    pub fn open(options: Options) -> Result<Arc<Self>, OpenError> {
        let dir = options.dir.clone();
        let new = matches!(look(&dir)?, Found::Nothing);
        if new {
            if let (Some(witness), false) = (options.expected, options.accept_rollback) {
                return Err(OpenError::Behind { dir, store: None, witness: Box::new(witness) });
            }
            create(&options)?;
        }
        let (engine, tip) = load(&dir, options.cache_bytes)?;
        let behind = options.expected.filter(|witness| new || is_behind(&tip.mark(), witness));
        if let (Some(witness), false) = (behind, options.accept_rollback) {
            engine.close();
            return Err(OpenError::Behind {
                dir,
                store: Some(Box::new(tip.mark())),
                witness: Box::new(witness),
            });
        }
        Self::start(options, engine, tip, behind, new)
    }

    /// Writes the start, and proves with it that what is written is synced. Then the threads begin.
    fn start(
        options: Options,
        engine: Engine,
        mut tip: Tip,
        behind: Option<Mark>,
        new: bool,
    ) -> Result<Arc<Self>, OpenError> {
        let highest = behind.map_or(tip.highest, |witness| witness.highest.max(tip.highest));
        let (kind, stopped) = match (new, tip.clean) {
            (true, _) => (EventKind::Started, "the first start"),
            (false, true) => (EventKind::Started, "the earlier stop was clean"),
            (false, false) => (EventKind::StartedUnclean, "the earlier stop was not clean"),
        };
        tip.start = StartNumber(tip.start.0 + 1);
        tip.clean = false;
        let shared = Arc::new(Shared::new(options, engine, &tip, highest));
        let mut writer = Writer::new(Arc::clone(&shared), tip);
        let started = Draft::note(kind, &Actor::dayfly(), stopped.to_owned());
        let mut changes = Vec::new();
        if let Some(witness) = behind {
            changes = life::anew(&shared, &mut writer, &witness, &Why::Accepted)?;
        }
        changes.push(Change::Note(Box::new(started)));
        let header = writer.tip().header().encode_to_vec();
        let syncs = durable_sync::calls();
        let outcomes = writer.commit(changes, NO_RESERVE, |group| {
            if behind.is_some() {
                group.insert(layout::HEADER.to_vec(), header);
            }
        })?;
        outcomes.into_iter().collect::<Result<Vec<_>, _>>()?;
        if durable_sync::calls() == syncs {
            return Err(OpenError::NotDurable);
        }
        let failed = |error| OpenError::Io { what: "cannot start the store's threads".to_owned(), error };
        let thread = std::thread::Builder::new().name("store-writer".to_owned());
        writer.count_live().map_err(failed)?;
        let readers = Readers::start(&shared).map_err(failed)?;
        let writer = thread.spawn(move || writer.run()).map_err(failed)?;
        Ok(Arc::new(Self { shared, readers, writer: Mutex::new(Some(writer)) }))
    }

    /// Stops cleanly: what is queued is committed, a `Stopped` event written, everything closed. Blocks; a second call
    /// does nothing. Every later call to the store answers [`StoreError::Closing`].
    pub fn close(&self) {
        self.stop(Stop::Clean);
    }

    fn stop(&self, stop: Stop) {
        self.shared.queue.stop(stop);
        self.shared.news.close();
        self.readers.stop();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the store's writer panicked");
        }
    }

    /// How many leases it keeps, ended ones included.
    pub fn leases_kept(&self) -> u64 {
        self.shared.head.load().leases
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        self.stop(Stop::Dropped);
    }
}

impl LeaseStore for SledStore {
    fn draw(&self) -> Result<Draw, StoreError> {
        let shared = &self.shared;
        if shared.trouble().is_some() || shared.queue.stopping() {
            return Err(shared.refusal());
        }
        if shared.unwritten.any() {
            return Err(StoreError::Unwritten);
        }
        // The position first: a cut-off above the id then belongs to a later position.
        let position = shared.head.load().mark.position;
        let now = shared.time.trusted(shared.options.clock.as_ref())?;
        let limit = shared.options.limits.clock_jump;
        let mut generator = shared.generator.lock().unwrap_or_else(PoisonError::into_inner);
        let ahead = generator.highest().time().since(now);
        if ahead > limit {
            return Err(ClockJumped { by: ahead, limit }.into());
        }
        let id = generator.next(now, shared.options.rng.as_ref())?;
        Ok(Draw { id, position, now })
    }

    fn rules(&self) -> Arc<RuleSet> {
        let rules = self.shared.rules.load_full();
        #[cfg(feature = "broken")]
        let rules = crate::broken::late(rules);
        rules
    }

    fn rule(&self, id: RuleId) -> BoxFuture<'_, Result<Option<Arc<Rule>>, StoreError>> {
        match self.shared.rules.load().get(id) {
            Some(rule) => Box::pin(std::future::ready(Ok(Some(Arc::clone(rule))))),
            None => self.readers.look_up(move |shared, engine| shared.rule(engine, id)),
        }
    }

    fn commit(&self, change: Change) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        let (answer, answered) = oneshot::channel();
        let queued = self.shared.queue.push(Request { change, answer });
        Box::pin(async move {
            queued?;
            answered.await.map_err(|_| StoreError::Closing)?
        })
    }

    fn lease(&self, id: LeaseId) -> BoxFuture<'_, Result<Option<Arc<Lease>>, StoreError>> {
        match self.shared.remembered(id) {
            Some(lease) => Box::pin(std::future::ready(lease.map(Some))),
            None => self.readers.look_up(move |shared, engine| shared.lease(engine, id)),
        }
    }

    fn leases(
        &self,
        filter: LeaseFilter,
        after: Option<LeaseId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<LeasePage, StoreError>> {
        self.readers.scan(move |shared, engine| list::page(shared, engine, &filter, after, limit))
    }

    fn news(&self, caller: Digest, after: Position) -> BoxFuture<'_, Result<News, StoreError>> {
        Box::pin(self.shared.news.after(caller, after))
    }

    fn ruled(&self, after: Position) -> BoxFuture<'_, Result<Position, StoreError>> {
        Box::pin(self.shared.news.ruled(after))
    }

    fn committed(&self, after: Position) -> BoxFuture<'_, Result<Position, StoreError>> {
        Box::pin(self.shared.news.committed(after))
    }

    fn events(&self, from: Position, limit: usize) -> BoxFuture<'_, Result<Vec<EventRecord>, StoreError>> {
        self.readers.scan(move |shared, engine| {
            let durable = shared.head.load().mark.position;
            log::events_from(engine, from, limit.min(PAGE), durable)
        })
    }

    fn teardowns(&self) -> Arc<Teardowns> {
        self.shared.teardowns.load_full()
    }

    fn spelled(
        &self,
        rule: Position,
        after: Option<LeaseId>,
    ) -> BoxFuture<'_, Result<Vec<SpelledLease>, StoreError>> {
        self.readers.scan(move |_, engine| teardown::spelled(engine, rule, after))
    }

    fn log_tiles(&self, tiles: Vec<Tile>) -> BoxFuture<'_, Result<Vec<Vec<Hash>>, StoreError>> {
        self.readers.look_up(move |shared, engine| {
            let head = shared.head.load();
            tiles.into_iter().map(|tile| log::tile(engine, &head.edge, head.log.size, tile)).collect()
        })
    }

    fn keys(&self) -> BoxFuture<'_, Result<Vec<SealedKey>, StoreError>> {
        self.readers.scan(|_, engine| {
            let mut keys = keys::all(engine)?;
            keys.sort_by(|one, other| {
                (one.created_at, one.id.as_str()).cmp(&(other.created_at, other.id.as_str()))
            });
            Ok(keys)
        })
    }

    fn log_head(&self) -> LogHead {
        self.shared.head.load().log
    }

    fn mark(&self) -> Mark {
        self.shared.head.load().mark
    }

    fn status(&self) -> StoreStatus {
        let head = self.shared.head.load();
        StoreStatus {
            instance: head.mark.instance,
            incarnation: head.mark.incarnation,
            start: head.start,
            position: head.mark.position,
            live_counted: self.shared.live_counted.load(Ordering::Acquire),
            trouble: self.shared.trouble().map(|why| why.as_ref().clone()),
            restored_at: head.restored_at,
        }
    }
}

/// What is in a store's folder; parts of a database are a lost one.
pub(crate) fn look(dir: &Path) -> Result<Found, OpenError> {
    match files::look(dir)? {
        Found::Parts(missing) => Err(OpenError::lost(dir, missing)),
        found => Ok(found),
    }
}

/// Opens a database that is there, and reads where it is.
pub(crate) fn load(dir: &Path, cache_bytes: u64) -> Result<(Engine, Tip), OpenError> {
    let engine = Engine::open(dir, cache_bytes)?;
    let problem = match Tip::load(&engine) {
        Ok(tip) => return Ok((engine, tip)),
        Err(problem) => problem,
    };
    engine.close();
    Err(match problem {
        NoTip::Lost(why) => OpenError::lost(dir, why),
        NoTip::Format(found) => OpenError::Format { dir: dir.to_owned(), found, known: layout::FORMAT },
        NoTip::Failed(error) => OpenError::damaged(dir, error.to_string()),
    })
}

/// Makes a new store: complete and durable before it has its name.
fn create(options: &Options) -> Result<(), OpenError> {
    let dir = &options.dir;
    files::make_parents(dir)?;
    files::remove_leftovers(dir)?;
    let instance = InstanceId::from_bytes(random_uuid(options.rng.as_ref())?);
    let name = format!("{}{}", files::temporary_name(dir), instance);
    let tip = Tip::new(instance);
    engine::create(dir, &files::parent(dir).join(name), options.cache_bytes, |engine| {
        let mut batch = sled::Batch::default();
        batch.insert(layout::HEADER, tip.header().encode_to_vec());
        batch.insert(layout::PROGRESS, tip.progress().encode_to_vec());
        engine.commit(batch)
    })
}

/// A random UUID (RFC 9562, section 5.4).
pub(crate) fn random_uuid(rng: &dyn Rng) -> Result<[u8; 16], OpenError> {
    let mut bytes = [0; 16];
    rng.fill(&mut bytes).map_err(StoreError::from)?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid().into_bytes())
}

/// Whether a store is not the one, or not as far, as its witness saw. A store that is ahead is normal: the witness is
/// written after the commit.
fn is_behind(store: &Mark, witness: &Mark) -> bool {
    store.instance != witness.instance
        || (store.incarnation, store.position) < (witness.incarnation, witness.position)
}
