//! The store's RPCs of `OperatorService`: a backup, and adoption.

use dayfly_api::v1;
use dayfly_broker::Broker;
use dayfly_core::limits;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::reject;
use super::stream::{self, Answers, Source};
use crate::backup::{Backups, SealedBackup};

/// The most bytes of one message.
const MESSAGE_BYTES: usize = 512 * 1024;

pub(super) async fn create(
    broker: &Broker,
    backups: &Backups,
    stopped: &watch::Receiver<bool>,
    request: Request<v1::CreateBackupRequest>,
) -> Result<Response<Answers<v1::CreateBackupResponse>>, Status> {
    let by = Caller::operator(&request)?;
    let by = broker.may_back_up(by.by()).await.map_err(reject::status)?;
    let backup = backups.begin(by).await.map_err(crate::backup::BackupFailed::status)?;
    let source = Sent { backup, told: false };
    Ok(Response::new(stream::answers(source, stopped.clone(), limits::SLOW_READER)))
}

pub(super) async fn adopt(
    broker: &Broker,
    request: Request<v1::AdoptStoreRequest>,
) -> Result<Response<v1::AdoptStoreResponse>, Status> {
    let by = Caller::operator(&request)?;
    let adopted = broker.adopt_store(by.by()).await.map_err(reject::status)?;
    Ok(Response::new(v1::AdoptStoreResponse {
        already: adopted.already,
        incarnation: adopted.incarnation.0,
        position: adopted.position.number(),
    }))
}

struct Sent {
    backup: SealedBackup,
    told: bool,
}

impl Source for Sent {
    type Message = v1::CreateBackupResponse;

    async fn next(&mut self) -> Result<Vec<Self::Message>, Status> {
        let data = |bytes: &[u8]| v1::CreateBackupResponse { data: bytes.to_vec(), complete: None };
        match self.backup.next().await.map_err(crate::backup::BackupFailed::status)? {
            Some(bytes) => Ok(bytes.chunks(MESSAGE_BYTES).map(data).collect()),
            None if self.told => Err(Status::ok("")),
            None => {
                self.told = true;
                let complete = self.backup.taken().map(|taken| taken.info());
                Ok(vec![v1::CreateBackupResponse { data: Vec::new(), complete }])
            }
        }
    }
}
