//! What the broker serves to anyone over HTTPS beside gRPC: its audit log's checkpoints, tiles and proofs.

use std::future::poll_fn;
use std::pin::Pin;

use http::{Request, StatusCode, Uri};
use http_body::Body as _;
use tokio::time::timeout;
use tonic::Code;
use tonic::client::GrpcService as _;

use crate::client::Client;
use crate::error::{Error, Rejected};

/// The most bytes of an answer: a tile has 8 KiB, and a proof less.
const BYTES: usize = 256 * 1024;

impl Client {
    /// What the broker serves at this path, such as `/log/checkpoint`. It brings no token.
    ///
    /// # Errors
    /// [`Error::Rejected`] where the broker serves nothing there, with the reason in its message; what is larger than
    /// anything it serves there is [`Error::Malformed`].
    pub async fn fetch(&self, path: &str) -> Result<Vec<u8>, Error> {
        let within = self.parts().call_timeout;
        match timeout(within, self.fetch_whole(path)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(Error::Deadline { within, last: None }),
        }
    }

    async fn fetch_whole(&self, path: &str) -> Result<Vec<u8>, Error> {
        let uri: Uri = path.parse().map_err(|_| Error::Config(format!("{path} is no path")))?;
        let mut request = Request::new(tonic::body::Body::empty());
        *request.uri_mut() = uri;
        let broken = |error: &dyn std::error::Error| Error::Unreachable(error.to_string());
        let mut channel = self.parts().channel.clone();
        poll_fn(|context| channel.poll_ready(context)).await.map_err(|error| broken(&error))?;
        let (head, mut body) = channel.call(request).await.map_err(|error| broken(&error))?.into_parts();
        let mut content = Vec::new();
        while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() else { continue };
            content.extend_from_slice(&data);
            if content.len() > BYTES {
                return Err(Error::Malformed("end within 256 KiB"));
            }
        }
        if head.status == StatusCode::OK {
            return Ok(content);
        }
        let said = String::from_utf8_lossy(&content).trim().chars().take(500).collect::<String>();
        let message = format!("{path}: {}: {said}", head.status.as_u16());
        let code = match head.status {
            StatusCode::NOT_FOUND => Code::NotFound,
            StatusCode::BAD_REQUEST => Code::InvalidArgument,
            StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
            _ => Code::Unknown,
        };
        let metadata = std::collections::BTreeMap::new();
        Err(Error::Rejected(Box::new(Rejected { code, reason: None, message, metadata, retry_after: None })))
    }
}
