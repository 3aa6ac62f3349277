use std::path::Path;
use std::time::Duration;

use dayfly_core::ports::{TestClock, TestRng};
use dayfly_jose::{KeySet, Policy, verify};

use super::*;
use crate::FileKek;

/// Does not compile where the type has `Debug`: then there are two `is`, and neither is chosen.
macro_rules! has_no_debug {
    ($($type:ty),*) => {$(
        const _: fn() = || {
            trait Either<T> { fn is() {} }
            struct WithDebug;
            impl<T: ?Sized> Either<()> for T {}
            impl<T: ?Sized + std::fmt::Debug> Either<WithDebug> for T {}
            let _ = <$type as Either<_>>::is;
        };
    )*};
}

has_no_debug!(KeyRing, FileKek, Held, Secret);

const USE: KeyUse = KeyUse::AccessToken;
const REFRESH: Duration = Duration::from_secs(300);
const ES256: SigningAlgorithm = SigningAlgorithm::Es256;
const RSA: &str = include_str!("../../../jose/src/import/keys_of_tests/rsa2048.pem");
const ANOTHER_RSA: &str = include_str!("../../../jose/src/import/keys_of_tests/rsa3072.pem");

fn target(text: &str) -> TargetRef {
    let (cluster, target) = text.split_once('/').unwrap();
    TargetRef { cluster: cluster.parse().unwrap(), target: target.parse().unwrap() }
}

fn wanted(key_use: KeyUse, algorithm: SigningAlgorithm) -> KeyFor {
    KeyFor { key_use, algorithm, target: target("east/orders") }
}

fn svid(domain: &str) -> KeyUse {
    KeyUse::Svid(domain.parse().unwrap())
}

fn pem(text: &str) -> Secret {
    Secret::from(text.to_owned())
}

