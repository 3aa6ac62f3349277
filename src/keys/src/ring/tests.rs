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

has_no_debug!(KeyRing, NewKey, FileKek, Held, Secret);

const USE: KeyUse = KeyUse::AccessToken;
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

/// Commits to nothing, publishes and activates.
fn add(ring: &KeyRing, new: NewKey) -> SealedKey {
    let sealed = new.sealed().clone();
    ring.activate(&ring.publish(new)).unwrap();
    sealed
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
        KeyRing::load(sealed, self.instance, self.kek("kek"), self.clock.clone())
    }

    /// A ring, and the sealed forms of keys made one minute after the other, each published and activated.
    fn ring_of(&self, keys: usize) -> (KeyRing, Vec<SealedKey>) {
        let ring = self.load(&[]).unwrap();
        let sealed = (0..keys).map(|_| {
            let new = ring.generate(USE, ES256).unwrap();
            let sealed = new.sealed().clone();
            ring.activate(&ring.publish(new)).unwrap();
            self.clock.advance(Duration::from_secs(60));
            sealed
        });
        let sealed = sealed.collect();
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

    let new = ring.generate(USE, ES256).unwrap();
    let id = new.sealed().id.clone();
    assert_eq!(&*jwks(&ring), r#"{"keys":[]}"#);
    assert_eq!(ring.activate(&id), Err(KeyError::NoSuchKey(id.clone())));

    assert_eq!(ring.publish(new), id);
    assert!(jwks(&ring).contains(id.as_str()));
    assert_eq!(current(&ring), Err(SignError::NoKey));
    assert_eq!(sign(&ring, &id).err(), Some(SignError::NoKey));

    ring.activate(&id).unwrap();
    assert_eq!(current(&ring).unwrap(), id);
    let token = sign(&ring, &id).unwrap();
    let keys = KeySet::parse(jwks(&ring).as_bytes()).unwrap();
    assert!(verify(token.expose_text().unwrap(), &keys, Policy::exactly("at+jwt")).is_ok());
}

#[test]
fn a_superseded_key_finishes_what_it_began() {
    let setting = Setting::new();
    let (ring, sealed) = setting.ring_of(2);
    assert_eq!(current(&ring).unwrap(), sealed[1].id);
    assert!(sign(&ring, &sealed[0].id).is_ok());
    assert_eq!(KeySet::parse(jwks(&ring).as_bytes()).unwrap().len(), 2);
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
    assert_eq!(reason(with(|key| key.generation = 2)), OpenError::Generation { sealed: 2, have: 1 });
    let unknown = with(|key| key.purpose = "svid".to_owned()).err().unwrap();
    assert!(matches!(unknown, KeyError::UnknownPurpose { .. }), "{unknown}");

    let swapped = SealedKey { sealed: sealed[1].sealed.clone(), ..sealed[0].clone() };
    assert_eq!(reason(setting.load(&[swapped])), OpenError::Changed);
    let elsewhere = KeyRing::load(
        &sealed,
        InstanceId::from_u128(2),
        setting.kek("kek"),
        Arc::<TestClock>::clone(&setting.clock),
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
    let error = KeyRing::load(&sealed, setting.instance, wrong.clone(), clock).err().unwrap().to_string();
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
            scope.spawn(|| {
                for _ in 0..10 {
                    ring.activate(&ring.publish(ring.generate(USE, ES256).unwrap())).unwrap();
                }
            });
        }
    });
    assert_eq!(KeySet::parse(jwks(&ring).as_bytes()).unwrap().len(), 21);
}

#[test]
fn each_purpose_has_keys_of_its_own() {
    let setting = Setting::new();
    let ring = setting.load(&[]).unwrap();
    let sealed = [
        add(&ring, ring.generate(USE, ES256).unwrap()),
        add(&ring, ring.generate(USE, SigningAlgorithm::EdDsa).unwrap()),
        add(&ring, ring.generate(svid("prod.example"), ES256).unwrap()),
        add(&ring, ring.generate(svid("test.example"), ES256).unwrap()),
        add(&ring, ring.import(&pem(RSA), target("east/orders")).unwrap()),
    ];
    assert!(ring.generate(USE, SigningAlgorithm::Rs256).is_err(), "RSA keys are imported");
    for ring in [&ring, &setting.load(&sealed).unwrap()] {
        let id = |key_use, algorithm| ring.current(&wanted(key_use, algorithm)).unwrap().id;
        assert_eq!(id(USE, ES256), sealed[0].id);
        assert_eq!(id(USE, SigningAlgorithm::EdDsa), sealed[1].id);
        assert_eq!(id(svid("prod.example"), ES256), sealed[2].id);
        assert_eq!(id(svid("test.example"), ES256), sealed[3].id);
        assert_eq!(id(USE, SigningAlgorithm::Rs256), sealed[4].id);
        assert_eq!(ring.current(&wanted(svid("other.example"), ES256)), Err(SignError::NoKey));
        assert!(ring.signs(&USE, ES256) && ring.signs(&svid("prod.example"), ES256));
        assert!(!ring.signs(&USE, SigningAlgorithm::Rs256), "an imported key is for one target");

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
    add(&ring, ring.generate(USE, ES256).unwrap());
    let orders = target("east/orders");
    let imported = add(&ring, ring.import(&pem(RSA), orders.clone()).unwrap());
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
    let second = add(&ring, ring.import(&pem(ANOTHER_RSA), orders.clone()).unwrap());
    let rs256 = wanted(USE, SigningAlgorithm::Rs256);
    assert_eq!(ring.current(&rs256).unwrap().id, second.id);
    assert!(ring.sign(&imported.id, &USE, &orders, b"{}").is_ok(), "what it began, it finishes");
    let again = setting.load(&[imported.clone(), second.clone()]).unwrap();
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
        add(&ring, ring.generate(domain.clone(), ES256).unwrap());
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
    add(&ring, ring.import(&pem(RSA), target("east/orders")).unwrap());
    assert_eq!(KeySet::parse(jwks(&ring).as_bytes()).unwrap().len(), MAX_JWKS_KEYS);
    assert_eq!(ring.import(&pem(ANOTHER_RSA), target("east/ledger")).err(), Some(KeyError::TooMany));
}
