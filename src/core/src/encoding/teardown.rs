//! How far the teardown of what a rule covers has come, and what was spelled out of it.

use prost::Message;

use super::{BadRecord, Reader};
use crate::ids::{LeaseId, Position, RuleId};
use crate::teardown::{SpelledLease, Step, StepProgress, Teardown};
use crate::time::Timestamp;

#[derive(Clone, PartialEq, Message)]
struct TeardownRecord {
    #[prost(bytes = "vec", tag = "1")]
    rule: Vec<u8>,
    #[prost(uint64, tag = "2")]
    position: u64,
    #[prost(message, repeated, tag = "3")]
    steps: Vec<StepRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct StepRecord {
    /// 1 spelling out, 2 status list.
    #[prost(uint32, tag = "1")]
    step: u32,
    #[prost(bytes = "vec", tag = "2")]
    after: Vec<u8>,
    #[prost(uint64, tag = "3")]
    done: u64,
    #[prost(bool, tag = "4")]
    complete: bool,
    #[prost(uint32, tag = "5")]
    tries: u32,
    #[prost(string, tag = "6")]
    last_error: String,
    #[prost(uint64, optional, tag = "7")]
    next_try: Option<u64>,
}

/// Leases that follow each other and are for one target are told of together.
#[derive(Clone, PartialEq, Message)]
struct SpelledRecord {
    #[prost(message, repeated, tag = "1")]
    targets: Vec<OfTargetRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct OfTargetRecord {
    #[prost(string, tag = "1")]
    cluster: String,
    #[prost(string, tag = "2")]
    target: String,
    /// 16 bytes each.
    #[prost(bytes = "vec", tag = "3")]
    leases: Vec<u8>,
}

/// A teardown as bytes.
pub fn encode_teardown(teardown: &Teardown) -> Vec<u8> {
    let number = |step: Step| (1..).zip(Step::ALL).find(|(_, one)| *one == step).map_or(0, |(n, _)| n);
    let step = |progress: &StepProgress| StepRecord {
        step: number(progress.step),
        after: progress.after.map(|id| id.to_bytes().to_vec()).unwrap_or_default(),
        done: progress.done,
        complete: progress.complete,
        tries: progress.tries,
        last_error: progress.last_error.clone(),
        next_try: progress.next_try.map(Timestamp::as_millis),
    };
    TeardownRecord {
        rule: teardown.rule.to_bytes().to_vec(),
        position: teardown.position.number(),
        steps: teardown.steps.iter().map(step).collect(),
    }
    .encode_to_vec()
}

/// A teardown from [`encode_teardown`]'s bytes.
///
/// # Errors
/// When they are not a teardown.
pub fn decode_teardown(bytes: &[u8]) -> Result<Teardown, BadRecord> {
    let read = Reader("teardown");
    let record = TeardownRecord::decode(bytes).map_err(|error| read.bad(&error))?;
    let mut teardown =
        Teardown::new(RuleId::from_bytes(read.id(&record.rule)?), Position::new(record.position));
    for record in record.steps {
        let step = (1..).zip(Step::ALL).find(|(number, _)| *number == record.step);
        let (_, step) = step.ok_or_else(|| read.bad(&"it has a step of a newer version"))?;
        teardown.put(StepProgress {
            step,
            after: read.optional_id(&record.after)?.map(LeaseId::from_bytes),
            done: record.done,
            complete: record.complete,
            tries: record.tries,
            last_error: record.last_error,
            next_try: record.next_try.map(Timestamp::from_millis),
        });
    }
    Ok(teardown)
}

/// Leases that were spelled out as bytes.
pub fn encode_spelled(leases: &[SpelledLease]) -> Vec<u8> {
    let mut targets: Vec<OfTargetRecord> = Vec::new();
    for SpelledLease { lease, cluster, target } in leases {
        let (cluster, target) = (cluster.as_str(), target.as_str());
        match targets.last_mut() {
            Some(last) if last.cluster == cluster && last.target == target => {
                last.leases.extend_from_slice(&lease.to_bytes());
            }
            _ => targets.push(OfTargetRecord {
                cluster: cluster.to_owned(),
                target: target.to_owned(),
                leases: lease.to_bytes().to_vec(),
            }),
        }
    }
    SpelledRecord { targets }.encode_to_vec()
}

/// Leases that were spelled out from [`encode_spelled`]'s bytes.
///
/// # Errors
/// When they are not such leases.
pub fn decode_spelled(bytes: &[u8]) -> Result<Vec<SpelledLease>, BadRecord> {
    let read = Reader("list of spelled-out leases");
    let record = SpelledRecord::decode(bytes).map_err(|error| read.bad(&error))?;
    let mut spelled = Vec::new();
    for OfTargetRecord { cluster, target, leases } in record.targets {
        let (ids, rest) = leases.as_chunks::<16>();
        if !rest.is_empty() {
            return Err(read.bad(&"an id is not 16 bytes"));
        }
        for id in ids {
            spelled.push(SpelledLease {
                lease: LeaseId::from_bytes(*id),
                cluster: read.name(&cluster)?,
                target: read.name(&target)?,
            });
        }
    }
    Ok(spelled)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_teardown_and_what_was_spelled_out_read_back() {
        let mut teardown = Teardown::new(RuleId::from_u128(7), Position::new(9));
        assert_eq!(decode_teardown(&encode_teardown(&teardown)), Ok(teardown.clone()));
        for (n, step) in (1..).zip(Step::ALL) {
            teardown.put(StepProgress {
                after: Some(LeaseId::from_u128(n)),
                done: 3,
                complete: n == 1,
                tries: 2,
                last_error: "no".to_owned(),
                next_try: Some(Timestamp::from_millis(5)),
                ..StepProgress::new(step)
            });
            assert_eq!(decode_teardown(&encode_teardown(&teardown)), Ok(teardown.clone()));
        }
        let of = |lease, target: &str| SpelledLease {
            lease: LeaseId::from_u128(lease),
            cluster: "east".parse().unwrap(),
            target: target.parse().unwrap(),
        };
        let spelled = [of(1, "orders"), of(2, "orders"), of(3, "ledger"), of(4, "orders")];
        assert_eq!(decode_spelled(&encode_spelled(&spelled)).unwrap(), spelled);
        assert_eq!(decode_spelled(&[]).unwrap(), []);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = decode_teardown(&bytes);
            let _ = decode_spelled(&bytes);
        }
    }
}