/// Signs as an access token.
fn sign(ring: &KeyRing, key: &KeyId) -> Result<Secret, SignError> {
    ring.sign(key, &USE, &target("east/orders"), br#"{"sub":"s"}"#)
}

fn current(ring: &KeyRing) -> Result<KeyId, SignError> {
    ring.current(&wanted(USE, ES256)).map(|key| key.id)
}

fn jwks(ring: &KeyRing) -> Arc<str> {
    ring.jwks(&USE).unwrap()
}

/// The step is in effect; gives the key it is about.
fn take(ring: &KeyRing, step: Result<KeyStep, KeyError>) -> SealedKey {
    let step = step.unwrap();
    ring.apply(&step).unwrap();
    step.keys().next().unwrap().clone()
}

/// A key that signs, whether it is the first or not; as it is then.
fn add(ring: &KeyRing, step: Result<KeyStep, KeyError>) -> SealedKey {
    let made = take(ring, step);
    if made.stage == KeyStage::Next { take(ring, ring.activate(&made.id)) } else { made }
}

fn of(key_use: KeyUse, algorithm: SigningAlgorithm) -> KeyPurpose {
    KeyPurpose::of(key_use, algorithm)
}

/// A verifier key is known by all that it is to verify, and by none that it is not.
#[test]
fn checkpoints_have_keys_of_their_own() {
    let setting = Setting::new();
    let ring = setting.load(&[]).unwrap();
    let name: KeyName = "dayfly.example/log".parse().unwrap();
    let keys = |ring: &KeyRing| -> Vec<VerifierKey> {
        let key = |public| VerifierKey { name: name.clone(), public };
        ring.note_keys().into_iter().map(key).collect()
    };
    let purpose = of(KeyUse::Checkpoint, SigningAlgorithm::EdDsa);
    add(&ring, ring.generate(&of(USE, SigningAlgorithm::EdDsa)));
    assert_eq!(ring.sign_note(&name, "text\n").err(), Some(SignError::NoKey), "no token's key signs a note");
    let first = add(&ring, ring.generate(&purpose));
    setting.clock.advance(Duration::from_secs(60));
    let note = ring.sign_note(&name, "text\n").unwrap();
    assert_eq!(note.open(&keys(&ring)), Ok("text\n"));
    // It signs no token, and is in no set.
    let as_token = ring.sign(&first.id, &KeyUse::Checkpoint, &target("east/orders"), b"{}");
    assert_eq!(as_token.err(), Some(SignError::NoKey));
    assert_eq!((ring.jwks(&KeyUse::Checkpoint), ring.trust_domains()), (None, Vec::new()));
    assert!(!jwks(&ring).contains(first.id.as_str()));

    // A next key is published, and signs nothing; then both sign, until the earlier one retires.
    let next = take(&ring, ring.generate(&purpose));
    assert_eq!((keys(&ring).len(), ring.sign_note(&name, "text\n").unwrap().signatures.len()), (2, 1));
    take(&ring, ring.activate(&next.id));
    let both = ring.sign_note(&name, "text\n").unwrap();
    assert_eq!((both.signatures.len(), both.signatures[0].hash), (2, keys(&ring)[0].hash()));
    assert_eq!(both.open(&keys(&ring)[1..]), Ok("text\n"));
    take(&ring, ring.retire(&first.id));
    assert_eq!(ring.sign_note(&name, "text\n").unwrap().signatures.len(), 1);
    assert_eq!(note.open(&keys(&ring)), Ok("text\n"), "what a retired key signed stays true");
    // While it is being revoked, and from then on, it signs nothing.
    ring.stop(&next.id);
    assert_eq!(ring.sign_note(&name, "text\n").err(), Some(SignError::NoKey));
    let revoked = ring.revoke(&next.id, "it leaked");
    take(&ring, revoked);
    let instead = ring.sign_note(&name, "text\n").unwrap();
    assert!(
        instead.open(&keys(&ring)).is_ok()
            && !keys(&ring).iter().any(|key| key.hash() == both.signatures[0].hash)
    );
    // From the store, the same.
    let again = setting.load(&ring.records()).unwrap();
    assert_eq!(keys(&again), keys(&ring));
}

struct Setting {
    folder: tempfile::TempDir,
    clock: Arc<TestClock>,
    instance: InstanceId,
}

impl Setting {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            clock: Arc::new(TestClock::at(Timestamp::from_secs(1_795_435_200))),
            instance: InstanceId::from_u128(1),
        }
    }

    fn kek(&self, name: &str) -> Arc<FileKek> {
        let path = self.folder.path().join(Path::new(name));
        let seed = name.bytes().map(u64::from).sum();
        Arc::new(FileKek::open_or_create(&path, Arc::new(TestRng::new(seed))).unwrap())
    }

    fn load(&self, sealed: &[SealedKey]) -> Result<KeyRing, KeyError> {
        KeyRing::load(sealed, self.instance, self.kek("kek"), self.clock.clone(), REFRESH)
    }

    /// A ring of keys made one minute after the other, each activated, and their records then.
    fn ring_of(&self, keys: usize) -> (KeyRing, Vec<SealedKey>) {
        let ring = self.load(&[]).unwrap();
        for _ in 0..keys {
            add(&ring, ring.generate(&of(USE, ES256)));
            self.clock.advance(Duration::from_secs(60));
        }
        let sealed = ring.records();
        (ring, sealed)
    }
}

