//! An exported log: a line of JSON for each record.

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum;
use dayfly_client::v1;
use dayfly_core::audit::{Event, EventRecord};
use dayfly_core::merkle::leaf_hash;
use serde::{Deserialize, Serialize};

use super::ocsf;
use super::view::EventView;

/// The form of the lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// The event, with its record at `record`.
    #[default]
    Jsonl,
    /// An event of the Open Cybersecurity Schema Framework, with the record at `unmapped.dayfly.record`.
    Ocsf,
}

/// A record of the log, in base64: with it the log can be checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RecordView {
    pub(super) position: u64,
    pub(super) leaf_hash: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    leaf: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    salt: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    detail: String,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    event: EventView<'a>,
    record: RecordView,
}

/// What a line of either form says of its record.
#[derive(Deserialize)]
struct Said {
    record: Option<RecordView>,
    unmapped: Option<Unmapped>,
}

#[derive(Deserialize)]
struct Unmapped {
    dayfly: InDayfly,
}

#[derive(Deserialize)]
struct InDayfly {
    record: RecordView,
}

impl RecordView {
    pub(super) fn of(record: &v1::EventRecord) -> Self {
        let v1::EventRecord { position, leaf_hash, leaf, salt, detail } = record;
        let [leaf_hash, leaf, salt, detail] =
            [leaf_hash, leaf, salt, detail].map(|bytes| STANDARD.encode(bytes));
        Self { position: *position, leaf_hash, leaf, salt, detail }
    }

    /// Whether it agrees with itself.
    fn check(&self) -> anyhow::Result<()> {
        let leaf = STANDARD.decode(&self.leaf)?;
        let hash = STANDARD.decode(&self.leaf_hash)?;
        anyhow::ensure!(leaf.is_empty() || leaf_hash(&leaf).as_slice() == hash, "its leaf has another hash");
        Ok(())
    }
}

impl Format {
    /// A record's line, without its end. What does not agree with itself is refused.
    pub(super) fn line(self, record: &v1::EventRecord) -> anyhow::Result<String> {
        let event = read(record).with_context(|| format!("record {}", record.position))?;
        let told = dayfly_api::event(&event);
        let view = RecordView::of(record);
        Ok(match self {
            Self::Jsonl => serde_json::to_string(&Line { event: (&told).into(), record: view })?,
            Self::Ocsf => serde_json::to_string(&ocsf::event(&event, &told, &view)?)?,
        })
    }

    /// The record of a line of this form.
    pub(super) fn record(self, line: &str) -> anyhow::Result<RecordView> {
        let said: Said = serde_json::from_str(line).context("it is no line of an export")?;
        let record = match (self, said.record, said.unmapped) {
            (Self::Jsonl, Some(record), _) => record,
            (Self::Ocsf, None, Some(unmapped)) => unmapped.dayfly.record,
            _ => anyhow::bail!("it is not of the --format that is asked for"),
        };
        record.check()?;
        Ok(record)
    }
}

/// The event of a record, checked.
fn read(record: &v1::EventRecord) -> anyhow::Result<Event> {
    let v1::EventRecord { position, leaf_hash, leaf, salt, detail } = record.clone();
    let event = EventRecord { leaf, salt, detail }.read()?;
    anyhow::ensure!(
        event.position.number() == position && event.leaf_hash.as_slice() == leaf_hash,
        "its leaf is not of this position"
    );
    Ok(event)
}

#[cfg(test)]
pub(super) mod tests {
    use dayfly_core::audit::{Detail, Draft, EventKind, SALT_BYTES};
    use dayfly_core::ids::Position;
    use dayfly_core::time::Timestamp;

    use super::*;

    pub(crate) fn issued() -> Draft {
        let detail = Detail {
            workload: "east:payments:api".to_owned(),
            service_account_uid: "0192f0c1-5d0e-7a39-8b1d-2f6a1c9e4b71".to_owned(),
            pod: "api-0/0192f0c1-5d0e-7a39-8b1d-2f6a1c9e4b72".to_owned(),
            owners: vec!["payments".to_owned()],
            target: "orders".to_owned(),
            expires_at_secs: 1_795_436_100,
            ..Detail::default()
        };
        Draft { kind: EventKind::Issued, subject: Some([7; 16]), detail }
    }

    pub(crate) fn placed(draft: &Draft, position: u64) -> v1::EventRecord {
        let at = Timestamp::from_millis(1_795_435_200_250);
        let (record, _) = draft.place(Position::new(position), at, [9; SALT_BYTES]);
        dayfly_api::event_record(Position::new(position), record)
    }

    #[test]
    fn a_line_has_the_record_and_it_reads_back() {
        let record = placed(&issued(), 3);
        for format in [Format::Jsonl, Format::Ocsf] {
            let line = format.line(&record).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(format.record(&line).unwrap(), RecordView::of(&record));
        }
        let line = Format::Jsonl.line(&record).unwrap();
        assert!(Format::Ocsf.record(&line).unwrap_err().to_string().contains("--format"));
        let changed = line.replace("\"leaf\":\"", "\"leaf\":\"AAAA");
        assert!(Format::Jsonl.record(&changed).is_err());
        assert!(Format::Jsonl.record(&line[..line.len() / 2]).is_err());
    }

    #[test]
    fn what_is_forgotten_is_left_out() {
        let whole = placed(&issued(), 3);
        let forgotten = v1::EventRecord { salt: Vec::new(), detail: Vec::new(), ..whole.clone() };
        let line = Format::Jsonl.line(&forgotten).unwrap();
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["forgotten"], true);
        assert_eq!(value["record"]["leaf_hash"], STANDARD.encode(&whole.leaf_hash));
        assert!(value["record"].get("detail").is_none() && value["record"].get("salt").is_none());
    }

    #[test]
    fn a_record_that_does_not_agree_with_itself_is_refused() {
        let whole = placed(&issued(), 3);
        let changed = [
            v1::EventRecord { position: 4, ..whole.clone() },
            v1::EventRecord { detail: vec![1], ..whole.clone() },
            v1::EventRecord { leaf_hash: vec![0; 32], ..whole },
        ];
        for record in changed {
            assert!(Format::Jsonl.line(&record).is_err());
        }
    }
}
