//! What nothing above it can be faster than: a signature, and a sync of the disk.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use dayfly_core::clock::SystemClock;
use dayfly_core::ports::Clock as _;
use dayfly_jose::SigningKey;
use hdrhistogram::Histogram;

use crate::load::Row;
use crate::number::nanos;

/// ES256 over a payload of this size with the broker's own code, on one core.
pub(crate) fn sign(payload: usize, measure: Duration) -> anyhow::Result<Row> {
    let (key, payload) = (SigningKey::generate()?, vec![b'x'; payload]);
    repeated(measure, || {
        let signed = key.sign_jws("at+jwt", &payload)?;
        anyhow::ensure!(signed.len() > payload.len(), "nothing was signed");
        std::hint::black_box(signed);
        Ok(())
    })
}

/// Appending 4 KiB to a file and syncing it, on the store's file system.
pub(crate) fn fdatasync(dir: &Path, measure: Duration) -> anyhow::Result<Row> {
    let path = dir.join("fdatasync");
    let mut file = fs::File::create(&path)?;
    let row = repeated(measure, || {
        file.write_all(&[0x5A; 4096])?;
        // fdatasync(2).
        Ok(file.sync_data()?)
    });
    fs::remove_file(&path)?;
    row
}

/// One after the other, for as long; the first twentieth is a warm-up.
fn repeated(measure: Duration, mut once: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Row> {
    let clock = SystemClock::new();
    while clock.monotonic() < measure / 20 {
        once()?;
    }
    let mut latencies = Histogram::new(3)?;
    let began = clock.monotonic();
    loop {
        let asked = clock.monotonic();
        let took = asked.saturating_sub(began);
        if took >= measure {
            return Ok(Row::new(&latencies, took));
        }
        once()?;
        latencies.record(nanos(clock.monotonic().saturating_sub(asked)))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_measured() {
        let dir = tempfile::tempdir().unwrap();
        let short = Duration::from_millis(50);
        for row in [sign(600, short).unwrap(), fdatasync(dir.path(), short).unwrap()] {
            assert!(row.measured > 0 && row.p99_us >= row.p50_us, "{row:?}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
