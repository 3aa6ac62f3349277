use std::collections::BTreeMap;

use dayfly_core::audit::EventRecord;
use dayfly_core::change::{Draw, LeaseFilter, LeasePage, LogHead, Mark, News, StoreStatus};
use dayfly_core::digest::Digest;
use dayfly_core::ids::{InstanceId, LeaseId, Position, RuleId};
use dayfly_core::lease::Lease;
use dayfly_core::merkle::Hash;
use dayfly_core::ports::{KeyFor, KeyUse, SignError, Signer as _, SigningAlgorithm, TestClock, TestRng};
use dayfly_core::rule::{After, Fields, Rule, Selector};
use dayfly_core::rules::RuleSet;
use dayfly_core::teardown::{SpelledLease, Teardowns};
use dayfly_core::tiles::Tile;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);
const SCHEDULE: Schedule = Schedule { rotate: Duration::from_secs(30 * 24 * 3600), publish_before: MINUTES };
const MINUTES: Duration = Duration::from_secs(600);

/// A store that has keys and nothing else.
#[derive(Default)]
struct Keys {
    records: std::sync::Mutex<BTreeMap<KeyId, SealedKey>>,
    steps: std::sync::Mutex<Vec<KeyStep>>,
    failing: std::sync::Mutex<Failing>,
    bell: tokio::sync::Notify,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Failing {
    #[default]
    No,
    /// Nothing is written.
    Before,
    /// It is written, and nobody is told.
    After,
    /// It waits for the bell.
    Later,
}

impl Keys {
    fn write(&self, change: &Change) -> Outcome {
        let Change::Key(change) = change else { panic!("{change:?}") };
        let mut keys = self.records.lock().unwrap();
        if change.step.keys().any(|key| keys.get(&key.id).map_or(0, |it| it.version) + 1 != key.version) {
            return Outcome::Conflict(Conflict::KeyStage);
        }
        keys.extend(change.step.keys().map(|key| (key.id.clone(), key.clone())));
        let mut steps = self.steps.lock().unwrap();
        steps.push(change.step.clone());
        let position = Position::new(steps.len() as u64);
        let rule = match &change.step {
            KeyStep::Revoke { key, reason, .. } => {
                let fields = Fields { key: Some(key.id.clone()), ..Fields::default() };
                let rule = Rule::test(position.number(), Selector::fields(fields).unwrap(), 9);
                Some(Arc::new(Rule { reason: reason.clone(), by: change.by.clone(), ..rule }))
            }
            _ => None,
        };
        Outcome::Committed(Receipt { position, rule })
    }
}

impl LeaseStore for Keys {
    fn commit(&self, change: Change) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        let failing = *self.failing.lock().unwrap();
        let poisoned = || Err(StoreError::Poisoned("a test".to_owned()));
        Box::pin(async move {
            match failing {
                Failing::No => Ok(self.write(&change)),
                Failing::Before => poisoned(),
                Failing::Later => {
                    self.bell.notified().await;
                    Ok(self.write(&change))
                }
                Failing::After => {
                    self.write(&change);
                    poisoned()
                }
            }
        })
    }

    fn keys(&self) -> BoxFuture<'_, Result<Vec<SealedKey>, StoreError>> {
        Box::pin(async { Ok(self.records.lock().unwrap().values().cloned().collect()) })
    }

    fn draw(&self) -> Result<Draw, StoreError> {
        panic!("a key is not asked for this")
    }

    fn rules(&self) -> Arc<RuleSet> {
        panic!("a key is not asked for this")
    }

    fn rule(&self, _: RuleId) -> BoxFuture<'_, Result<Option<Arc<Rule>>, StoreError>> {
        panic!("a key is not asked for this")
    }

    fn ruled(&self, _: Position) -> BoxFuture<'_, Result<Position, StoreError>> {
        panic!("a key is not asked for this")
    }

    fn teardowns(&self) -> Arc<Teardowns> {
        panic!("a key is not asked for this")
    }

    fn spelled(
        &self,
        _: Position,
        _: Option<LeaseId>,
    ) -> BoxFuture<'_, Result<Vec<SpelledLease>, StoreError>> {
        panic!("a key is not asked for this")
    }

    fn lease(&self, _: LeaseId) -> BoxFuture<'_, Result<Option<Arc<Lease>>, StoreError>> {
        panic!("a key is not asked for this")
    }

    fn leases(
        &self,
        _: LeaseFilter,
        _: Option<LeaseId>,
        _: usize,
    ) -> BoxFuture<'_, Result<LeasePage, StoreError>> {
        panic!("a key is not asked for this")
    }

    fn news(&self, _: Digest, _: Position) -> BoxFuture<'_, Result<News, StoreError>> {
        panic!("a key is not asked for this")
    }

    fn committed(&self, _: Position) -> BoxFuture<'_, Result<Position, StoreError>> {
        panic!("a key is not asked for this")
    }

    fn events(&self, _: Position, _: usize) -> BoxFuture<'_, Result<Vec<EventRecord>, StoreError>> {
        panic!("a key is not asked for this")
    }

    fn log_tiles(&self, _: Vec<Tile>) -> BoxFuture<'_, Result<Vec<Vec<Hash>>, StoreError>> {
        panic!("a key is not asked for this")
    }

    fn log_head(&self) -> LogHead {
        panic!("a key is not asked for this")
    }

    fn mark(&self) -> Mark {
        panic!("a key is not asked for this")
    }

    fn status(&self) -> StoreStatus {
        panic!("a key is not asked for this")
    }
}

