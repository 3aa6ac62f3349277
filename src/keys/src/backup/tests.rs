use std::collections::BTreeMap;

use dayfly_core::ports::TestRng;
use proptest::prelude::*;

use super::*;
use crate::kek::{Cipher as Kek, KEK_BYTES};

/// Key-encryption keys by generation.
struct Keks(BTreeMap<u32, Kek>, TestRng);

impl Keks {
    fn of(generations: &[(u32, u8)]) -> Self {
        let kek = |byte| Kek::new(&Zeroizing::new([byte; KEK_BYTES])).unwrap();
        Self(
            generations.iter().map(|(generation, byte)| (*generation, kek(*byte))).collect(),
            TestRng::new(5),
        )
    }
}

impl KeyEncryption for Keks {
    fn generation(&self) -> u32 {
        *self.0.keys().last().unwrap()
    }

    fn seal(&self, aad: &[u8], plaintext: &Secret) -> Result<Vec<u8>, SealError> {
        self.0[&self.generation()].seal(&self.1, aad, plaintext)
    }

    fn open(&self, aad: &[u8], generation: u32, sealed: &[u8]) -> Result<Secret, OpenError> {
        let missing = OpenError::Generation { sealed: generation, newest: self.generation() };
        self.0.get(&generation).ok_or(missing)?.open(aad, sealed)
    }
}

const PART: usize = PART_BYTES as usize;

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| u8::try_from(n / 7 % 251).unwrap()).collect()
}

fn sealed(seed: u64, content: &[u8]) -> Vec<u8> {
    let keks = Keks::of(&[(1, 1), (2, 2)]);
    let instance = InstanceId::from_bytes([9; 16]);
    let (mut sealer, mut out, _) =
        BackupSealer::begin(&keks, &TestRng::new(seed), instance, Incarnation(4), Timestamp::from_secs(77))
            .unwrap();
    for bytes in content.chunks(50_000) {
        out.extend(sealer.push(bytes).unwrap());
    }
    out.extend(sealer.finish().unwrap());
    out
}

fn opened(bytes: &[u8]) -> Result<Vec<u8>, OpenBackupError> {
    let mut opener = BackupOpener::begin(&Keks::of(&[(1, 1), (2, 2)]), bytes)?;
    let header = *opener.header();
    assert_eq!((header.incarnation, header.kek_generation), (Incarnation(4), 2));
    let mut all = Vec::new();
    while let Some(part) = opener.next_part()? {
        all.extend(part);
    }
    Ok(all)
}

/// Where the parts begin.
fn parts_at(bytes: &[u8]) -> usize {
    let length = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let key = MAGIC.len() + 4 + length(MAGIC.len());
    key + 4 + length(key)
}

#[test]
fn opens_as_it_was_sealed_whatever_its_length() {
    for length in [0, 1, PART - 1, PART, PART + 1, 3 * PART, 3 * PART + 5] {
        let content = content(length);
        assert!(opened(&sealed(1, &content)).unwrap() == content, "{length}");
    }
    assert_ne!(sealed(1, b"same"), sealed(2, b"same"), "each has a key of its own");
}

#[test]
fn what_is_changed_anywhere_is_refused() {
    let bytes = sealed(1, &content(2 * PART + 100));
    let parts = parts_at(&bytes);
    let ends = (0..parts + 40).chain((parts..bytes.len()).step_by(997)).chain(bytes.len() - 20..bytes.len());
    for at in ends {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let refused = opened(&changed).unwrap_err();
        if at >= parts {
            let part = u64::try_from((at - parts) / (PART + TAG_BYTES)).unwrap();
            assert!(matches!(refused, OpenBackupError::Changed(n) if n == part));
        } else {
            assert!(!matches!(refused, OpenBackupError::Changed(_)), "{at}: {refused}");
        }
    }
}

