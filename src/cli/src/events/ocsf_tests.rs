use dayfly_core::audit::{Detail, Draft, EventKind};
use serde_json::Value;

use super::super::lines::Format;
use super::super::lines::tests::{issued, placed};

/// What the schema requires of the classes that are used, as JSON Schema.
fn schema() -> Value {
    serde_json::from_str(include_str!("ocsf-1.3.0.schema.json")).unwrap()
}

/// What of a value does not fit a schema: those keywords of JSON Schema that ours uses, and no other.
fn misfits(root: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let Value::Object(keywords) = schema else { panic!("a schema is an object: {schema}") };
    for (keyword, wanted) in keywords {
        let fits = |schema: &Value| {
            let mut inner = Vec::new();
            misfits(root, schema, value, at, &mut inner);
            inner.is_empty()
        };
        let ok = match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" => true,
            "type" => match wanted.as_str().unwrap() {
                "object" => value.is_object(),
                "integer" => value.is_u64() || value.is_i64(),
                "string" => value.is_string(),
                other => panic!("unknown type {other}"),
            },
            "const" => value == wanted,
            "enum" => wanted.as_array().unwrap().contains(value),
            "minLength" => value.as_str().is_some_and(|text| text.len() as u64 >= wanted.as_u64().unwrap()),
            "minimum" => value.as_u64().is_some_and(|number| number >= wanted.as_u64().unwrap()),
            "required" => {
                wanted.as_array().unwrap().iter().all(|name| value.get(name.as_str().unwrap()).is_some())
            }
            "anyOf" => wanted.as_array().unwrap().iter().any(fits),
            "oneOf" => wanted.as_array().unwrap().iter().filter(|one| fits(one)).count() == 1,
            "properties" => {
                for (name, schema) in wanted.as_object().unwrap() {
                    if let Some(part) = value.get(name) {
                        misfits(root, schema, part, &format!("{at}.{name}"), found);
                    }
                }
                true
            }
            "$ref" => {
                let pointer = wanted.as_str().unwrap().trim_start_matches('#');
                misfits(root, root.pointer(pointer).unwrap(), value, at, found);
                true
            }
            other => panic!("the test knows no keyword {other}"),
        };
        if !ok {
            found.push(format!("{at}: {keyword} {wanted}: {value}"));
        }
    }
}

fn check(value: &Value) -> Vec<String> {
    let schema = schema();
    let mut found = Vec::new();
    misfits(&schema, &schema, value, "event", &mut found);
    found
}

/// An event of this kind with all that an event may say; of a workload or of an operator.
fn drafted(kind: EventKind, of_workload: bool) -> Draft {
    let detail = Detail {
        workload: if of_workload { "east:payments:api".to_owned() } else { String::new() },
        actor: if of_workload { String::new() } else { "bob@east".to_owned() },
        reason: "NO_GRANT".to_owned(),
        count: 3,
        first_millis: 1_795_435_200_000,
        last_millis: 1_795_435_201_000,
        pod: "api-0/0192f0c1".to_owned(),
        ..Detail::default()
    };
    Draft { kind, subject: Some([7; 16]), detail }
}

fn mapped(draft: &Draft) -> Value {
    serde_json::from_str(&Format::Ocsf.line(&placed(draft, 3)).unwrap()).unwrap()
}

#[test]
fn every_kind_is_as_the_schema_requires() {
    for kind in EventKind::all() {
        for of_workload in [true, false] {
            let event = mapped(&drafted(kind, of_workload));
            assert_eq!(check(&event), Vec::<String>::new(), "{}", kind.name());
            assert_eq!(event["unmapped"]["dayfly"]["kind"], kind.name());
            let bare = mapped(&Draft { kind, subject: None, detail: Detail::default() });
            assert_eq!(check(&bare), Vec::<String>::new(), "{} without details", kind.name());
        }
    }
}

#[test]
fn what_is_forgotten_is_a_base_event() {
    let mut record = placed(&issued(), 3);
    (record.salt, record.detail) = (Vec::new(), Vec::new());
    let event: Value = serde_json::from_str(&Format::Ocsf.line(&record).unwrap()).unwrap();
    assert_eq!(check(&event), Vec::<String>::new());
    assert_eq!((&event["class_uid"], &event["activity_name"]), (&0.into(), &"issued".into()));
}

#[test]
fn what_the_schema_requires_is_missed() {
    let event = mapped(&issued());
    assert_eq!(check(&event), Vec::<String>::new());
    for name in ["class_uid", "type_uid", "time", "severity_id", "metadata", "user", "service"] {
        let mut without = event.clone();
        without.as_object_mut().unwrap().remove(name);
        assert!(!check(&without).is_empty(), "{name}");
    }
    let mut wrong = event;
    wrong["activity_id"] = 77.into();
    assert!(!check(&wrong).is_empty());
}

#[test]
fn an_issued_lease_is_an_authentication() {
    let event = mapped(&issued());
    let mut event = event;
    event["unmapped"]["dayfly"] = Value::Null;
    event["metadata"]["product"]["version"] = Value::Null;
    insta::assert_snapshot!("ocsf_issued", serde_json::to_string_pretty(&event).unwrap());
}

/// `docs/reference/events.md` has a row for each kind, and its classes are those that are exported.
#[test]
fn the_reference_is_whole_and_right() {
    let reference = include_str!("../../../../docs/reference/events.md");
    let rows: Vec<_> = reference.lines().filter(|line| line.starts_with("| `")).collect();
    for kind in EventKind::all() {
        let (name, number) = (kind.name(), i32::from(kind));
        let described = format!("| `{name}` | {number} | ");
        assert!(
            rows.iter().any(|row| row.starts_with(&described)),
            "a row of the kinds for {name}, {number}"
        );
        for of_workload in [true, false] {
            let event = mapped(&drafted(kind, of_workload));
            let class = format!(" {} | {} ", event["class_uid"], event["activity_id"]);
            if event["class_uid"] != 0 {
                let told = rows.iter().any(|row| row.contains(&format!("`{name}`")) && row.contains(&class));
                assert!(told, "a row of the classes for {name} with{class}");
            }
        }
    }
}
