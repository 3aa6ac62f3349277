//! A store in a temporary folder, with a clock that stands still until told.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use dayfly_core::ports::{LeaseStore, TestClock, TestRng};
use dayfly_core::time::Timestamp;
use dayfly_store::contract::Harness;
use dayfly_store::{OpenError, Options, SledStore};
use tempfile::TempDir;

pub struct Fixture {
    pub folder: TempDir,
    pub clock: Arc<TestClock>,
    pub options: Options,
    store: Mutex<Option<Arc<SledStore>>>,
}

impl Fixture {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(TestClock::at(Timestamp::from_secs(1_795_435_200)));
        let rng = Arc::new(TestRng::new(rand_seed(folder.path())));
        let options = Options {
            // Tests run where there may be little.
            reserve_bytes: 1,
            rule_reserve_bytes: 0,
            ..Options::new(folder.path().join("store"), clock.clone(), rng)
        };
        Self { folder, clock, options, store: Mutex::new(None) }
    }

    pub fn with(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(&mut self.options);
        self
    }

    pub fn dir(&self) -> PathBuf {
        self.options.dir.clone()
    }

    pub fn open(&self) -> Arc<SledStore> {
        self.try_open().unwrap()
    }

    pub fn try_open(&self) -> Result<Arc<SledStore>, OpenError> {
        SledStore::open(self.options.clone())
    }
}

impl Fixture {
    /// Lets go of the store without closing it.
    pub fn forget(&self) {
        drop(self.store.lock().unwrap().take());
    }

    /// Closes the store.
    pub fn take(&self) {
        if let Some(store) = self.store.lock().unwrap().take() {
            store.close();
        }
    }
}

fn rand_seed(path: &std::path::Path) -> u64 {
    path.as_os_str().as_encoded_bytes().iter().fold(7, |seed, byte| seed.wrapping_mul(31) ^ u64::from(*byte))
}

impl Harness for Fixture {
    fn store(&self) -> Arc<dyn LeaseStore> {
        self.store.lock().unwrap().get_or_insert_with(|| self.open()).clone()
    }

    fn reopen(&self) -> Arc<dyn LeaseStore> {
        self.take();
        self.store()
    }

    fn clock(&self) -> &TestClock {
        &self.clock
    }
}
