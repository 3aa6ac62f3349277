//! `dayfly events export`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use dayfly_client::v1;

use super::lines::{Format, RecordView};
use crate::connect::Connection;
use crate::failure::Usage;
use crate::output;

/// A line of an export is not longer than this, in bytes.
const LINE: u64 = 256 * 1024;

/// From where, in which form, to where.
#[derive(Args)]
pub(crate) struct Export {
    /// The form of the lines.
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    format: Format,
    /// From this position on; else from the first.
    #[arg(long, value_name = "POSITION", value_parser = clap::value_parser!(u64).range(1..))]
    from: Option<u64>,
    /// A new file; else standard output. While it is written it is FILE.partial.
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    out: Option<PathBuf>,
    /// An earlier export: goes on after its last whole line, which is checked against the log. Takes FILE.partial where an
    /// export was interrupted.
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    resume: Option<PathBuf>,
}

/// Where lines go.
enum Place {
    Stdout,
    File {
        /// Its name when it is whole.
        path: PathBuf,
        partial: PathBuf,
        file: File,
    },
}

impl Export {
    /// Asks, and writes.
    pub(super) async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let client = connection.client()?;
        // What is there is looked at before anybody is asked, and changed afterwards.
        let before = self.resume.as_deref().map(|path| self.before(path)).transpose()?;
        if self.out.as_deref().is_some_and(|path| path.exists() || partial(path).exists()) {
            return Err(Usage("the file exists: go on with it by --resume, or name another").into());
        }
        let last = before.as_ref().and_then(|before| before.last.as_ref());
        let from = last.map_or(self.from.unwrap_or(1), |last| last.position);
        let mut stream = client.export_events(from).await?;
        let mut place = self.place(before.as_ref())?;
        let mut repeated = last.cloned();
        let mut written = 0u64;
        loop {
            let message = stream.message().await.map_err(|status| dayfly_client::Error::of_status(&status));
            let Some(message) = message.with_context(|| self.interrupted(written))? else { break };
            for record in &message.records {
                if let Some(last) = repeated.take() {
                    check_same(&last, record)?;
                    continue;
                }
                let line = format!("{}\n", self.format.line(record)?);
                if !place.write(&line)? {
                    return Ok(ExitCode::SUCCESS);
                }
                written += 1;
            }
        }
        place.finish()?;
        eprintln!("{written} records written");
        Ok(ExitCode::SUCCESS)
    }

    /// What to do when it does not come to its end.
    fn interrupted(&self, written: u64) -> String {
        match self.out.as_ref().or(self.resume.as_ref()) {
            Some(path) => format!("after {written} records (go on with --resume {})", path.display()),
            None => format!("after {written} records"),
        }
    }

    /// What is there of an earlier export.
    fn before(&self, path: &Path) -> anyhow::Result<Before> {
        let interrupted = partial(path);
        let found = if interrupted.exists() { interrupted } else { path.to_owned() };
        let shown = found.display();
        let mut file = File::open(&found).with_context(|| format!("cannot go on with {shown}"))?;
        let (whole, line) = last_line(&mut file).with_context(|| format!("cannot read {shown}"))?;
        let last = line.map(|line| self.format.record(&line)).transpose();
        let last = last.with_context(|| format!("the last line of {shown}"))?;
        Ok(Before { found, whole, last })
    }

    fn place(&self, before: Option<&Before>) -> anyhow::Result<Place> {
        let Some(path) = self.out.as_ref().or(self.resume.as_ref()) else { return Ok(Place::Stdout) };
        let (path, partial) = (path.clone(), partial(path));
        let shown = partial.display().to_string();
        let file = match before {
            // It has what teams may not see of each other.
            None => File::options().write(true).create_new(true).mode(0o600).open(&partial),
            Some(Before { found, whole, .. }) => {
                if *found != partial {
                    fs::rename(found, &partial)?;
                }
                File::options().append(true).open(&partial).and_then(|file| {
                    file.set_len(*whole)?;
                    Ok(file)
                })
            }
        };
        let file = file.with_context(|| format!("cannot write {shown}"))?;
        Ok(Place::File { path, partial, file })
    }
}

/// An earlier export.
struct Before {
    found: PathBuf,
    /// Up to here its lines are whole, in bytes.
    whole: u64,
    last: Option<RecordView>,
}

impl Place {
    /// Writes a line at once, and says whether somebody still reads.
    fn write(&mut self, line: &str) -> anyhow::Result<bool> {
        match self {
            Self::Stdout => output::print_on(line),
            Self::File { partial, file, .. } => {
                file.write_all(line.as_bytes())
                    .with_context(|| format!("cannot write {}", partial.display()))?;
                Ok(true)
            }
        }
    }

    /// All is written: the file gets its name.
    fn finish(self) -> anyhow::Result<()> {
        if let Self::File { path, partial, file } = self {
            file.sync_all()?;
            fs::rename(&partial, &path)?;
        }
        Ok(())
    }
}

/// That the log still has what the earlier export ends with.
fn check_same(last: &RecordView, record: &v1::EventRecord) -> anyhow::Result<()> {
    let now = RecordView::of(record);
    anyhow::ensure!(
        (last.position, &last.leaf_hash) == (now.position, &now.leaf_hash),
        "the log has another event at position {} than the file: it is not of this log, or the log was changed",
        last.position
    );
    Ok(())
}

/// The name of a file that is not whole yet.
fn partial(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".partial");
    name.into()
}

/// Where the last whole line ends, and what it is.
fn last_line(file: &mut File) -> anyhow::Result<(u64, Option<String>)> {
    let size = file.metadata()?.len();
    // A line that was cut, and a whole one before it.
    let from = size.saturating_sub(2 * LINE);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else {
        anyhow::ensure!(from == 0, "it has no line");
        return Ok((0, None));
    };
    let lines = bytes.get(..end).unwrap_or_default();
    let start = lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    anyhow::ensure!(start > 0 || from == 0, "its last line is too long");
    let line = String::from_utf8(lines.get(start..).unwrap_or_default().to_vec())?;
    Ok((from + u64::try_from(end)? + 1, Some(line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> (u64, Option<String>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, text).unwrap();
        last_line(&mut File::open(&path).unwrap()).unwrap()
    }

    #[test]
    fn a_line_that_was_cut_is_passed_by() {
        assert_eq!(found(""), (0, None));
        assert_eq!(found("half"), (0, None));
        assert_eq!(found("one\n"), (4, Some("one".to_owned())));
        assert_eq!(found("one\ntwo\nhal"), (8, Some("two".to_owned())));
        let long = "x".repeat(400_000);
        assert_eq!(found(&format!("one\n{long}\ntwo\n")).1.as_deref(), Some("two"));
    }
}
