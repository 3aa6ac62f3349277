use dayfly_core::audit::{Draft, EventKind};
use dayfly_core::ids::Position;
use dayfly_core::merkle::root_of;
use dayfly_core::rule::Actor;
use dayfly_core::time::Timestamp;
use serde_json::json;

use super::*;

/// A log of so many events, a line each; every second one as OCSF has it, and the details of every fifth forgotten.
fn lines(count: u64) -> Vec<Value> {
    let line = |position: u64| {
        let draft = Draft::note(EventKind::PolicyChanged, &Actor::dayfly(), format!("event {position}"));
        let (event, hash) = draft.place(Position::new(position), Timestamp::from_secs(position), [7; 16]);
        let encoded = |bytes: &[u8]| STANDARD.encode(bytes);
        let mut record = json!({
            "position": position, "leaf_hash": encoded(&hash), "leaf": encoded(&event.leaf),
        });
        if !position.is_multiple_of(5) {
            record["salt"] = json!(encoded(&event.salt));
            record["detail"] = json!(encoded(&event.detail));
        }
        if position.is_multiple_of(2) {
            json!({ "class_uid": 6003, "unmapped": { "dayfly": { "record": record } } })
        } else {
            json!({ "kind": "policy-changed", "record": record })
        }
    };
    (1..=count).map(line).collect()
}

fn read(lines: &[Value]) -> Export {
    let text = lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    Export::read(text.as_bytes()).unwrap()
}

/// The head of a log that nobody changed.
fn head(size: u64) -> LogHead {
    let leaves: Vec<_> = read(&lines(size)).leaves.into_iter().map(|(_, hash)| hash).collect();
    LogHead { size, root: root_of(&leaves) }
}

fn problems(lines: &[Value]) -> Vec<String> {
    let mut export = read(lines);
    export.check(1, &[head(20), head(40)]);
    export.problems
}

fn record(line: &mut Value) -> &mut Value {
    if line.get("record").is_some() { &mut line["record"] } else { &mut line["unmapped"]["dayfly"]["record"] }
}

/// Changes one byte of a field.
fn flip(lines: &mut [Value], position: usize, field: &str) {
    let field = &mut record(&mut lines[position - 1])[field];
    let mut bytes = STANDARD.decode(field.as_str().unwrap()).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    *field = json!(STANDARD.encode(bytes));
}

#[test]
fn an_export_that_nobody_changed_is_whole() {
    let mut export = read(&lines(45));
    assert_eq!(export.check(1, &[head(40), head(20)]), Some(40));
    assert_eq!(export.problems, [""; 0]);
    assert_eq!(read(&lines(45)).check(1, &[]), None, "nothing to compare with");
    let mut later = read(&lines(45)[30..]);
    assert_eq!((later.check(31, &[head(40)]), later.problems), (None, Vec::new()));
}

#[test]
fn a_changed_byte_is_named() {
    for (field, expected) in [
        ("leaf", "event 17 was changed: its leaf has another hash than its leaf_hash"),
        ("detail", "event 17 was changed: its detail, or its salt, is not what its leaf binds"),
        ("salt", "event 17 was changed: its detail, or its salt, is not what its leaf binds"),
    ] {
        let mut lines = lines(40);
        flip(&mut lines, 17, field);
        assert_eq!(problems(&lines), [expected]);
    }
    // A hash that was changed with it is known by the root alone, between two checkpoints.
    let mut changed = lines(40);
    flip(&mut changed, 27, "leaf");
    let leaf = record(&mut changed[26])["leaf"].as_str().unwrap().to_owned();
    let hash = STANDARD.encode(leaf_hash(&STANDARD.decode(leaf).unwrap()));
    record(&mut changed[26])["leaf_hash"] = json!(hash);
    let told = problems(&changed);
    assert!(told.iter().any(|it| it.contains("of events 21 to 40, at least one was changed")), "{told:?}");
    let mut bare = lines(40);
    record(&mut bare[9]).as_object_mut().unwrap().remove("leaf");
    assert_eq!(problems(&bare), [""; 0], "a leaf may be forgotten");
    let mut alone = lines(40);
    record(&mut alone[10]).as_object_mut().unwrap().remove("leaf");
    assert_eq!(problems(&alone), ["event 11 has a detail, and no leaf that binds it"]);
}

#[test]
fn what_is_missing_moved_or_cut_off_is_named() {
    let mut dropped = lines(40);
    dropped.remove(16);
    assert_eq!(problems(&dropped), ["event 17 is missing"]);
    dropped.drain(20..25);
    assert_eq!(problems(&dropped), ["event 17 is missing", "events 22 to 26 are missing"]);

    let mut swapped = lines(40);
    swapped.swap(16, 17);
    assert_eq!(problems(&swapped), ["event 17 is out of order: it stands after event 18"]);
    // Each in the other's place, by its number.
    let mut renamed = lines(40);
    for (at, position) in [(16, 18), (17, 17)] {
        record(&mut renamed[at])["position"] = json!(position);
    }
    renamed.swap(16, 17);
    let told = problems(&renamed);
    assert!(told.contains(&"event 18 stands as event 17: it was moved".to_owned()), "{told:?}");

    let mut twice = lines(40);
    twice.insert(17, twice[16].clone());
    assert_eq!(problems(&twice), ["event 17 is there twice"]);

    assert_eq!(
        problems(&lines(40)[..33]),
        ["events 34 to 40 are missing: cut off at the end, of 40 that a checkpoint is of"]
    );
    let cut = problems(&lines(40)[3..]);
    assert!(
        cut.len() == 1 && cut[0].starts_with("events 1 to 3 are missing: cut off at the beginning"),
        "{cut:?}"
    );
    assert_eq!(
        problems(&[]),
        ["events 1 to 40 are missing: cut off at the end, of 40 that a checkpoint is of"]
    );
}

#[test]
fn what_is_no_export_is_refused() {
    for bad in [
        "x",
        "{}",
        r#"{"record":{}}"#,
        r#"{"record":{"position":1}}"#,
        r#"{"record":{"position":1,"leaf_hash":"AA=="}}"#,
        r#"{"record":{"position":1,"leaf_hash":1}}"#,
        r#"{"checkpoint":1}"#,
        r#"{"checkpoint":"x"}"#,
    ] {
        assert!(Export::read(bad.as_bytes()).is_err(), "{bad}");
    }
}