struct Setting {
    folder: tempfile::TempDir,
    clock: Arc<TestClock>,
    store: Arc<Keys>,
}

/// A broker that has started.
struct Started {
    ring: Arc<KeyRing>,
    life: KeyLife,
}

impl Setting {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            clock: Arc::new(TestClock::at(Timestamp::from_secs(1_795_435_200))),
            store: Arc::default(),
        }
    }

    fn kek(&self) -> PathBuf {
        self.folder.path().join("kek")
    }

    async fn start(&self) -> Started {
        let rng: Arc<dyn Rng> = Arc::new(TestRng::new(1));
        let kek = FileKek::open_or_create(&self.kek(), Arc::clone(&rng)).unwrap();
        let sealed = self.store.keys().await.unwrap();
        let clock = Arc::<TestClock>::clone(&self.clock);
        let ring = KeyRing::load(
            &sealed,
            InstanceId::from_u128(1),
            Arc::new(kek),
            clock.clone(),
            SCHEDULE.refresh(),
        );
        let ring = Arc::new(ring.unwrap());
        let store = Arc::<Keys>::clone(&self.store);
        let kek = Some((self.kek(), rng));
        let life = KeyLife::new(Arc::clone(&ring), store, clock, SCHEDULE, vec![access()], kek);
        life.go_on().await.unwrap();
        Started { ring, life }
    }

    fn fail(&self, failing: Failing) {
        *self.store.failing.lock().unwrap() = failing;
    }
}

fn access() -> KeyPurpose {
    KeyPurpose::of(KeyUse::AccessToken, SigningAlgorithm::Es256)
}

impl Started {
    fn signs(&self) -> KeyId {
        let target = TargetRef { cluster: "east".parse().unwrap(), target: "orders".parse().unwrap() };
        let wanted = KeyFor { key_use: KeyUse::AccessToken, algorithm: SigningAlgorithm::Es256, target };
        self.ring.current(&wanted).unwrap().id
    }

    fn signed(&self, key: &KeyId) -> Result<Secret, SignError> {
        let target = TargetRef { cluster: "east".parse().unwrap(), target: "orders".parse().unwrap() };
        self.ring.sign(key, &KeyUse::AccessToken, &target, b"{}")
    }

    fn stages(&self) -> Vec<KeyStage> {
        self.life.keys().into_iter().map(|key| key.stage).collect()
    }
}

use KeyStage::{Active, Next, Retired, Retiring, Revoked};

#[tokio::test]
async fn a_key_lives_by_the_clock_whatever_stops_the_broker() {
    for restarts in [false, true] {
        let setting = Setting::new();
        let mut broker = setting.start().await;
        let first = broker.signs();
        let step = async |broker: &mut Started, by: Duration, stages: &[KeyStage]| {
            setting.clock.advance(by);
            if restarts {
                *broker = setting.start().await;
            } else {
                broker.life.go_on().await.unwrap();
            }
            assert_eq!(broker.stages(), stages);
        };
        let second = Duration::from_secs(1);
        step(&mut broker, SCHEDULE.rotate.saturating_sub(MINUTES + second), &[Active]).await;
        step(&mut broker, second, &[Active, Next]).await;
        assert_eq!(broker.signs(), first);
        if restarts {
            // This process has published it for no time at all.
            step(&mut broker, MINUTES, &[Active, Next]).await;
            setting.clock.advance(MINUTES);
            broker.life.go_on().await.unwrap();
        } else {
            step(&mut broker, MINUTES.saturating_sub(second), &[Active, Next]).await;
            step(&mut broker, second, &[Retiring, Active]).await;
        }
        assert_eq!(broker.stages(), [Retiring, Active]);
        assert_ne!(broker.signs(), first);
        step(&mut broker, RETIRING.saturating_sub(second), &[Retiring, Active]).await;
        step(&mut broker, second, &[Retired, Active]).await;
        let private = setting.store.records.lock().unwrap()[&first].sealed.clone();
        assert!(private.is_empty(), "its private key is gone");
        step(&mut broker, SCHEDULE.rotate, &[Retired, Active, Next]).await;
    }
}

