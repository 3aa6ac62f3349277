//! A watch over the caller's own leases, which calls again where it is cut.

use dayfly_api::v1;
use tonic::Streaming;

use crate::client::Client;
use crate::error::Error;
use crate::stream;

/// A watch over the caller's own leases. Where the stream is cut, it calls again, with the token that is there then, and
/// the broker begins with what is: nothing is missed but states in between.
pub struct Watch {
    client: Client,
    stream: Option<Streaming<v1::WatchMyLeasesResponse>>,
    failures: u32,
}

impl Watch {
    pub(crate) async fn start(client: Client) -> Result<Self, Error> {
        let stream = Some(client.watch_once().await?);
        Ok(Self { client, stream, failures: 0 })
    }

    /// What there is to tell next. A message without leases is a heartbeat.
    ///
    /// # Errors
    /// When the broker refuses for a reason that calling again does not help. To go on anyway, ask again.
    pub async fn next(&mut self) -> Result<v1::WatchMyLeasesResponse, Error> {
        loop {
            let failed = match &mut self.stream {
                None => match self.client.watch_once().await {
                    Ok(stream) => {
                        self.stream = Some(stream);
                        continue;
                    }
                    Err(error) => error,
                },
                Some(stream) => match stream::message(stream).await {
                    Ok(message) => {
                        self.failures = 0;
                        return Ok(message);
                    }
                    Err(error) => error,
                },
            };
            self.stream = None;
            stream::rest(&self.client, &mut self.failures, failed).await?;
        }
    }
}
