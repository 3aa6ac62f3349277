use dayfly_core::audit::{Draft, EventKind};
use dayfly_core::change::Change;
use dayfly_core::ports::{SignError, TestClock, TestRng};
use dayfly_core::rule::Actor;
use dayfly_core::time::Timestamp;
use dayfly_jose::{Alg, SigningKey};
use dayfly_store::SledStore;

use super::*;

struct OneKey(SigningKey);

impl OneKey {
    fn public(&self) -> [u8; 32] {
        self.0.public_jwk().ed25519_key().unwrap()
    }
}

impl NoteSigner for OneKey {
    fn sign_note(&self, name: &KeyName, text: &str) -> Result<SignedNote, SignError> {
        let key = VerifierKey { name: name.clone(), public: self.public() };
        let signature = self.0.sign_ed25519(text.as_bytes()).unwrap();
        let signatures = vec![dayfly_core::note::Signature::by(&key, signature)];
        Ok(SignedNote { text: text.to_owned(), signatures })
    }

    fn note_keys(&self) -> Vec<[u8; 32]> {
        vec![self.public()]
    }
}

struct Setting {
    folder: tempfile::TempDir,
    config: Config,
    signer: Arc<OneKey>,
}

impl Setting {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dayfly.toml");
        std::fs::write(&path, include_str!("../../../../docs/reference/dayfly.toml")).unwrap();
        let mut config = Config::load(&path).unwrap();
        config.store.witness.file = folder.path().join("mark.json");
        let signer = Arc::new(OneKey(SigningKey::generate_for(Alg::EdDsa).unwrap()));
        Self { folder, config, signer }
    }

    fn store(&self, name: &str) -> Arc<SledStore> {
        let clock = Arc::new(TestClock::at(Timestamp::from_secs(1_795_435_200)));
        let dir = self.folder.path().join(name);
        let options = dayfly_store::Options::new(&dir, clock, Arc::new(TestRng::new(7)));
        SledStore::open(options).unwrap()
    }

    async fn publisher(&self, store: &Arc<SledStore>) -> anyhow::Result<Arc<Publisher>> {
        let store = Arc::clone(store) as Arc<dyn LeaseStore>;
        Publisher::start(&self.config, store, Arc::clone(&self.signer) as Arc<dyn NoteSigner>).await
    }

    fn kept(&self) -> PathBuf {
        beside(&self.config.store.witness.file)
    }
}

async fn note(store: &SledStore) {
    let draft = Draft::note(EventKind::PolicyChanged, &Actor::dayfly(), "a test".to_owned());
    store.commit(Change::Note(Box::new(draft))).await.unwrap();
}

/// The newest, as its reader has it.
fn opened(publisher: &Publisher) -> Checkpoint {
    let note: SignedNote = publisher.latest().unwrap().to_string().parse().unwrap();
    dayfly_core::checkpoint::open(&note, &publisher.keys()).unwrap()
}

#[tokio::test]
async fn a_start_is_covered_and_then_what_is_asked_for() {
    let setting = Setting::new();
    let store = setting.store("store");
    let publisher = setting.publisher(&store).await.unwrap();
    assert_eq!(opened(&publisher).head, store.log_head());
    let running = tokio::spawn(Arc::clone(&publisher).run(Duration::from_secs(3600)));
    // Past a tile, whose root is not in memory any more.
    for _ in 0..600 {
        note(&store).await;
    }
    publisher.cover(store.mark().position).await;
    assert_eq!(opened(&publisher).head, store.log_head());
    assert_eq!(std::fs::read_to_string(setting.kept()).unwrap(), publisher.latest().unwrap().to_string());
    running.abort();
    // By itself, too, when it has grown.
    let running = tokio::spawn(Arc::clone(&publisher).run(Duration::from_millis(10)));
    note(&store).await;
    let grown = async {
        while opened(&publisher).head != store.log_head() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), grown).await.unwrap();
    running.abort();
    // Nobody waits for ever where there is nobody to make one.
    note(&store).await;
    publisher.cover(store.mark().position).await;
    assert_ne!(opened(&publisher).head, store.log_head());
}

#[tokio::test]
async fn a_log_that_does_not_follow_from_what_was_published_is_noticed() {
    let setting = Setting::new();
    let store = setting.store("store");
    for _ in 0..300 {
        note(&store).await;
    }
    let first = setting.publisher(&store).await.unwrap().latest().unwrap();
    note(&store).await;
    setting.publisher(&store).await.unwrap();
    let kept = std::fs::read_to_string(setting.kept()).unwrap();
    store.close();
    drop(store);

    // Longer, and the same up to there.
    let store = setting.store("store");
    setting.publisher(&store).await.unwrap();
    let checkpoint: Checkpoint = first.text.parse().unwrap();
    let LogHead { size, mut root } = checkpoint.head;
    let claim = |head: LogHead| {
        let text = Checkpoint { head, ..checkpoint.clone() }.to_string();
        setting.signer.sign_note(&checkpoint.origin, &text).unwrap().to_string()
    };
    root[0] ^= 1;
    for (published, why) in [
        (claim(LogHead { size, root }), "Events were changed or cut"),
        (claim(LogHead { size: 10_000, root }), "of 10000 events"),
        (kept.get(..40).unwrap().to_owned(), "holds no checkpoint"),
    ] {
        std::fs::write(setting.kept(), published).unwrap();
        let error = format!("{:#}", setting.publisher(&store).await.err().unwrap());
        assert!(error.contains(why), "{error}");
    }
    // An incarnation begins a log of its own; the witness says whether it may.
    std::fs::write(setting.kept(), kept.replace("incarnation 1\n", "incarnation 2\n")).unwrap();
    setting.publisher(&store).await.unwrap();
    std::fs::write(setting.kept(), kept).unwrap();
    setting.publisher(&store).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_kept_is_not_published() {
    let setting = Setting::new();
    let store = setting.store("store");
    std::fs::create_dir(setting.folder.path().join("mark.json.checkpoint.new")).unwrap();
    let publisher = setting.publisher(&store).await.unwrap();
    assert_eq!(publisher.latest(), None);
    std::fs::remove_dir(setting.folder.path().join("mark.json.checkpoint.new")).unwrap();
    let running = tokio::spawn(Arc::clone(&publisher).run(Duration::from_secs(3600)));
    publisher.cover(store.mark().position).await;
    assert_eq!(opened(&publisher).head, store.log_head());
    running.abort();
}
