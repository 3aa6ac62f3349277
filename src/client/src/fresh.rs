//! A credential that is replaced before it ends.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dayfly_api::v1;
use dayfly_core::ports::Clock;
use dayfly_core::time::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::client::Client;
use crate::credential::Credential;
use crate::error::Error;
use crate::retry::{Backoff, fraction};

/// What a credential is given up before its end: its times are whole seconds, and the answer took a while.
const MARGIN: Duration = Duration::from_secs(1);
/// The clocks are looked at this often while waiting, since timers stand still while a machine is suspended.
const LOOK: Duration = Duration::from_secs(5);

/// A credential that is kept fresh in the background: it is renewed at 70 % of its life (a little earlier, never the same
/// for two holders), or issued anew where the broker says that it cannot be renewed. It stops when dropped. It has no
/// `Debug`.
pub struct Fresh {
    held: Arc<Held>,
    state: watch::Receiver<State>,
    task: JoinHandle<()>,
}

/// How keeping fresh goes.
#[derive(Debug, Clone)]
pub struct State {
    /// Counts the credentials, from 1: a change says that there is a new one.
    pub serial: u64,
    /// Why the last refresh failed; none when it did not. Refreshing goes on.
    pub error: Option<Error>,
}

struct Held {
    clock: Arc<dyn Clock>,
    now: Mutex<Kept>,
}

/// A credential, and when it was asked for by both clocks: what runs faster counts, and a caller's clock that is off
/// does not.
#[derive(Clone)]
struct Kept {
    credential: Arc<Credential>,
    wall: Timestamp,
    monotonic: Duration,
}

impl Kept {
    fn age(&self, clock: &dyn Clock) -> Duration {
        clock.now().since(self.wall).max(clock.monotonic().saturating_sub(self.monotonic))
    }
}

impl Fresh {
    pub(crate) async fn start(client: Client, request: v1::IssueRequest) -> Result<Self, Error> {
        let first = ask(&client, &request, None).await?;
        let held = Arc::new(Held { clock: Arc::clone(&client.parts().clock), now: Mutex::new(first) });
        let (sender, state) = watch::channel(State { serial: 1, error: None });
        let task = tokio::spawn(keep(client, request, Arc::clone(&held), sender));
        Ok(Self { held, state, task })
    }

    /// The credential now. Never an expired one.
    ///
    /// # Errors
    /// [`Error::Stale`] when it has expired and could not be refreshed; it holds why.
    pub fn current(&self) -> Result<Arc<Credential>, Error> {
        let kept = self.held.get();
        if kept.age(&*self.held.clock) + MARGIN < kept.credential.life {
            return Ok(kept.credential);
        }
        let why = self.state.borrow().error.clone();
        let why = why.unwrap_or_else(|| Error::Unreachable("the refresh is under way".to_owned()));
        Err(Error::Stale(Box::new(why)))
    }

    /// Tells of each new credential, and of each refresh that failed.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.clone()
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Held {
    fn get(&self) -> Kept {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn put(&self, kept: Kept) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = kept;
    }
}

/// Refreshes until the handle is dropped.
async fn keep(client: Client, request: v1::IssueRequest, held: Arc<Held>, state: watch::Sender<State>) {
    let rng = Arc::clone(&client.parts().rng);
    loop {
        let kept = held.get();
        // Up to a tenth earlier, never later.
        let due = kept.credential.renew_after.mul_f64(1.0 - 0.1 * fraction(&*rng));
        while let Some(left) = due.checked_sub(kept.age(&*held.clock)).filter(|left| !left.is_zero()) {
            sleep(left.min(LOOK)).await;
        }
        for failures in 1.. {
            match ask(&client, &request, Some(&kept.credential)).await {
                Ok(kept) => {
                    held.put(kept);
                    state.send_modify(|state| *state = State { serial: state.serial + 1, error: None });
                    break;
                }
                Err(error) => {
                    let pause = Backoff::REFRESH.pause(failures, error.retry_after(), &*rng);
                    state.send_modify(|state| state.error = Some(error));
                    sleep(pause).await;
                }
            }
        }
    }
}

/// The next credential, in the place of this one where there is one. Each is a new request: a repeated key would give the
/// same lease again.
async fn ask(
    client: &Client,
    request: &v1::IssueRequest,
    earlier: Option<&Credential>,
) -> Result<Kept, Error> {
    let clock = &client.parts().clock;
    let (wall, monotonic) = (clock.now(), clock.monotonic());
    let renewed = match earlier {
        Some(earlier) if !earlier.lease.id.is_empty() => renew(client, request, earlier).await?,
        _ => None,
    };
    let credential = if let Some(credential) = renewed {
        credential
    } else {
        let request = v1::IssueRequest { idempotency_key: String::new(), ..request.clone() };
        client.issue(request).await?
    };
    Ok(Kept { credential: Arc::new(credential), wall, monotonic })
}

/// None where the broker says that it is to be issued anew.
async fn renew(
    client: &Client,
    request: &v1::IssueRequest,
    earlier: &Credential,
) -> Result<Option<Credential>, Error> {
    let renewal =
        v1::RenewRequest { lease: earlier.lease.id.clone(), ttl: request.ttl, ..v1::RenewRequest::default() };
    match client.renew(renewal).await {
        Ok(credential) => Ok(Some(credential)),
        Err(error) if error.asks_for_issue() => {
            tracing::debug!(reason = error.reason(), "issuing anew");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
