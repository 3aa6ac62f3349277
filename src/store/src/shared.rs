//! What the writer publishes and everyone reads.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use arc_swap::{ArcSwap, ArcSwapOption};
use dayfly_core::change::{LogHead, Mark};
use dayfly_core::generator::IdGenerator;
use dayfly_core::ids::{LeaseId, Position, RuleId, StartNumber};
use dayfly_core::lease::Lease;
use dayfly_core::merkle::Hash;
use dayfly_core::ports::StoreError;
use dayfly_core::rule::Rule;
use dayfly_core::rules::RuleSet;
use dayfly_core::teardown::Teardowns;
use dayfly_core::time::Timestamp;

use crate::bases::{self, Bases};
use crate::engine::Engine;
use crate::news::Newest;
use crate::options::Options;
use crate::queue::Queue;
use crate::recent::RecentLeases;
use crate::rules;
use crate::runs;
use crate::time::Time;
use crate::tip::Tip;
use crate::unwritten::Unwritten;

pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) time: Time,
    pub(crate) queue: Queue,
    /// Ids for draws and cut-offs.
    pub(crate) generator: Mutex<IdGenerator>,
    /// What is durable, and over it what is [`Unwritten`].
    pub(crate) rules: ArcSwap<RuleSet>,
    pub(crate) unwritten: Unwritten,
    pub(crate) teardowns: ArcSwap<Teardowns>,
    pub(crate) head: ArcSwap<Head>,
    pub(crate) recent: RecentLeases,
    pub(crate) bases: Bases,
    pub(crate) news: Newest,
    /// Whether every live lease is counted against the caps.
    pub(crate) live_counted: AtomicBool,
    /// None while it cannot be used.
    engine: RwLock<Option<Arc<Engine>>>,
    /// Why nothing can be committed now.
    trouble: ArcSwapOption<String>,
}

/// Where the store is, as of the last durable commit.
#[derive(Clone)]
pub(crate) struct Head {
    pub(crate) mark: Mark,
    pub(crate) log: LogHead,
    /// The tiles of the log that are not full yet, for each level.
    pub(crate) edge: Arc<[Vec<Hash>]>,
    pub(crate) start: StartNumber,
    pub(crate) leases: u64,
    /// Where it was restored, as long as it is not adopted.
    pub(crate) restored_at: Option<Position>,
}

impl Head {
    pub(crate) fn of(tip: &Tip) -> Self {
        Self {
            mark: tip.mark(),
            log: tip.log_head(),
            edge: tip.log.edge(),
            start: tip.start,
            leases: tip.leases,
            restored_at: tip.restored_at,
        }
    }
}

impl Shared {
    pub(crate) fn new(options: Options, engine: Engine, tip: &Tip, highest: LeaseId) -> Self {
        let news = Newest::new(options.news, tip.position);
        news.ring(tip.position, tip.rules.position());
        Self {
            time: Time::new(options.clock.as_ref(), options.limits.clock_jump),
            queue: Queue::new(options.queue),
            generator: Mutex::new(IdGenerator::above(highest)),
            rules: ArcSwap::new(Arc::clone(&tip.rules)),
            unwritten: Unwritten::default(),
            teardowns: ArcSwap::new(Arc::clone(&tip.teardowns)),
            head: ArcSwap::from_pointee(Head::of(tip)),
            recent: RecentLeases::new(options.recent_leases),
            bases: Bases::new(options.recent_bases),
            news,
            live_counted: AtomicBool::new(false),
            engine: RwLock::new(Some(Arc::new(engine))),
            trouble: ArcSwapOption::empty(),
            options,
        }
    }

    /// Shows what has become durable: rules before the position, so that whoever reads a position and then the rules
    /// has every rule up to it.
    pub(crate) fn publish(&self, tip: &Tip) {
        {
            let mut generator = self.generator.lock().unwrap_or_else(PoisonError::into_inner);
            if generator.highest() < tip.highest {
                *generator = IdGenerator::above(tip.highest);
            }
        }
        self.unwritten.settle(&tip.rules);
        if !Arc::ptr_eq(&self.rules.load(), &tip.rules) {
            self.rules.store(self.unwritten.over(&tip.rules));
        }
        if !Arc::ptr_eq(&self.teardowns.load(), &tip.teardowns) {
            self.teardowns.store(Arc::clone(&tip.teardowns));
        }
        self.head.store(Arc::new(Head::of(tip)));
        self.news.ring(tip.position, tip.rules.position());
    }

    /// A lease that is in memory.
    pub(crate) fn remembered(&self, id: LeaseId) -> Option<Result<Arc<Lease>, StoreError>> {
        match runs::own(id, &self.recent.record(id)?) {
            Ok(own) => self.bases.get(own.basis).map(|basis| bases::whole(own, &basis)),
            Err(error) => Some(Err(error)),
        }
    }

    /// A lease, from memory or from disk.
    pub(crate) fn lease(&self, engine: &Engine, id: LeaseId) -> Result<Option<Arc<Lease>>, StoreError> {
        let own = match self.recent.record(id) {
            Some(record) => Some(runs::own(id, &record)?),
            None => runs::read(engine, id)?,
        };
        own.map_or(Ok(None), |own| self.bases.lease(engine, own))
    }

    /// A rule, from memory or from disk.
    pub(crate) fn rule(&self, engine: &Engine, id: RuleId) -> Result<Option<Arc<Rule>>, StoreError> {
        match self.rules.load().get(id) {
            Some(rule) => Ok(Some(Arc::clone(rule))),
            None => rules::find_folded(engine, id, self.head.load().mark.position),
        }
    }

    /// The time, in any case: see [`Time::cautious`].
    pub(crate) fn cautious_now(&self) -> Timestamp {
        self.time.cautious(self.options.clock.as_ref())
    }

    /// The database, to read from.
    pub(crate) fn engine(&self) -> Result<Arc<Engine>, StoreError> {
        let engine = self.engine.read().unwrap_or_else(PoisonError::into_inner).clone();
        engine.ok_or_else(|| self.refusal())
    }

    /// Gives the database back or takes it away.
    pub(crate) fn set_engine(&self, engine: Option<Arc<Engine>>) -> Option<Arc<Engine>> {
        std::mem::replace(&mut *self.engine.write().unwrap_or_else(PoisonError::into_inner), engine)
    }

    /// Why nothing can be committed now.
    pub(crate) fn trouble(&self) -> Option<Arc<String>> {
        self.trouble.load_full()
    }

    pub(crate) fn set_trouble(&self, trouble: Option<String>) {
        self.trouble.store(trouble.map(Arc::new));
    }

    /// What to answer while the database cannot be used.
    pub(crate) fn refusal(&self) -> StoreError {
        self.trouble().map_or(StoreError::Closing, |why| StoreError::Poisoned(why.as_ref().clone()))
    }
}
