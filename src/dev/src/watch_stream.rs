//! WATCH: newline-delimited JSON events from a resource version on, with bookmarks.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tokio_stream::wrappers::ReceiverStream;

use crate::http::App;
use crate::kind::Kind;
use crate::objects::Happening;
use crate::refusal::Refusal;
use crate::view::View;

/// How often a watch that asked for bookmarks gets one.
const BOOKMARKS: Duration = Duration::from_secs(2);
/// How long a watch lasts that does not say.
const LONGEST: Duration = Duration::from_secs(1800);

/// What to watch.
pub(crate) struct Watch {
    pub(crate) kind: Kind,
    pub(crate) namespace: Option<String>,
    /// None or 0: begin with what is there.
    pub(crate) since: Option<u64>,
    pub(crate) bookmarks: bool,
    /// Mark the end of what was there with a bookmark (`sendInitialEvents`).
    pub(crate) marks_initial: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) view: View,
}

/// The stream of what happens, until the watcher goes, its time is up, or the stand-in stops.
pub(crate) fn body(app: Arc<App>, watch: Watch) -> Body {
    let (sender, receiver) = tokio::sync::mpsc::channel(64);
    tokio::spawn(async move {
        // An error is only ever that nobody listens any more.
        let _ = watch.follow(&app, &sender).await;
    });
    Body::from_stream(ReceiverStream::new(receiver))
}

/// Nobody listens any more.
struct Gone;

type Lines = Sender<Result<String, Infallible>>;

impl Watch {
    async fn follow(&self, app: &App, lines: &Lines) -> Result<(), Gone> {
        let mut news = app.objects.subscribe();
        let mut stopping = app.stopping.clone();
        let mut since = match self.since {
            Some(since) if since > 0 => since,
            _ => self.begin(app, lines).await?,
        };
        let mut bookmarks = interval_at(Instant::now() + BOOKMARKS, BOOKMARKS);
        bookmarks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = sleep(self.timeout.unwrap_or(LONGEST));
        tokio::pin!(end);
        loop {
            news.borrow_and_update();
            match app.objects.events(self.kind, self.namespace.as_deref(), since) {
                Ok((version, events)) => {
                    for event in events {
                        self.say(lines, event.happening, &event.object).await?;
                    }
                    since = version;
                }
                Err(expired) => return self.refuse(lines, &expired).await,
            }
            tokio::select! {
                changed = news.changed() => changed.map_err(|_| Gone)?,
                _ = bookmarks.tick(), if self.bookmarks => self.bookmark(lines, since, json!({})).await?,
                () = &mut end => return Ok(()),
                () = lines.closed() => return Err(Gone),
                _ = stopping.changed() => return Ok(()),
            }
        }
    }

    async fn begin(&self, app: &App, lines: &Lines) -> Result<u64, Gone> {
        let (version, objects) = app.objects.list(self.kind, self.namespace.as_deref());
        for object in objects {
            self.say(lines, Happening::Added, &object).await?;
        }
        if self.marks_initial {
            self.bookmark(lines, version, json!({"k8s.io/initial-events-end": "true"})).await?;
        }
        Ok(version)
    }

    async fn say(&self, lines: &Lines, happening: Happening, object: &Value) -> Result<(), Gone> {
        if !self.view.selects(object) {
            return Ok(());
        }
        let object = self.view.of(object.clone());
        send(lines, &json!({"type": happening.name(), "object": object})).await
    }

    async fn bookmark(&self, lines: &Lines, version: u64, annotations: Value) -> Result<(), Gone> {
        let mut object =
            self.view.of(json!({"kind": self.kind.name(), "apiVersion": self.kind.api_version()}));
        object["metadata"] = json!({
            "resourceVersion": version.to_string(),
            "creationTimestamp": null,
            "annotations": annotations,
        });
        if self.kind == Kind::Pod && !self.view.metadata_only {
            object["spec"] = json!({"containers": null});
        }
        send(lines, &json!({"type": "BOOKMARK", "object": object})).await
    }

    async fn refuse(&self, lines: &Lines, why: &Refusal) -> Result<(), Gone> {
        send(lines, &json!({"type": "ERROR", "object": why.to_value()})).await
    }
}

async fn send(lines: &Lines, event: &Value) -> Result<(), Gone> {
    lines.send(Ok(format!("{event}\n"))).await.map_err(|_| Gone)
}
