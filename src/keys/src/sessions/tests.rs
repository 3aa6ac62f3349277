use std::path::Path;

use dayfly_core::ids::LeaseId;
use dayfly_core::ports::{Signer as _, TargetRef, TestClock, TestRng};
use dayfly_core::signing::KeyStage;

use super::*;
use crate::FileKek;

const NOW: Timestamp = Timestamp::from_secs(1_795_435_200);

struct Setting {
    _folder: tempfile::TempDir,
    ring: Arc<KeyRing>,
}

impl Setting {
    fn new(instance: u128) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kek = FileKek::open_or_create(&folder.path().join(Path::new("kek")), Arc::new(TestRng::new(1)))
            .unwrap();
        let (instance, clock) = (InstanceId::from_u128(instance), Arc::new(TestClock::at(NOW)));
        let ring = KeyRing::load(&[], instance, Arc::new(kek), clock, Duration::from_secs(300)).unwrap();
        for purpose in [SESSION_KEYS, KeyPurpose::of(KeyUse::AccessToken, SigningAlgorithm::Es256)] {
            ring.apply(&ring.generate(&purpose).unwrap()).unwrap();
        }
        Self { _folder: folder, ring: Arc::new(ring) }
    }

    fn sessions(&self) -> RingSessions {
        self.of(1, 1)
    }

    fn of(&self, instance: u128, incarnation: u32) -> RingSessions {
        let (issuer, audience) = ("https://dayfly.example".to_owned(), "dayfly-operator".parse().unwrap());
        let (instance, incarnation) = (InstanceId::from_u128(instance), Incarnation(incarnation));
        RingSessions::new(Arc::clone(&self.ring), issuer, audience, instance, incarnation)
    }
}

fn session() -> Session {
    Session {
        id: LeaseId::from_u128(7),
        identity: Identity {
            cluster: "east".parse().unwrap(),
            username: "ada@example.com".to_owned(),
            uid: String::new(),
            groups: vec!["on-call".to_owned(), "system:authenticated".to_owned()],
            extra: BTreeMap::from([("example.org/scopes".to_owned(), vec!["a".to_owned(), "b".to_owned()])]),
            of_secret: false,
        },
        issued_at: NOW,
        expires_at: NOW.plus(limits::SESSION_TTL),
    }
}

fn why(read: Result<Session, NoSession>) -> InvalidToken {
    read.unwrap_err().kind
}

#[test]
fn a_session_reads_back_as_it_was_until_its_end() {
    let sessions = Setting::new(1);
    let (sessions, session) = (sessions.sessions(), session());
    let SessionToken { token, .. } = sessions.sign(&session).unwrap();
    assert_eq!(sessions.read(&token, NOW).unwrap(), session);
    let last = session.expires_at.minus(Duration::from_millis(1));
    assert_eq!(sessions.read(&token, last).unwrap(), session);
    assert_eq!(why(sessions.read(&token, session.expires_at)), InvalidToken::Expired);
    // A clock that was set far back does not make it last.
    assert_eq!(why(sessions.read(&token, NOW.minus(Duration::from_secs(31)))), InvalidToken::NotYetValid);
}

#[test]
fn none_lasts_longer_than_ten_minutes() {
    let setting = Setting::new(1);
    let long = Session { expires_at: NOW.plus(limits::SESSION_TTL + Duration::from_secs(1)), ..session() };
    let token = setting.sessions().sign(&long).unwrap().token;
    assert_eq!(why(setting.sessions().read(&token, NOW)), InvalidToken::Refused);
}

#[test]
fn a_token_of_another_store_or_life_or_issuer_is_none() {
    let setting = Setting::new(1);
    let token = setting.sessions().sign(&session()).unwrap().token;
    assert_eq!(why(setting.of(1, 2).read(&token, NOW)), InvalidToken::Refused, "another incarnation");
    assert_eq!(why(setting.of(2, 1).read(&token, NOW)), InvalidToken::Refused, "another instance");
    assert_eq!(why(Setting::new(2).sessions().read(&token, NOW)), InvalidToken::BadSignature, "other keys");
    let mut other = setting.sessions();
    other.issuer = "https://other.example".to_owned();
    assert_eq!(why(other.read(&token, NOW)), InvalidToken::Refused);
    other = setting.sessions();
    other.audience = "dayfly".parse().unwrap();
    assert_eq!(why(other.read(&token, NOW)), InvalidToken::WrongAudience);
    let mut changed = token.expose().to_vec();
    let within = changed.len() - 10;
    changed[within] = if changed[within] == b'A' { b'B' } else { b'A' };
    assert_eq!(why(setting.sessions().read(&Secret::from(changed), NOW)), InvalidToken::BadSignature);
    assert_eq!(why(setting.sessions().read(&Secret::from("a.b".to_owned()), NOW)), InvalidToken::Malformed);
}

/// The keys of access tokens sign what a grant's author can shape: never a session.
#[test]
fn no_other_key_signs_a_session() {
    let setting = Setting::new(1);
    let token = setting.sessions().sign(&session()).unwrap().token;
    let payload = dayfly_jose::peek(token.expose_text().unwrap()).unwrap().claims.all;
    let payload = serde_json::to_vec(&payload).unwrap();
    let target = TargetRef { cluster: "east".parse().unwrap(), target: "orders".parse().unwrap() };
    let access = KeyPurpose::of(KeyUse::AccessToken, SigningAlgorithm::Es256);
    let key = setting.ring.published().into_iter().find(|key| key.purpose == access).unwrap().id;
    let forged = setting.ring.sign(&key, &KeyUse::AccessToken, &target, &payload).unwrap();
    assert_eq!(why(setting.sessions().read(&forged, NOW)), InvalidToken::WrongAudience);
    // And a session's key signs nothing for a target.
    let own = setting.sessions().sign(&session()).unwrap().key;
    assert!(setting.ring.sign(&own, &KeyUse::AccessToken, &target, &payload).is_err());
}

#[test]
fn a_session_ends_with_its_key() {
    let setting = Setting::new(1);
    let (sessions, ring) = (setting.sessions(), &setting.ring);
    let SessionToken { token, key } = sessions.sign(&session()).unwrap();
    // A rotation ends nothing.
    ring.apply(&ring.generate(&SESSION_KEYS).unwrap()).unwrap();
    let next = ring.published().into_iter().find(|key| key.stage == KeyStage::Next).unwrap().id;
    ring.apply(&ring.activate(&next).unwrap()).unwrap();
    assert!(sessions.read(&token, NOW).is_ok());
    assert_eq!(sessions.sign(&session()).unwrap().key, next);
    // From before the revocation is committed on, it is nothing any more.
    let step = ring.revoke(&key, "it leaked").unwrap();
    ring.stop(&key);
    assert_eq!(why(sessions.read(&token, NOW)), InvalidToken::BadSignature);
    ring.apply(&step).unwrap();
    assert_eq!(why(sessions.read(&token, NOW)), InvalidToken::BadSignature);
    let step = ring.revoke(&next, "it leaked too").unwrap();
    ring.stop(&next);
    assert!(sessions.sign(&session()).is_err());
    ring.apply(&step).unwrap();
    assert!(
        sessions.read(&sessions.sign(&session()).unwrap().token, NOW).is_ok(),
        "another signs in its place"
    );
}