#[test]
fn what_is_cut_or_too_long_is_refused_and_named() {
    let bytes = sealed(1, &content(2 * PART + 100));
    let parts = parts_at(&bytes);
    for at in (0..parts).chain((parts..bytes.len()).step_by(499)) {
        let refused = opened(&bytes[..at]).unwrap_err();
        match at {
            0..16 => assert!(matches!(refused, OpenBackupError::NotABackup), "{at}: {refused}"),
            _ if at < parts => assert!(!matches!(refused, OpenBackupError::Changed(_)), "{at}: {refused}"),
            _ => {
                let named = matches!(refused, OpenBackupError::CutOff(_) | OpenBackupError::Changed(_));
                assert!(named, "{at}: {refused}");
            }
        }
    }
    // Between two parts.
    let refused = opened(&bytes[..parts + PART + TAG_BYTES]).unwrap_err();
    assert!(matches!(refused, OpenBackupError::CutOff(0)), "{refused}");
    for more in [1, 16, PART, 2 * PART] {
        let refused = opened(&[&bytes[..], &vec![0; more]].concat()).unwrap_err();
        assert!(matches!(refused, OpenBackupError::Changed(2) | OpenBackupError::TooLong(2)), "{refused}");
    }
    let full = sealed(1, &content(2 * PART));
    let refused = opened(&[&full[..], &[0]].concat()).unwrap_err();
    assert!(matches!(refused, OpenBackupError::TooLong(1)), "{refused}");
}

#[test]
fn parts_that_are_moved_left_out_or_of_another_backup_are_refused() {
    let one = sealed(1, &content(3 * PART + 100));
    let other = sealed(2, &content(3 * PART + 100));
    let (parts, each) = (parts_at(&one), PART + TAG_BYTES);
    let part = |of: &[u8], n: usize| of[parts + n * each..(parts + (n + 1) * each).min(of.len())].to_vec();
    let made = |of: [(&Vec<u8>, usize); 4]| {
        let parts_of = of.map(|(of, n)| part(of, n)).concat();
        opened(&[&one[..parts], &parts_of].concat())
    };
    assert!(made([(&one, 0), (&one, 1), (&one, 2), (&one, 3)]).is_ok());
    let refused = made([(&one, 0), (&one, 2), (&one, 1), (&one, 3)]).unwrap_err();
    assert!(matches!(refused, OpenBackupError::Changed(1)), "{refused}");
    let refused = made([(&one, 0), (&one, 0), (&one, 2), (&one, 3)]).unwrap_err();
    assert!(matches!(refused, OpenBackupError::Changed(1)), "{refused}");
    let refused = made([(&one, 0), (&one, 1), (&other, 2), (&one, 3)]).unwrap_err();
    assert!(matches!(refused, OpenBackupError::Changed(2)), "{refused}");
    let refused = made([(&one, 0), (&one, 1), (&one, 2), (&other, 3)]).unwrap_err();
    assert!(matches!(refused, OpenBackupError::Changed(3) | OpenBackupError::CutOff(3)), "{refused}");
    let left_out = [&one[..parts], &part(&one, 0), &part(&one, 2), &part(&one, 3)].concat();
    assert!(matches!(opened(&left_out).unwrap_err(), OpenBackupError::Changed(1)));
    // The header of one and the parts of the other.
    let mixed = [&one[..parts], &other[parts..]].concat();
    assert!(matches!(opened(&mixed).unwrap_err(), OpenBackupError::Changed(0)));
}

#[test]
fn another_key_encryption_key_opens_nothing_and_is_named() {
    let bytes = sealed(1, b"content");
    let refused = |keks: &[(u32, u8)]| match BackupOpener::begin(&Keks::of(keks), bytes.as_slice()) {
        Err(OpenBackupError::Kek(error)) => error,
        _ => panic!("it opened"),
    };
    assert!(matches!(refused(&[(1, 1), (2, 3)]), OpenError::OtherKey { .. }));
    assert_eq!(refused(&[(1, 1)]), OpenError::Generation { sealed: 2, newest: 1 });
    assert!(
        BackupOpener::begin(&Keks::of(&[(2, 2), (3, 9)]), bytes.as_slice()).is_ok(),
        "an older one stays good"
    );
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), length in 0..200u32) {
        prop_assert!(opened(&bytes).is_err());
        prop_assert!(opened(&[MAGIC.as_slice(), &bytes].concat()).is_err());
        prop_assert!(opened(&[MAGIC.as_slice(), &length.to_be_bytes(), &bytes].concat()).is_err());
    }
}
