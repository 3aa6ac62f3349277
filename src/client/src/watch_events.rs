//! A watch over events of the audit log, which goes on where it is cut.

use dayfly_api::v1;
use tonic::Streaming;

use crate::client::Client;
use crate::error::Error;
use crate::stream;

/// A watch over events, as an operator. Where the stream is cut, it calls again, with the token that is there then, and goes
/// on after the last message: each event is told once, and none is missed.
pub struct EventWatch {
    client: Client,
    request: v1::WatchEventsRequest,
    stream: Option<Streaming<v1::WatchEventsResponse>>,
    failures: u32,
}

impl EventWatch {
    pub(crate) async fn start(client: Client, request: v1::WatchEventsRequest) -> Result<Self, Error> {
        let stream = Some(client.watch_events_once(request.clone()).await?);
        Ok(Self { client, request, stream, failures: 0 })
    }

    /// What there is to tell next. A message without events is a heartbeat.
    ///
    /// # Errors
    /// When the broker refuses for a reason that calling again does not help. To go on anyway, ask again.
    pub async fn next(&mut self) -> Result<v1::WatchEventsResponse, Error> {
        loop {
            let failed = match &mut self.stream {
                None => match self.client.watch_events_once(self.request.clone()).await {
                    Ok(stream) => {
                        self.stream = Some(stream);
                        continue;
                    }
                    Err(error) => error,
                },
                Some(stream) => match stream::message(stream).await {
                    Ok(message) => {
                        self.failures = 0;
                        self.request.resume.clone_from(&message.resume);
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