#[tokio::test]
async fn what_is_shown_is_what_happens() {
    let setting = Setting::new();
    let broker = setting.start().await;
    let now = setting.clock.now();
    let [active] = broker.life.keys().try_into().unwrap();
    assert_eq!((active.since, active.signs_until), (now, Some(now.plus(SCHEDULE.rotate))));
    assert_eq!(active.published_until, Some(now.plus(SCHEDULE.rotate).plus(RETIRING)));
    setting.clock.advance(DAY);
    let next = broker.life.rotate(&access(), false, &Actor::dayfly()).await.unwrap();
    let at = setting.clock.now().plus(MINUTES);
    assert_eq!((next.stage, next.signs_from), (Next, Some(at)));
    assert_eq!(broker.life.keys()[0].signs_until, Some(at));
    let again = broker.life.rotate(&access(), false, &Actor::dayfly()).await.unwrap();
    assert_eq!(again.id, next.id, "one next key is enough");
    setting.clock.advance(MINUTES);
    broker.life.go_on().await.unwrap();
    assert_eq!(broker.signs(), next.id);
    let retiring = broker.life.keys().remove(0);
    assert_eq!((retiring.signs_until, retiring.published_until), (Some(at), Some(at.plus(RETIRING))));
}

#[tokio::test]
async fn by_command_a_key_signs_at_once() {
    let setting = Setting::new();
    let broker = setting.start().await;
    let next = broker.life.rotate(&access(), true, &Actor::dayfly()).await.unwrap();
    assert_eq!((next.stage, broker.signs()), (Active, next.id.clone()));
    assert_eq!(broker.stages(), [Retiring, Active]);
    let eddsa = KeyPurpose::of(KeyUse::AccessToken, SigningAlgorithm::EdDsa);
    let unknown = broker.life.rotate(&eddsa, true, &Actor::dayfly()).await.unwrap_err();
    assert_eq!(unknown, KeeperError::NoSuchPurpose(eddsa));
}

#[tokio::test]
async fn a_revoked_key_is_gone_within_the_answer() {
    let setting = Setting::new();
    let broker = setting.start().await;
    let first = broker.signs();
    let revoked = broker.life.revoke(&first, &Actor::dayfly(), "it leaked").await.unwrap();
    assert!(revoked.was_active && revoked.rule.reason == "it leaked" && revoked.rule.after == After::Reissue);
    assert_eq!(revoked.instead.map(|key| key.id), Some(broker.signs()));
    assert_eq!(broker.stages(), [Revoked, Active]);
    let jwks = broker.ring.jwks(&KeyUse::AccessToken).unwrap();
    assert!(!jwks.contains(first.as_str()) && jwks.contains(broker.signs().as_str()));
    let again = broker.life.revoke(&first, &Actor::dayfly(), "again").await.unwrap_err().to_string();
    assert!(again.contains("is revoked since"), "{again}");
    let unknown = broker.life.revoke(&"no".parse().unwrap(), &Actor::dayfly(), "why").await.unwrap_err();
    assert_eq!(unknown, KeeperError::NoSuchKey("no".parse().unwrap()));
}

/// What it signs then would have an id above the rule's cut-off.
#[tokio::test]
async fn a_key_signs_nothing_while_it_is_being_revoked() {
    let setting = Setting::new();
    let broker = setting.start().await;
    let first = broker.signs();
    setting.fail(Failing::Later);
    let by = Actor::dayfly();
    let soon = Duration::from_millis(50);
    let revoking = tokio::time::timeout(soon, broker.life.revoke(&first, &by, "it leaked"));
    assert!(revoking.await.is_err(), "the commit hangs, and whoever asked goes away");
    assert_eq!(broker.signed(&first).err(), Some(SignError::NoKey));
    // What was asked for is done all the same.
    setting.fail(Failing::No);
    setting.store.bell.notify_one();
    while broker.signs() == first {
        tokio::task::yield_now().await;
    }
    assert_eq!(broker.stages(), [Revoked, Active]);
}

