//! What a backup holds: records, one after the other. Done in order on an empty database they make the store.
//!
//! | record | is |
//! |---|---|
//! | `+` length of the key (2 bytes), of the value (4 bytes), key, value | this key has this value |
//! | `-` length of the key, key | this key is not there |
//! | `.` length (4 bytes), a [`Point`] | the end: what the store is now |
//!
//! Numbers are big-endian.

use dayfly_core::change::Mark;
use dayfly_core::ids::{Incarnation, InstanceId, LeaseId, Position};
use dayfly_core::limits::STORED_VALUE_BYTES;
use prost::Message as _;

use crate::backup::Point;
use crate::layout;

/// More than any key has, in bytes.
const KEY_BYTES: usize = 1024;
/// More than any value has, in bytes.
const VALUE_BYTES: usize = STORED_VALUE_BYTES + 4096;

/// What one record says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    Put { key: &'a [u8], value: &'a [u8] },
    Remove { key: &'a [u8] },
    End(Point),
}

/// The end's record.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct End {
    #[prost(uint32, tag = "1")]
    format: u32,
    #[prost(bytes = "vec", tag = "2")]
    instance: Vec<u8>,
    #[prost(uint32, tag = "3")]
    incarnation: u32,
    #[prost(uint64, tag = "4")]
    position: u64,
    #[prost(bytes = "vec", tag = "5")]
    highest: Vec<u8>,
    #[prost(bytes = "vec", tag = "6")]
    root: Vec<u8>,
    #[prost(uint64, tag = "7")]
    leases: u64,
}

pub(crate) fn put(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    out.push(b'+');
    out.extend(u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(value);
}

pub(crate) fn remove(out: &mut Vec<u8>, key: &[u8]) {
    out.push(b'-');
    out.extend(u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(key);
}

pub(crate) fn end(out: &mut Vec<u8>, point: &Point) {
    let end = End {
        format: layout::FORMAT,
        instance: point.mark.instance.to_bytes().to_vec(),
        incarnation: point.mark.incarnation.0,
        position: point.mark.position.number(),
        highest: point.mark.highest.to_bytes().to_vec(),
        root: point.root.to_vec(),
        leases: point.leases,
    };
    let bytes = end.encode_to_vec();
    out.push(b'.');
    out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(bytes);
}

/// The first record, and how many bytes it has; none where it is not all there yet.
///
/// # Errors
/// What is wrong with it, in words.
pub(crate) fn first(bytes: &[u8]) -> Result<Option<(Record<'_>, usize)>, &'static str> {
    let Some((kind, rest)) = bytes.split_first() else { return Ok(None) };
    let read = match kind {
        b'+' => read_put(rest)?,
        b'-' => read_remove(rest)?,
        b'.' => read_end(rest)?,
        _ => return Err("there is a record of an unknown kind"),
    };
    Ok(read.map(|(record, left)| (record, bytes.len() - left.len())))
}

type Read<'a> = Result<Option<(Record<'a>, &'a [u8])>, &'static str>;

fn read_put(rest: &[u8]) -> Read<'_> {
    let Some((key, rest)) = rest.split_first_chunk() else { return Ok(None) };
    let Some((value, rest)) = rest.split_first_chunk() else { return Ok(None) };
    let key = key_length(*key)?;
    let value = usize::try_from(u32::from_be_bytes(*value)).unwrap_or(usize::MAX);
    if value > VALUE_BYTES {
        return Err("a value is longer than a store's are");
    }
    let Some((key, rest)) = rest.split_at_checked(key) else { return Ok(None) };
    let Some((value, rest)) = rest.split_at_checked(value) else { return Ok(None) };
    Ok(Some((Record::Put { key, value }, rest)))
}

fn read_remove(rest: &[u8]) -> Read<'_> {
    let Some((key, rest)) = rest.split_first_chunk() else { return Ok(None) };
    let Some((key, rest)) = rest.split_at_checked(key_length(*key)?) else { return Ok(None) };
    Ok(Some((Record::Remove { key }, rest)))
}

fn key_length(bytes: [u8; 2]) -> Result<usize, &'static str> {
    let length = usize::from(u16::from_be_bytes(bytes));
    if length == 0 || length > KEY_BYTES { Err("a key is longer than a store's are") } else { Ok(length) }
}

fn read_end(rest: &[u8]) -> Read<'_> {
    let Some((length, rest)) = rest.split_first_chunk() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > KEY_BYTES {
        return Err("its end is longer than it can be");
    }
    let Some((bytes, rest)) = rest.split_at_checked(length) else { return Ok(None) };
    let end = End::decode(bytes).map_err(|_| "its end does not decode")?;
    if end.format > layout::FORMAT {
        return Err("the store was of a newer format: use the version of Dayfly that took the backup");
    }
    let id = |bytes: &[u8]| bytes.try_into().map_err(|_| "an id in its end is not 16 bytes");
    let mark = Mark {
        instance: InstanceId::from_bytes(id(&end.instance)?),
        incarnation: Incarnation(end.incarnation),
        position: Position::new(end.position),
        highest: LeaseId::from_bytes(id(&end.highest)?),
    };
    let root = end.root.as_slice().try_into().map_err(|_| "the root in its end is not 32 bytes")?;
    Ok(Some((Record::End(Point { mark, root, leases: end.leases }), rest)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written() -> (Vec<u8>, Point) {
        let mark = Mark {
            instance: InstanceId::from_bytes([7; 16]),
            incarnation: Incarnation(3),
            position: Position::new(77),
            highest: LeaseId::from_u128(9),
        };
        let point = Point { mark, root: [5; 32], leases: 12 };
        let mut bytes = Vec::new();
        put(&mut bytes, b"key", b"value");
        put(&mut bytes, b"n", b"");
        remove(&mut bytes, b"key");
        end(&mut bytes, &point);
        (bytes, point)
    }

    #[test]
    fn what_is_written_reads_back_and_a_part_waits_for_the_rest() {
        let (bytes, point) = written();
        let expected = [
            Record::Put { key: b"key", value: b"value" },
            Record::Put { key: b"n", value: b"" },
            Record::Remove { key: b"key" },
            Record::End(point),
        ];
        let mut at = 0;
        for expected in expected {
            let (record, length) = first(&bytes[at..]).unwrap().unwrap();
            assert_eq!(record, expected);
            for cut in 0..length {
                assert_eq!(first(&bytes[at..at + cut]), Ok(None));
            }
            at += length;
        }
        assert_eq!(at, bytes.len());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = first(&bytes);
            let _ = first(&[b"+".as_slice(), &bytes].concat());
            let _ = first(&[b".".as_slice(), &bytes].concat());
        }
    }
}
