//! The JSON Schemas and `docs/reference/policy.md` are what the specs say: they are made from their source, whose doc
//! comments say each field's meaning, unit and limit, and from examples that name every field. The examples load, and
//! what the schemas take and refuse is what serde takes and refuses. `DAYFLY_GEN=1` writes them anew.

#![expect(clippy::unwrap_used, reason = "a test")]

mod source;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use dayfly_policy::{File, Loaded, Reserved, Severity, load};
use serde_json::{Map, Value, json};
use source::{Field, Source};

/// Each kind: its name, the type of its spec, whether it is namespaced, its examples.
const KINDS: [(&str, &str, bool, &str); 4] = [
    ("Owner", "OwnerSpec", false, include_str!("owner.yaml")),
    ("Target", "TargetSpec", false, include_str!("target.yaml")),
    ("Grant", "GrantSpec", true, include_str!("grant.yaml")),
    ("PolicyTest", "TestSpec", false, include_str!("policy-test.yaml")),
];

/// Fields that no valid example can have.
const NOT_IN_EXAMPLES: [&str; 1] = ["spec.conditions[]"];

fn reference() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference")
}

/// `policy-test` of `PolicyTest`.
fn file_name(kind: &str) -> String {
    let mut name = String::new();
    for c in kind.chars() {
        if c.is_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.extend(c.to_lowercase());
    }
    name
}

fn values(yaml: &str) -> Vec<Value> {
    yaml.split("---\n").map(|document| serde_saphyr::from_str(document).unwrap()).collect()
}

fn loaded(value: &Value) -> Loaded {
    load(&[File { name: "example.yaml".to_owned(), text: value.to_string() }], &Reserved::default())
}

fn errors(value: &Value) -> Vec<String> {
    let problems = loaded(value).problems;
    problems.into_iter().filter(|p| p.severity == Severity::Error).map(|p| p.message).collect()
}

fn schema(source: &Source, (kind, spec, namespaced, _): (&str, &str, bool, &str)) -> Value {
    let text = json!({"type": "object", "additionalProperties": {"type": "string"}});
    let mut metadata = json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["name"],
        "properties": {"name": {"type": "string"}, "labels": text, "annotations": text},
    });
    if namespaced {
        metadata["required"] = json!(["name", "namespace"]);
        metadata["properties"]["namespace"] = json!({"type": "string"});
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": kind,
        "description": source.item(spec).doc,
        "type": "object",
        "additionalProperties": false,
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": {"const": "dayfly.dev/v1alpha1"},
            "kind": {"const": kind},
            "metadata": metadata,
            "spec": source.schema(spec),
        },
    })
}

fn any_kind(schemas: &[Value]) -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Dayfly policy",
        "description": "Any policy object of Dayfly.",
        "oneOf": schemas.iter().map(|schema| {
            let mut schema = schema.clone();
            schema.as_object_mut().unwrap().remove("$schema");
            schema
        }).collect::<Vec<_>>(),
    })
}

fn pretty(value: &Value) -> String {
    /// By key, whichever way serde_json keeps them.
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_by_key(|(key, _)| *key);
                Value::Object(entries.into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect())
            }
            Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
            other => other.clone(),
        }
    }
    format!("{}\n", serde_json::to_string_pretty(&sorted(value)).unwrap())
}

/// Each field of a type with its path: `spec.ceiling[].scopes`.
fn fields(source: &Source, of: &str, path: &str) -> Vec<(String, Field)> {
    let mut all = Vec::new();
    for field in &source.item(of).fields {
        let list = if field.is_list() { "[]" } else { "" };
        let path = format!("{path}.{}{list}", field.name);
        all.push((path.clone(), field.clone()));
        if source.is_struct(field.inner()) {
            all.extend(fields(source, field.inner(), &path));
        }
    }
    all
}

/// The first value at a path in an example.
fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    let Some((step, rest)) = path.split_once('.') else {
        return value.get(path.trim_end_matches("[]"));
    };
    match value.get(step.trim_end_matches("[]"))? {
        Value::Array(items) => items.iter().find_map(|item| at(item, rest)),
        value => at(value, rest),
    }
}

fn policy_md(source: &Source) -> String {
    let mut md = include_str!("intro.md").to_owned();
    for (kind, spec, namespaced, example) in KINDS {
        let where_ = if namespaced { "Of a namespace" } else { "Of the whole cluster" };
        let _ =
            write!(md, "\n## {kind}\n\n{} {where_}: `metadata.", source.item(spec).doc.replace('\n', " "));
        let place = if namespaced { "namespace` and `metadata.name`" } else { "name` alone" };
        let _ = write!(md, "{place}.\n\n```yaml\n{example}```\n\n");
        md.push_str("| field | is | needed | says | example |\n|---|---|---|---|---|\n");
        let examples = values(example);
        for (path, field) in fields(source, spec, "spec") {
            let shown = examples
                .iter()
                .find_map(|example| at(example, &path))
                .filter(|_| !source.is_struct(field.inner()))
                .map(compact)
                .unwrap_or_default();
            let needed = if field.required { "yes" } else { "" };
            let says = field.doc.replace('\n', " ").replace('|', "\\|");
            let _ =
                writeln!(md, "| `{path}` | {} | {needed} | {says} | {shown} |", source.words(&field.kind));
        }
        for name in source.enums_under(spec) {
            let _ = writeln!(md, "\n`{name}`:\n");
            for variant in &source.item(&name).fields {
                let _ = writeln!(md, "- `{}`: {}", variant.name, variant.doc.replace('\n', " "));
            }
        }
    }
    md.push_str("\n## What names are\n\n| is | as |\n|---|---|\n");
    for (words, says) in source::leaves() {
        let _ = writeln!(md, "| {words} | {says} |");
    }
    md
}

