//! `dayfly keys list`, `rotate` and `revoke`.

use std::process::ExitCode;

use clap::Args;
use dayfly_client::v1;
use serde::Serialize;

use crate::connect::Connection;
use crate::output::{Output, facts, table};
use crate::view::time;

/// Which keys, and how to print them.
#[derive(Args)]
pub(super) struct List {
    /// Those too that have retired or were revoked.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    output: Output,
}

/// What to rotate.
#[derive(Args)]
pub(super) struct Rotate {
    /// What the key is for, as `dayfly keys list` has it: `access-token`, `svid/TRUST-DOMAIN`, ...
    purpose: String,
    /// It signs at once: verifiers that cache the published keys refuse what it signs until they ask again.
    #[arg(long)]
    now: bool,
    #[command(flatten)]
    output: Output,
}

/// Which key to end, and why.
#[derive(Args)]
pub(super) struct Revoke {
    /// Its id, the `kid` of what it signed.
    key: String,
    /// Why: it is recorded.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct KeysView<'a> {
    keys: Vec<KeyView<'a>>,
}

#[derive(Serialize)]
struct KeyView<'a> {
    id: &'a str,
    purpose: &'a str,
    algorithm: &'a str,
    stage: &'static str,
    since: String,
    created_at: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    signs_from: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    signs_until: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    published_until: String,
    kek_generation: u32,
}

#[derive(Serialize)]
struct RotatedView<'a> {
    key: Option<KeyView<'a>>,
    refresh_secs: u32,
}

#[derive(Serialize)]
struct RevokedView<'a> {
    rule: &'a str,
    position: u64,
    was_active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    instead: Option<KeyView<'a>>,
    refresh_secs: u32,
}

impl List {
    pub(super) async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let request = v1::ListKeysRequest { include_gone: self.all };
        let keys = connection.client()?.list_keys(request).await?.keys;
        self.output.answer(&KeysView { keys: keys.iter().map(view).collect() }, || list_text(&keys))
    }
}

impl Rotate {
    pub(super) async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let request = v1::RotateKeyRequest { purpose: self.purpose, now: self.now };
        let answer = connection.client()?.rotate_key(request).await?;
        let view = RotatedView { key: answer.key.as_ref().map(view), refresh_secs: answer.refresh_secs };
        self.output.answer(&view, || rotate_text(&answer))
    }
}

impl Revoke {
    pub(super) async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let request = v1::RevokeKeyRequest { key_id: self.key, reason: self.reason };
        let answer = connection.client()?.revoke_key(request).await?;
        let rule = answer.rule.clone().unwrap_or_default();
        let view = RevokedView {
            rule: &rule.id,
            position: rule.position,
            was_active: answer.was_active,
            instead: answer.instead.as_ref().map(view),
            refresh_secs: answer.refresh_secs,
        };
        self.output.answer(&view, || revoke_text(&answer))
    }
}

fn view(key: &v1::KeyInfo) -> KeyView<'_> {
    KeyView {
        id: &key.id,
        purpose: &key.purpose,
        algorithm: &key.algorithm,
        stage: stage(key),
        since: time(key.since.as_ref()),
        created_at: time(key.created_at.as_ref()),
        signs_from: time(key.signs_from.as_ref()),
        signs_until: time(key.signs_until.as_ref()),
        published_until: time(key.published_until.as_ref()),
        kek_generation: key.kek_generation,
    }
}

fn stage(key: &v1::KeyInfo) -> &'static str {
    match key.stage() {
        v1::KeyStage::Unspecified => "",
        v1::KeyStage::Next => "next",
        v1::KeyStage::Active => "active",
        v1::KeyStage::Retiring => "retiring",
        v1::KeyStage::Retired => "retired",
        v1::KeyStage::Revoked => "revoked",
    }
}

fn list_text(keys: &[v1::KeyInfo]) -> String {
    let row = |key: &v1::KeyInfo| {
        [
            key.id.clone(),
            key.purpose.clone(),
            key.algorithm.clone(),
            stage(key).to_owned(),
            time(key.since.as_ref()),
            time(key.signs_from.as_ref()),
            time(key.signs_until.as_ref()),
            time(key.published_until.as_ref()),
            key.kek_generation.to_string(),
        ]
    };
    let rows: Vec<_> = keys.iter().map(row).collect();
    let head = [
        "KEY",
        "PURPOSE",
        "ALGORITHM",
        "STAGE",
        "SINCE",
        "SIGNS FROM",
        "SIGNS UNTIL",
        "PUBLISHED UNTIL",
        "KEK",
    ];
    table(head, &rows)
}

