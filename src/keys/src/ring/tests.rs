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
            let new = ring.generate(USE).unwrap();
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
    assert_eq!(ring.current(USE), Err(SignError::NoKey));
    assert_eq!(&*ring.jwks(USE), r#"{"keys":[]}"#);

    let new = ring.generate(USE).unwrap();
    let id = new.sealed().id.clone();
    assert_eq!(&*ring.jwks(USE), r#"{"keys":[]}"#);
    assert_eq!(ring.activate(&id), Err(KeyError::NoSuchKey(id.clone())));

    assert_eq!(ring.publish(new), id);
    assert!(ring.jwks(USE).contains(id.as_str()));
    assert_eq!(ring.current(USE), Err(SignError::NoKey));
    assert_eq!(ring.sign(&id, "at+jwt", b"{}").err(), Some(SignError::NoKey));

    ring.activate(&id).unwrap();
    assert_eq!(ring.current(USE).unwrap().id, id);
    let token = ring.sign(&id, "at+jwt", br#"{"sub":"s"}"#).unwrap();
    let keys = KeySet::parse(ring.jwks(USE).as_bytes()).unwrap();
    assert!(verify(token.expose_text().unwrap(), &keys, Policy::exactly("at+jwt")).is_ok());
}

#[test]
fn a_superseded_key_finishes_what_it_began() {
    let setting = Setting::new();
    let (ring, sealed) = setting.ring_of(2);
    assert_eq!(ring.current(USE).unwrap().id, sealed[1].id);
    assert!(ring.sign(&sealed[0].id, "at+jwt", b"{}").is_ok());
    assert_eq!(KeySet::parse(ring.jwks(USE).as_bytes()).unwrap().len(), 2);
}

#[test]
fn a_key_signs_only_the_typ_of_its_use() {
    let (ring, sealed) = Setting::new().ring_of(1);
    for typ in ["JWT", "AT+JWT", "", "statuslist+jwt"] {
        assert_eq!(ring.sign(&sealed[0].id, typ, b"{}").err(), Some(SignError::NoKey), "{typ}");
    }
    assert_eq!(ring.sign(&"other".parse().unwrap(), "at+jwt", b"{}").err(), Some(SignError::NoKey));
}

#[test]
fn reloading_gives_the_same_keys_and_the_newest_signs() {
    let setting = Setting::new();
    let (ring, mut sealed) = setting.ring_of(3);
    let newest = sealed[2].id.clone();
    sealed.reverse();
    let again = setting.load(&sealed).unwrap();
    assert_eq!(again.current(USE).unwrap().id, newest);
    assert_eq!(again.jwks(USE), ring.jwks(USE));
    for key in &sealed {
        assert!(again.sign(&key.id, "at+jwt", b"{}").is_ok());
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
    let jwks: serde_json::Value = serde_json::from_str(&ring.jwks(USE)).unwrap();
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
                    let current = ring.current(USE).unwrap();
                    assert!(ring.sign(&current.id, "at+jwt", b"{}").is_ok());
                    assert!(ring.jwks(USE).contains(current.id.as_str()));
                }
            });
            scope.spawn(|| {
                for _ in 0..10 {
                    ring.activate(&ring.publish(ring.generate(USE).unwrap())).unwrap();
                }
            });
        }
    });
    assert_eq!(KeySet::parse(ring.jwks(USE).as_bytes()).unwrap().len(), 21);
}
