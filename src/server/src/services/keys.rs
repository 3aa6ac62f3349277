//! The signing keys' RPCs of `OperatorService`.

use dayfly_api::v1;
use dayfly_broker::Broker;
use dayfly_core::keeper::KeyState;
use dayfly_core::signing::{KeyPurpose, KeyStage};
use dayfly_core::time::Timestamp;
use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::reject;

pub(super) async fn list(
    broker: &Broker,
    request: Request<v1::ListKeysRequest>,
) -> Result<Response<v1::ListKeysResponse>, Status> {
    let by = Caller::operator(&request)?;
    let gone = request.into_inner().include_gone;
    let keys = broker.list_keys(by.by(), gone).await.map_err(reject::status)?;
    Ok(Response::new(v1::ListKeysResponse { keys: keys.iter().map(info).collect() }))
}

pub(super) async fn rotate(
    broker: &Broker,
    request: Request<v1::RotateKeyRequest>,
) -> Result<Response<v1::RotateKeyResponse>, Status> {
    let by = Caller::operator(&request)?;
    let v1::RotateKeyRequest { purpose, now } = request.into_inner();
    let purpose: KeyPurpose = purpose.parse().map_err(|error| reject::field("purpose", &error))?;
    let key = broker.rotate_key(by.by(), &purpose, now).await.map_err(reject::status)?;
    let refresh_secs = refresh_secs(broker);
    Ok(Response::new(v1::RotateKeyResponse { key: Some(info(&key)), refresh_secs }))
}

pub(super) async fn revoke(
    broker: &Broker,
    request: Request<v1::RevokeKeyRequest>,
) -> Result<Response<v1::RevokeKeyResponse>, Status> {
    let by = Caller::operator(&request)?;
    let v1::RevokeKeyRequest { key_id, reason } = request.into_inner();
    let key = key_id.parse().map_err(|error| reject::field("key_id", &error))?;
    let revoked = broker.revoke_key(by.by(), &key, &reason).await.map_err(reject::status)?;
    Ok(Response::new(v1::RevokeKeyResponse {
        rule: Some(dayfly_api::rule(&revoked.rule)),
        instead: revoked.instead.as_ref().map(info),
        was_active: revoked.was_active,
        refresh_secs: refresh_secs(broker),
    }))
}

fn refresh_secs(broker: &Broker) -> u32 {
    u32::try_from(broker.key_refresh().as_secs()).unwrap_or(u32::MAX)
}

fn info(key: &KeyState) -> v1::KeyInfo {
    let stage = match key.stage {
        KeyStage::Next => v1::KeyStage::Next,
        KeyStage::Active => v1::KeyStage::Active,
        KeyStage::Retiring => v1::KeyStage::Retiring,
        KeyStage::Retired => v1::KeyStage::Retired,
        KeyStage::Revoked => v1::KeyStage::Revoked,
    };
    let time = |time: Timestamp| dayfly_api::timestamp(time);
    v1::KeyInfo {
        id: key.id.to_string(),
        purpose: key.purpose.to_string(),
        algorithm: key.purpose.algorithm.to_string(),
        stage: stage.into(),
        since: Some(time(key.since)),
        created_at: Some(time(key.created_at)),
        signs_from: key.signs_from.map(time),
        signs_until: key.signs_until.map(time),
        published_until: key.published_until.map(time),
        kek_generation: key.generation,
    }
}
