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
    /// Waits until this is so.
    pub async fn until(&self, so: impl Fn() -> bool) {
        for _ in 0..1000 {
            if so() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("it never came to be");
    }

    /// Waits until sled has let go of the store's file.
    pub fn wait_for_lock(&self) {
        let file = std::fs::File::open(self.dir().join("db")).unwrap();
        rustix::fs::flock(file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    }

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

/// Copies a store's folder.
pub fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(path, to).unwrap();
        }
    }
}
