//! Where checkpoints go beside HTTPS: a file that only grows, and standard output. Each sink has a thread of its own, so that
//! one that hangs keeps nobody waiting for long.

use std::fs::OpenOptions;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use tokio::sync::watch;

use crate::config::LogConfig;

/// How soon a sink is tried again that did not take a checkpoint.
const AGAIN: Duration = Duration::from_secs(5);
/// How long all sinks together are waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// The sinks of a configuration. What one could not take is tried again; of several, the newest: it covers the others.
pub(crate) struct Sinks(Vec<Sink>);

struct Sink {
    name: String,
    give: Sender<(u64, Arc<str>)>,
    /// Up to which size it has them, or could not take them.
    tried: watch::Receiver<u64>,
}

#[derive(Clone)]
enum To {
    File(PathBuf),
    Stdout,
}

impl Sinks {
    pub(crate) fn start(config: &LogConfig) -> std::io::Result<Self> {
        let file = config.checkpoint_file.clone().map(To::File);
        let stdout = config.checkpoint_stdout.then_some(To::Stdout);
        Ok(Self(file.into_iter().chain(stdout).map(Sink::start).collect::<Result<_, _>>()?))
    }

    /// Gives a checkpoint to each, and waits a short while until they have it.
    pub(crate) async fn take(&self, size: u64, note: Arc<str>) {
        for sink in &self.0 {
            // A thread that has ended told why.
            let _ = sink.give.send((size, Arc::clone(&note)));
        }
        let all = async {
            for sink in &self.0 {
                let _ = sink.tried.clone().wait_for(|tried| *tried >= size).await;
            }
        };
        if tokio::time::timeout(PATIENCE, all).await.is_err() {
            let late = self.0.iter().filter(|sink| *sink.tried.borrow() < size);
            let late: Vec<_> = late.map(|sink| sink.name.as_str()).collect();
            tracing::warn!(
                sinks = late.join(", "),
                "a checkpoint is not taken yet: nothing waits for it any longer"
            );
        }
    }
}

impl Sink {
    fn start(to: To) -> std::io::Result<Self> {
        let (give, given) = channel();
        let (tell, tried) = watch::channel(0);
        let name = to.name();
        let thread = std::thread::Builder::new().name("checkpoint-sink".to_owned());
        thread.spawn(move || work(&to, &given, &tell))?;
        Ok(Self { name, give, tried })
    }
}

/// Writes what comes, until nothing can come any more.
fn work(to: &To, given: &Receiver<(u64, Arc<str>)>, tell: &watch::Sender<u64>) {
    let (mut left, mut failed): (Option<(u64, Arc<str>)>, bool) = (None, false);
    loop {
        let next = match &left {
            None => given.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(_) => given.recv_timeout(AGAIN),
        };
        match next {
            Ok(next) => left = Some(next),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while let Ok(newer) = given.try_recv() {
            left = Some(newer);
        }
        let Some((size, note)) = &left else { continue };
        let size = *size;
        match to.write(note) {
            Ok(()) => {
                if failed {
                    tracing::info!(sink = to.name(), "checkpoints are taken again");
                }
                (left, failed) = (None, false);
            }
            Err(error) => {
                if !failed {
                    tracing::error!(sink = to.name(), %error, "a checkpoint is not taken: it is tried again");
                }
                failed = true;
            }
        }
        tell.send_replace(size);
    }
}

impl To {
    fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Stdout => "standard output".to_owned(),
        }
    }

    fn write(&self, note: &str) -> std::io::Result<()> {
        match self {
            Self::File(path) => append(path, note),
            Self::Stdout => {
                let mut out = std::io::stdout().lock();
                out.write_all(format!("{note}\n").as_bytes())?;
                out.flush()
            }
        }
    }
}

/// Appends a note and an empty line, durably. What a crash cut off before is ended first.
fn append(path: &Path, note: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
    let cut = if file.seek(SeekFrom::End(0))? == 0 {
        ""
    } else {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last == *b"\n" { "" } else { "\n\n" }
    };
    file.write_all(format!("{cut}{note}\n").as_bytes())?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_gets_each_checkpoint_and_what_it_missed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoints");
        let config = LogConfig { checkpoint_file: Some(path.clone()), ..LogConfig::default() };
        let sinks = Sinks::start(&config).unwrap();
        sinks.take(1, "one\n\nsigned\n".into()).await;
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"cut").unwrap();
        sinks.take(2, "two\n\nsigned\n".into()).await;
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\n\nsigned\n\ncut\n\ntwo\n\nsigned\n\n");

        // A folder takes nothing; nobody waits for it, and the newest comes when it can.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        sinks.take(3, "three\n".into()).await;
        std::fs::remove_dir(&path).unwrap();
        sinks.take(4, "four\n".into()).await;
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "four\n\n");
    }
}