/// An example as a table's cell.
fn compact(value: &Value) -> String {
    match value {
        Value::String(text) => format!("`{text}`"),
        other => format!("`{}`", other.to_string().replace("\":", ": ").replace('"', "").replace(',', ", ")),
    }
}

#[test]
fn schemas_and_reference_are_not_stale() {
    let source = Source::read();
    let schemas = KINDS.map(|kind| schema(&source, kind));
    let mut fresh: Vec<_> = KINDS
        .iter()
        .zip(&schemas)
        .map(|((kind, ..), schema)| (format!("schemas/{}.json", file_name(kind)), pretty(schema)))
        .collect();
    fresh.push(("schemas/policy.json".to_owned(), pretty(&any_kind(&schemas))));
    fresh.push(("policy.md".to_owned(), policy_md(&source)));
    for (name, fresh) in fresh {
        let place = reference().join(name);
        if std::env::var_os("DAYFLY_GEN").is_some() {
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(&place, &fresh).unwrap();
        }
        let committed = fs::read_to_string(&place).unwrap_or_default();
        let how = "run `DAYFLY_GEN=1 cargo test -p dayfly-policy --test reference` and commit it";
        assert!(committed == fresh, "{} is stale: {how}", place.display());
    }
}

#[test]
fn every_field_is_documented_and_in_a_valid_example() {
    let source = Source::read();
    for (kind, spec, _, example) in KINDS {
        let examples = values(example);
        for example in &examples {
            assert_eq!(errors(example), [""; 0], "{kind}");
        }
        for (path, field) in fields(&source, spec, "spec") {
            assert!(!field.doc.is_empty(), "{kind} {path} is not documented");
            let there = examples.iter().any(|example| at(example, &path).is_some())
                || NOT_IN_EXAMPLES.contains(&path.as_str());
            assert!(there, "{kind} {path} is in no example: add it to src/policy/tests/reference");
        }
    }
}

/// Whether a schema takes a value. The words of JSON Schema that ours use, but for patterns of text.
fn takes(schema: &Value, value: &Value) -> bool {
    let of_type = match schema.get("type").and_then(Value::as_str) {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_u64(),
        Some("boolean") => value.is_boolean(),
        _ => true,
    };
    let of_list =
        |word: &str| schema.get(word).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let has = |key: &Value| value.get(key.as_str().unwrap()).is_some();
    let properties = schema.get("properties").and_then(Value::as_object);
    let more = schema.get("additionalProperties");
    let members = value.as_object().is_none_or(|map| {
        map.iter().all(|(key, value)| match properties.and_then(|properties| properties.get(key)) {
            Some(schema) => takes(schema, value),
            None => match more {
                Some(Value::Bool(allowed)) => *allowed,
                Some(schema) => takes(schema, value),
                None => true,
            },
        })
    });
    let items = schema.get("items").is_none_or(|schema| {
        value.as_array().is_none_or(|items| items.iter().all(|item| takes(schema, item)))
    });
    of_type
        && members
        && items
        && of_list("required").iter().all(has)
        && schema.get("const").is_none_or(|constant| constant == value)
        && (of_list("enum").is_empty() || of_list("enum").contains(value))
        && (of_list("oneOf").is_empty() || of_list("oneOf").iter().filter(|s| takes(s, value)).count() == 1)
}

/// Every value that differs from this one in one place: a member left out, a member too much, another type.
fn changed(value: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                let without: Map<_, _> =
                    map.iter().filter(|(k, _)| *k != key).map(|(k, v)| (k.clone(), v.clone())).collect();
                all.push(Value::Object(without));
                for inner in changed(inner) {
                    let mut map = map.clone();
                    map.insert(key.clone(), inner);
                    all.push(Value::Object(map));
                }
            }
            let mut more = map.clone();
            more.insert("surprise".to_owned(), Value::Object(Map::new()));
            all.push(Value::Object(more));
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                for item in changed(item) {
                    let mut items = items.clone();
                    items[index] = item;
                    all.push(Value::Array(items));
                }
            }
        }
        _ => {}
    }
    all.push(json!({"of": {"another": "type"}}));
    all.push(json!([["another type"]]));
    all.push(json!(true));
    all
}

/// What serde takes is what the schemas take, for every change of one place of every example. Checks beyond shape, such
/// as limits, are no matter of the schemas: their messages begin with the field's path.
#[test]
fn schemas_take_what_serde_takes() {
    let source = Source::read();
    let schemas = KINDS.map(|kind| schema(&source, kind));
    let any = any_kind(&schemas);
    let (mut taken, mut refused) = (0, BTreeSet::new());
    let of_kinds = KINDS.iter().zip(&schemas);
    for (kind, example, schema) in of_kinds
        .flat_map(|((kind, .., yaml), schema)| values(yaml).into_iter().map(move |e| (kind, e, schema)))
    {
        assert!(takes(schema, &example) && takes(&any, &example), "{kind}");
        for changed in changed(&example) {
            let errors = errors(&changed);
            let by_serde = errors.iter().find(|error| !error.starts_with("spec"));
            let by_schema = takes(schema, &changed);
            assert_eq!(by_schema, by_serde.is_none(), "{kind}: {changed}\n{errors:?}");
            assert_eq!(by_schema, takes(&any, &changed), "{kind}: {changed}");
            match by_serde {
                None => taken += 1,
                Some(error) => drop(refused.insert(error.clone())),
            }
        }
    }
    assert!(taken > 50 && refused.len() > 20, "{taken} {refused:?}");
}