#[tokio::test]
async fn a_step_that_nobody_heard_of_is_found_and_one_that_failed_is_taken_later() {
    for failing in [Failing::Before, Failing::After] {
        let setting = Setting::new();
        let broker = setting.start().await;
        let first = broker.signs();
        setting.clock.advance(SCHEDULE.rotate);
        setting.fail(failing);
        assert!(broker.life.go_on().await.is_err());
        assert_eq!(broker.stages(), [Active], "it is not in effect before it is known to be durable");
        assert!(broker.life.revoke(&first, &Actor::dayfly(), "why").await.is_err());
        let revoked = failing == Failing::After;
        assert_eq!(broker.signed(&first).is_ok(), !revoked, "the store was read again");
        setting.fail(Failing::No);
        broker.life.go_on().await.unwrap();
        let stored = setting.store.keys().await.unwrap();
        assert_eq!(stored.len(), 2);
        let mut shown: Vec<_> = broker.life.keys().into_iter().map(|key| (key.id, key.stage)).collect();
        shown.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(shown, stored.into_iter().map(|key| (key.id, key.stage)).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn imported_keys_rotate_too() {
    const RSA: &str = include_str!("../../../jose/src/import/keys_of_tests/rsa2048.pem");
    const ANOTHER: &str = include_str!("../../../jose/src/import/keys_of_tests/rsa3072.pem");
    const THIRD: &str = include_str!("../../../jose/src/import/keys_of_tests/rsa4096.pem");
    let setting = Setting::new();
    let broker = setting.start().await;
    let only = TargetRef { cluster: "east".parse().unwrap(), target: "orders".parse().unwrap() };
    let import = async |pem: &str| broker.life.import(&Secret::from(pem.to_owned()), only.clone()).await;
    let first = import(RSA).await.unwrap();
    assert_eq!((first.stage, first.signs_until), (Active, None));
    let purpose = first.purpose.clone();
    let refused = broker.life.rotate(&purpose, true, &Actor::dayfly()).await.unwrap_err().to_string();
    assert!(refused.contains("dayfly keys import FILE --target east/orders"), "{refused}");
    let second = import(ANOTHER).await.unwrap();
    assert_eq!(second.stage, Next);
    let third = import(THIRD).await.err().unwrap().to_string();
    assert!(third.contains("is the next key"), "{third}");
    setting.clock.advance(MINUTES);
    broker.life.go_on().await.unwrap();
    let of = |id: &KeyId| broker.life.keys().into_iter().find(|key| key.id == *id).unwrap().stage;
    assert_eq!((of(&first.id), of(&second.id)), (Retiring, Active));
    setting.clock.advance(SCHEDULE.rotate);
    broker.life.go_on().await.unwrap();
    assert_eq!((of(&first.id), of(&second.id)), (Retired, Active), "the next one is yours to bring");
}

#[tokio::test]
async fn a_successor_of_the_key_encryption_key_seals_all_again_when_it_comes() {
    let setting = Setting::new();
    let broker = setting.start().await;
    broker.life.rotate(&access(), true, &Actor::dayfly()).await.unwrap();
    assert_eq!(broker.life.go_on().await.unwrap(), 0);
    let successor = setting.folder.path().join("kek.2");
    FileKek::open_or_create(&setting.folder.path().join("made"), Arc::new(TestRng::new(2))).unwrap();
    std::fs::rename(setting.folder.path().join("made"), successor).unwrap();
    assert_eq!(broker.life.go_on().await.unwrap(), 2);
    assert_eq!(broker.life.go_on().await.unwrap(), 0);
    assert!(broker.life.keys().iter().all(|key| key.generation == 2));
    std::fs::remove_file(setting.kek()).unwrap();
    let again = setting.start().await;
    assert_eq!((again.signs(), again.stages()), (broker.signs(), broker.stages()));
}

#[tokio::test]
async fn a_copys_keys_of_sessions_are_replaced() {
    let setting = Setting::new();
    let Started { ring, life } = setting.start().await;
    let step = ring.generate(&SESSION_KEYS).unwrap();
    life.0.take(step, &Actor::dayfly()).await.unwrap();
    let stages = || {
        let of_sessions = life.0.states().into_iter().filter(|key| key.purpose == SESSION_KEYS);
        of_sessions.map(|key| key.stage).collect::<Vec<_>>()
    };
    assert_eq!(stages(), [Active]);
    life.replace_session_keys().await.unwrap();
    assert_eq!(stages(), [Revoked, Active]);
    let others = life.0.states().into_iter().filter(|key| key.purpose != SESSION_KEYS);
    assert!(others.map(|key| key.stage).eq([Active]), "those that others know stay");
}