fn reason(result: Result<KeyRing, KeyError>) -> OpenError {
    match result.err() {
        Some(KeyError::DoesNotOpen { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_is_published_before_it_signs() {
    let setting = Setting::new();
    let ring = setting.load(&[]).unwrap();
    assert_eq!(current(&ring), Err(SignError::NoKey));
    assert_eq!(&*jwks(&ring), r#"{"keys":[]}"#);
    // The first has nobody to wait for.
    let first = take(&ring, ring.generate(&of(USE, ES256)));
    assert_eq!((first.stage, first.version), (KeyStage::Active, 1));
    assert_eq!(current(&ring).unwrap(), first.id);

    let step = ring.generate(&of(USE, ES256)).unwrap();
    let id = step.keys().next().unwrap().id.clone();
    assert!(!jwks(&ring).contains(id.as_str()), "not before it is committed");
    assert_eq!(ring.activate(&id).err(), Some(KeyError::NoSuchKey(id.clone())));
    let next = take(&ring, Ok(step));
    assert_eq!(next.stage, KeyStage::Next);
    assert!(jwks(&ring).contains(id.as_str()));
    assert_eq!(current(&ring).unwrap(), first.id);
    assert_eq!(sign(&ring, &id).err(), Some(SignError::NoKey));
    let another = ring.generate(&of(USE, ES256)).err();
    assert!(matches!(another, Some(KeyError::NextAlready { .. })), "{another:?}");

    take(&ring, ring.activate(&id));
    assert_eq!(current(&ring).unwrap(), id);
    let token = sign(&ring, &id).unwrap();
    let keys = KeySet::parse(jwks(&ring).as_bytes()).unwrap();
    assert!(verify(token.expose_text().unwrap(), &keys, Policy::exactly("at+jwt")).is_ok());
}

#[test]
fn a_retiring_key_finishes_what_it_began_and_a_retired_one_is_gone() {
    let setting = Setting::new();
    let (ring, sealed) = setting.ring_of(2);
    let [old, new] = sealed.try_into().unwrap();
    assert_eq!((old.stage, new.stage), (KeyStage::Retiring, KeyStage::Active));
    assert_eq!(current(&ring).unwrap(), new.id);
    assert!(sign(&ring, &old.id).is_ok());
    assert_eq!(KeySet::parse(jwks(&ring).as_bytes()).unwrap().len(), 2);
    assert_eq!(ring.retire(&new.id).err(), Some(KeyError::NoSuchKey(new.id)), "it is active");

    let retired = take(&ring, ring.retire(&old.id));
    assert!(retired.sealed.is_empty() && retired.stage == KeyStage::Retired);
    assert_eq!(sign(&ring, &old.id).err(), Some(SignError::NoKey));
    assert!(!jwks(&ring).contains(old.id.as_str()));
    let again = setting.load(&ring.records()).unwrap();
    assert_eq!((jwks(&again), again.records()), (jwks(&ring), ring.records()));
}

#[test]
fn a_revoked_key_is_gone_at_once_and_another_signs() {
    let setting = Setting::new();
    let (ring, sealed) = setting.ring_of(2);
    let [retiring, active] = sealed.try_into().unwrap();
    let KeyStep::Revoke { instead, .. } = ring.revoke(&retiring.id, "why").unwrap() else { panic!() };
    assert_eq!(instead, None, "it did not sign");
    // A new one where none is next, the next one where one is.
    take(&ring, ring.revoke(&active.id, "why"));
    let new = current(&ring).unwrap();
    assert!(new != active.id && jwks(&ring).contains(new.as_str()));
    assert!(!jwks(&ring).contains(active.id.as_str()));
    assert_eq!(sign(&ring, &active.id).err(), Some(SignError::NoKey));
    let next = take(&ring, ring.generate(&of(USE, ES256)));
    take(&ring, ring.revoke(&new, "why"));
    assert_eq!(current(&ring).unwrap(), next.id);
    assert_eq!(setting.load(&ring.records()).unwrap().records(), ring.records());

    // An imported key has no other, and is not imported again.
    let orders = target("east/orders");
    let imported = take(&ring, ring.import(&pem(RSA), orders.clone()));
    take(&ring, ring.revoke(&imported.id, "why"));
    let rs256 = wanted(USE, SigningAlgorithm::Rs256);
    let missing = SignError::NotImported(orders.clone(), SigningAlgorithm::Rs256);
    assert_eq!(ring.current(&rs256), Err(missing));
    let again = ring.import(&pem(RSA), orders).err().unwrap();
    assert!(matches!(again, KeyError::KnownAlready { stage: KeyStage::Revoked, .. }), "{again}");
}

#[test]
fn a_key_signs_only_for_its_use() {
    let (ring, sealed) = Setting::new().ring_of(1);
    let svids = ring.sign(&sealed[0].id, &svid("prod.example"), &target("east/orders"), b"{}");
    assert_eq!(svids.err(), Some(SignError::NoKey));
    assert_eq!(sign(&ring, &"other".parse().unwrap()).err(), Some(SignError::NoKey));
}

#[test]
fn reloading_gives_the_same_keys_and_the_newest_signs() {
    let setting = Setting::new();
    let (ring, mut sealed) = setting.ring_of(3);
    let newest = sealed[2].id.clone();
    sealed.reverse();
    let again = setting.load(&sealed).unwrap();
    assert_eq!(current(&again).unwrap(), newest);
    assert_eq!(jwks(&again), jwks(&ring));
    for key in &sealed {
        assert!(sign(&again, &key.id).is_ok());
    }
}

#[test]
fn a_sealed_key_opens_only_as_what_it_was_sealed() {
    let setting = Setting::new();
    let (_, sealed) = setting.ring_of(2);
    let with = |change: fn(&mut SealedKey)| {
        let mut key = sealed[0].clone();
        change(&mut key);
        setting.load(&[key])
    };
    assert!(with(|_| ()).is_ok());
    assert_eq!(reason(with(|key| key.id = "other".parse().unwrap())), OpenError::Changed);
    assert_eq!(reason(with(|key| key.created_at = Timestamp::from_secs(9))), OpenError::Changed);
    assert_eq!(reason(with(|key| key.public_jwk.push(' '))), OpenError::Changed);
    assert_eq!(reason(with(|key| key.sealed[40] ^= 1)), OpenError::Changed);
    assert_eq!(reason(with(|key| key.sealed.clear())), OpenError::Format);
    assert_eq!(reason(with(|key| key.version += 1)), OpenError::Changed);
    assert_eq!(reason(with(|key| key.since = key.since.plus(Duration::from_secs(1)))), OpenError::Changed);
    // The first of the two is retiring.
    assert_eq!(reason(with(|key| key.stage = KeyStage::Active)), OpenError::Changed);
    assert_eq!(reason(with(|key| key.stage = KeyStage::Next)), OpenError::Changed);
    let gone = with(|key| key.generation = 2).err().unwrap().to_string();
    assert!(gone.contains("generation 2") && gone.contains(sealed[0].id.as_str()), "{gone}");
    let unknown = with(|key| key.purpose = "svid".to_owned()).err().unwrap();
    assert!(matches!(unknown, KeyError::UnknownPurpose { .. }), "{unknown}");

    let swapped = SealedKey { sealed: sealed[1].sealed.clone(), ..sealed[0].clone() };
    assert_eq!(reason(setting.load(&[swapped])), OpenError::Changed);
    let elsewhere = KeyRing::load(
        &sealed,
        InstanceId::from_u128(2),
        setting.kek("kek"),
        Arc::<TestClock>::clone(&setting.clock),
        REFRESH,
    );
    assert_eq!(reason(elsewhere), OpenError::Changed);
}

#[test]
fn every_part_of_the_associated_data_counts() {
    let (_, sealed) = Setting::new().ring_of(1);
    let instance = InstanceId::from_u128(1);
    let base = associated_data(instance, &sealed[0]);
    let key = || sealed[0].clone();
    for other in [
        associated_data(InstanceId::from_u128(2), &key()),
        associated_data(instance, &SealedKey { purpose: "svid".to_owned(), ..key() }),
        associated_data(instance, &SealedKey { id: "other".parse().unwrap(), ..key() }),
        associated_data(instance, &SealedKey { generation: 2, ..key() }),
        associated_data(instance, &SealedKey { created_at: Timestamp::from_secs(1), ..key() }),
        associated_data(instance, &SealedKey { stage: KeyStage::Next, ..key() }),
        associated_data(instance, &SealedKey { since: Timestamp::from_secs(1), ..key() }),
        associated_data(instance, &SealedKey { version: 9, ..key() }),
    ] {
        assert_ne!(other, base);
    }
    // Moving a byte from one part to the next is another key.
    let first = SealedKey { purpose: "ab".to_owned(), id: "c".parse().unwrap(), ..key() };
    let second = SealedKey { purpose: "a".to_owned(), id: "bc".parse().unwrap(), ..key() };
    assert_ne!(associated_data(instance, &first), associated_data(instance, &second));
}

#[test]
fn another_key_encryption_key_is_named() {
    let setting = Setting::new();
    let (_, sealed) = setting.ring_of(1);
    let (right, wrong) = (setting.kek("kek"), setting.kek("another"));
    let clock = Arc::<TestClock>::clone(&setting.clock);
    let error =
        KeyRing::load(&sealed, setting.instance, wrong.clone(), clock, REFRESH).err().unwrap().to_string();
    assert!(error.contains(&format!("sealed with the key-encryption key {}", right.id())), "{error}");
    assert!(error.contains(&format!("this is {}", wrong.id())), "{error}");
}

#[test]
fn what_is_stored_and_published_has_no_private_part() {
    let (ring, sealed) = Setting::new().ring_of(2);
    let jwks: serde_json::Value = serde_json::from_str(&jwks(&ring)).unwrap();
    let keys = jwks["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 2);
    for (key, sealed) in keys.iter().zip(&sealed) {
        assert_eq!(serde_json::from_str::<serde_json::Value>(&sealed.public_jwk).unwrap(), *key);
        let names: std::collections::BTreeSet<_> =
            key.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, ["alg", "crv", "kid", "kty", "use", "x", "y"].into());
        assert_eq!(
            (&key["alg"], &key["use"], &key["crv"]),
            (&"ES256".into(), &"sig".into(), &"P-256".into())
        );
    }
}

#[test]
fn keys_are_published_while_others_sign() {
    let setting = Setting::new();
    let (ring, _) = setting.ring_of(1);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let current = current(&ring).unwrap();
                    assert!(sign(&ring, &current).is_ok());
                    assert!(jwks(&ring).contains(current.as_str()));
                }
            });
        }
        scope.spawn(|| (0..20).for_each(|_| drop(add(&ring, ring.generate(&of(USE, ES256))))));
    });
    assert_eq!(KeySet::parse(jwks(&ring).as_bytes()).unwrap().len(), 21);
}