fn rotate_text(answer: &v1::RotateKeyResponse) -> String {
    let Some(key) = &answer.key else { return String::new() };
    let what = match key.stage() {
        v1::KeyStage::Active => format!(
            "it signs now: verifiers that cached the keys before refuse what it signs for up to {} s, unless they ask \
             again for a key they do not know",
            answer.refresh_secs
        ),
        _ => "it is published, and signs from then on: nothing is refused meanwhile".to_owned(),
    };
    facts(&[
        ("key", key.id.clone()),
        ("purpose", key.purpose.clone()),
        ("stage", stage(key).to_owned()),
        ("signs from", time(key.signs_from.as_ref())),
        ("verifiers", what),
    ])
}

fn revoke_text(answer: &v1::RevokeKeyResponse) -> String {
    let rule = answer.rule.clone().unwrap_or_default();
    let instead = match (&answer.instead, answer.was_active) {
        (Some(key), _) => format!("{}, from now on", key.id),
        (None, true) => "nothing: requests are refused until a key is imported".to_owned(),
        (None, false) => "what signed before: the revoked key did not sign any more, or not yet".to_owned(),
    };
    let by_key = rule.selector.as_ref().map(|selector| selector.key_id.clone()).unwrap_or_default();
    facts(&[
        ("revoked", by_key),
        ("rule", rule.id.clone()),
        ("position", rule.position.to_string()),
        ("reason", rule.reason.clone()),
        ("signs instead", instead),
        ("new ones", "they may ask again now".to_owned()),
        (
            "offline",
            format!(
                "verifiers that cached the keys, and hear of no revocations, may accept what the revoked key signs for up to \
                 {} s more, by whoever has it",
                answer.refresh_secs
            ),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str, stage: v1::KeyStage) -> v1::KeyInfo {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let signs = stage != v1::KeyStage::Next;
        v1::KeyInfo {
            id: id.to_owned(),
            purpose: "access-token".to_owned(),
            algorithm: "ES256".to_owned(),
            stage: stage.into(),
            since: at(1_795_435_200),
            created_at: at(1_795_435_200),
            signs_from: at(1_795_435_800).filter(|_| !signs),
            signs_until: at(1_795_435_800).filter(|_| signs),
            published_until: at(1_795_525_800).filter(|_| signs),
            kek_generation: 1,
        }
    }

    #[test]
    fn keys_as_text_and_json() {
        let keys = [key("one", v1::KeyStage::Active), key("two", v1::KeyStage::Next)];
        insta::assert_snapshot!("keys_text", list_text(&keys));
        insta::assert_snapshot!("key_json", serde_json::to_string_pretty(&view(&keys[1])).unwrap());
    }

    #[test]
    fn what_a_rotation_costs_is_said() {
        let answer = |stage| v1::RotateKeyResponse { key: Some(key("two", stage)), refresh_secs: 300 };
        insta::assert_snapshot!("rotated_text", rotate_text(&answer(v1::KeyStage::Next)));
        insta::assert_snapshot!("rotated_now_text", rotate_text(&answer(v1::KeyStage::Active)));
    }

    #[test]
    fn what_a_revoked_key_leaves_is_said() {
        let answer = v1::RevokeKeyResponse {
            rule: Some(v1::Rule {
                id: "01995c5e-0000-7000-8000-000000000009".to_owned(),
                position: 12,
                selector: Some(v1::Selector { key_id: "one".to_owned(), ..Default::default() }),
                reason: "it leaked".to_owned(),
                ..Default::default()
            }),
            instead: Some(key("two", v1::KeyStage::Active)),
            was_active: true,
            refresh_secs: 300,
        };
        insta::assert_snapshot!("key_revoked_text", revoke_text(&answer));
        let imported = v1::RevokeKeyResponse { instead: None, ..answer };
        assert!(revoke_text(&imported).contains("until a key is imported"));
    }
}