#[test]
fn each_purpose_has_keys_of_its_own() {
    let setting = Setting::new();
    let ring = setting.load(&[]).unwrap();
    let sealed = [
        add(&ring, ring.generate(&of(USE, ES256))),
        add(&ring, ring.generate(&of(USE, SigningAlgorithm::EdDsa))),
        add(&ring, ring.generate(&of(svid("prod.example"), ES256))),
        add(&ring, ring.generate(&of(svid("test.example"), ES256))),
        add(&ring, ring.import(&pem(RSA), target("east/orders"))),
    ];
    assert!(ring.generate(&of(USE, SigningAlgorithm::Rs256)).is_err(), "RSA keys are imported");
    for ring in [&ring, &setting.load(&sealed).unwrap()] {
        let id = |key_use, algorithm| ring.current(&wanted(key_use, algorithm)).unwrap().id;
        assert_eq!(id(USE, ES256), sealed[0].id);
        assert_eq!(id(USE, SigningAlgorithm::EdDsa), sealed[1].id);
        assert_eq!(id(svid("prod.example"), ES256), sealed[2].id);
        assert_eq!(id(svid("test.example"), ES256), sealed[3].id);
        assert_eq!(id(USE, SigningAlgorithm::Rs256), sealed[4].id);
        assert_eq!(ring.current(&wanted(svid("other.example"), ES256)), Err(SignError::NoKey));

        // Each signs what it is for, and what is published of it verifies that alone.
        for (sealed, key_use) in
            [(&sealed[0], USE), (&sealed[1], USE), (&sealed[4], USE), (&sealed[2], svid("prod.example"))]
        {
            for other in [USE, svid("prod.example"), svid("test.example")] {
                let signed = ring.sign(&sealed.id, &other, &target("east/orders"), br#"{"sub":"s"}"#);
                assert_eq!(signed.is_ok(), other == key_use, "{} as {other:?}", sealed.purpose);
            }
            let token = ring.sign(&sealed.id, &key_use, &target("east/orders"), br#"{"sub":"s"}"#).unwrap();
            let token = token.expose_text().unwrap();
            let access = KeySet::parse(jwks(ring).as_bytes()).unwrap();
            let bundle = ring.jwks(&svid("prod.example")).unwrap();
            let svids = KeySet::parse_bundle(bundle.as_bytes()).unwrap();
            assert_eq!(verify(token, &access, Policy::exactly("at+jwt")).is_ok(), key_use == USE);
            assert_eq!(verify(token, &svids, Policy::exactly("JWT")).is_ok(), key_use != USE);
            assert!(
                KeySet::parse(bundle.as_bytes()).unwrap().is_empty(),
                "a bundle is no JWK Set for tokens"
            );
            assert!(KeySet::parse_bundle(jwks(ring).as_bytes()).unwrap().is_empty(), "and the reverse");
        }
        assert_eq!(ring.jwks(&svid("other.example")), None);
        assert_eq!(
            ring.trust_domains().iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["prod.example", "test.example"]
        );
    }
}

#[test]
fn an_imported_key_signs_for_its_target_alone() {
    let setting = Setting::new();
    let ring = setting.load(&[]).unwrap();
    add(&ring, ring.generate(&of(USE, ES256)));
    let orders = target("east/orders");
    let imported = add(&ring, ring.import(&pem(RSA), orders.clone()));
    assert_eq!(imported.purpose, "access-token/RS256/east/orders");
    for other in ["west/orders", "east/ledger"] {
        let other = target(other);
        let wanted = KeyFor { key_use: USE, algorithm: SigningAlgorithm::Rs256, target: other.clone() };
        let not_imported = SignError::NotImported(other.clone(), SigningAlgorithm::Rs256);
        assert_eq!(ring.current(&wanted), Err(not_imported));
        assert_eq!(ring.sign(&imported.id, &USE, &other, b"{}").err(), Some(SignError::NoKey));
    }
    assert!(ring.sign(&imported.id, &USE, &orders, b"{}").is_ok());
    assert!(jwks(&ring).contains(r#""kty":"RSA""#) && jwks(&ring).contains(r#""alg":"RS256""#));

    // The same key for another target, or again, is refused; another key takes its place.
    let pkcs1 = include_str!("../../../jose/src/import/keys_of_tests/rsa2048_pkcs1.pem");
    for (text, to) in [(RSA, "east/ledger"), (RSA, "east/orders"), (pkcs1, "west/orders")] {
        let again = ring.import(&pem(text), target(to)).err().unwrap();
        assert!(matches!(again, KeyError::KnownAlready { .. }), "{again}");
    }
    setting.clock.advance(Duration::from_secs(1));
    let second = add(&ring, ring.import(&pem(ANOTHER_RSA), orders.clone()));
    let rs256 = wanted(USE, SigningAlgorithm::Rs256);
    assert_eq!(ring.current(&rs256).unwrap().id, second.id);
    assert!(ring.sign(&imported.id, &USE, &orders, b"{}").is_ok(), "what it began, it finishes");
    let again = setting.load(&ring.records()).unwrap();
    assert_eq!(again.current(&rs256).unwrap().id, second.id);

    // Nor does the store let it be taken for another target's, or for an older one.
    let elsewhere = SealedKey { purpose: "access-token/RS256/east/ledger".to_owned(), ..imported.clone() };
    assert_eq!(reason(setting.load(&[elsewhere])), OpenError::Changed);
    let swapped = SealedKey { sealed: imported.sealed.clone(), ..second.clone() };
    assert_eq!(reason(setting.load(&[swapped])), OpenError::Changed);
    let newer = SealedKey { created_at: Timestamp::from_secs(4_000_000_000), ..imported };
    assert_eq!(reason(setting.load(&[newer])), OpenError::Changed);
}

#[test]
fn a_bundle_is_a_spiffe_bundle() {
    let setting = Setting::new();
    let ring = setting.load(&[]).unwrap();
    let domain = svid("prod.example");
    let mut sequences = Vec::new();
    for keys in 1..=2 {
        add(&ring, ring.generate(&of(domain.clone(), ES256)));
        let bundle: serde_json::Value = serde_json::from_str(&ring.jwks(&domain).unwrap()).unwrap();
        assert_eq!(bundle["spiffe_refresh_hint"], 300);
        sequences.push(bundle["spiffe_sequence"].as_u64().unwrap());
        let published = bundle["keys"].as_array().unwrap();
        assert_eq!(published.len(), keys);
        for key in published {
            assert_eq!((&key["use"], &key["kty"]), (&"jwt-svid".into(), &"EC".into()));
            assert!(key["kid"].is_string() && key.get("d").is_none(), "{key}");
        }
        setting.clock.advance(Duration::from_secs(60));
    }
    assert!(sequences[0] < sequences[1], "{sequences:?}");
}

#[test]
fn no_more_keys_are_imported_than_verifiers_take() {
    let setting = Setting::new();
    let (ring, _) = setting.ring_of(MAX_JWKS_KEYS - 1);
    add(&ring, ring.import(&pem(RSA), target("east/orders")));
    assert_eq!(KeySet::parse(jwks(&ring).as_bytes()).unwrap().len(), MAX_JWKS_KEYS);
    assert_eq!(ring.import(&pem(ANOTHER_RSA), target("east/ledger")).err(), Some(KeyError::TooMany));
}

#[test]
fn a_bundles_sequence_grows_with_every_change_even_where_the_clock_goes_back() {
    let setting = Setting::new();
    let ring = setting.load(&[]).unwrap();
    let domain = svid("prod.example");
    let purpose = of(domain.clone(), ES256);
    let sequence = || {
        let bundle: serde_json::Value = serde_json::from_str(&ring.jwks(&domain).unwrap()).unwrap();
        bundle["spiffe_sequence"].as_u64().unwrap()
    };
    let first = take(&ring, ring.generate(&purpose));
    let mut told = vec![sequence()];
    setting.clock.jump(-3600);
    let next = take(&ring, ring.generate(&purpose));
    told.push(sequence());
    take(&ring, ring.activate(&next.id));
    told.push(sequence());
    take(&ring, ring.retire(&first.id));
    told.push(sequence());
    take(&ring, ring.revoke(&next.id, "why"));
    told.push(sequence());
    assert!(told.is_sorted_by(|one, other| one < other), "{told:?}");
    let again = setting.load(&ring.records()).unwrap();
    assert_eq!(again.jwks(&domain), ring.jwks(&domain), "and a restart changes nothing");
}

#[test]
fn a_record_from_an_older_copy_is_refused_beside_the_newer_ones() {
    let setting = Setting::new();
    let ring = setting.load(&[]).unwrap();
    let first = take(&ring, ring.generate(&of(USE, ES256)));
    setting.clock.advance(Duration::from_secs(60));
    let next = take(&ring, ring.generate(&of(USE, ES256)));
    take(&ring, ring.activate(&next.id));
    let put_back = |record: &SealedKey, ring: &KeyRing| {
        let mut records: Vec<_> = ring.records().into_iter().filter(|key| key.id != record.id).collect();
        records.push(record.clone());
        setting.load(&records).err()
    };
    let contradiction = |error: Option<KeyError>| matches!(error, Some(KeyError::Contradiction { .. }));
    // Active again: there would be two.
    assert!(contradiction(put_back(&first, &ring)));
    // Revoked, and put back as it was when it was next, or active: a newer one is active.
    let active = ring.records().into_iter().find(|key| key.id == next.id).unwrap();
    take(&ring, ring.revoke(&next.id, "it leaked"));
    assert!(contradiction(put_back(&active, &ring)));
    assert!(contradiction(put_back(&next, &ring)));
    // The older sealed bytes in the newer record do not open.
    let retiring = ring.records().into_iter().find(|key| key.id == first.id).unwrap();
    let mixed = SealedKey { sealed: first.sealed.clone(), ..retiring };
    assert!(matches!(put_back(&mixed, &ring), Some(KeyError::DoesNotOpen { why: OpenError::Changed, .. })));
}

#[test]
fn keys_are_sealed_again_with_a_successor_and_need_the_first_no_more() {
    let setting = Setting::new();
    let (ring, _) = setting.ring_of(2);
    let path = setting.folder.path().join("kek");
    setting.kek("another");
    std::fs::rename(setting.folder.path().join("another"), path.with_extension("2")).unwrap();
    ring.use_kek(setting.kek("kek"));
    assert_eq!(ring.generation(), 2);
    for key in ring.published() {
        assert_eq!(key.generation, 1);
        take(&ring, ring.reseal(&key.id));
    }
    std::fs::remove_file(&path).unwrap();
    let again = setting.load(&ring.records()).unwrap();
    assert_eq!((jwks(&again), current(&again)), (jwks(&ring), current(&ring)));
    assert!(ring.records().iter().all(|key| key.generation == 2));
    // Without the successor it says which keys need it.
    std::fs::rename(path.with_extension("2"), path.with_extension("9")).unwrap();
    let error = setting.load(&ring.records()).err().unwrap().to_string();
    assert!(error.contains("generation 2"), "{error}");
    assert!(ring.records().iter().all(|key| error.contains(key.id.as_str())), "{error}");
}
